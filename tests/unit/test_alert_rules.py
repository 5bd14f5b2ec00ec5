"""monitoring/alerts.yml, judged by promtool on made-up series: an hour of ordinary load, and an outage of each kind."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "monitoring" / "alerts.yml"
ALERTS = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]
}
STEP_SECONDS = 15
SAMPLES = 241  # an hour
SCALED, RESTARTED = range(60, 140), range(180, 182)  # samples with four workers; and in which no process runs
BEFORE, AFTER = 80, 132  # samples: 20 minutes of ordinary load, then 33 of the outage

GATEWAYS = ('job="safelight-gateway",instance="one"', 'job="safelight-gateway",instance="two"')
WORKER, DOOR = 'job="safelight-worker",instance="w"', 'job="safelight-door",instance="d"'
Series = dict[str, tuple[float, float]]  # series -> its first value, and what it grows by in each step
GONE = (math.nan, 0.0)  # no longer shown
# What a gateway leaves out while Postgres is away.
FROM_POSTGRES = re.compile(
    r"safelight_(jobs|oldest_ready_job_age_seconds|processor_paused|dispatch_lag_seconds|workers|event_place_wait_seconds"
    r"|webhook_oldest_due_seconds){"
)


def at_gateways(name: str, labels: str, start: float, by: float = 0) -> Series:
    inner = f",{labels}" if labels else ""
    return {f"{name}{{{gateway}{inner}}}": (start, by) for gateway in GATEWAYS}


# What a busy and healthy Safelight shows: some photos are rejected, some runs fail, some requests are refused, old dead
# letters lie there, an idle door still remembers that the storage was away, and one of two gateways was just restarted.
ORDINARY: Series = {
    **at_gateways("up", "", 1),
    f"up{{{WORKER}}}": (1, 0),
    f"up{{{DOOR}}}": (1, 0),
    **at_gateways("safelight_workers", "", 2),
    **at_gateways("safelight_jobs", 'processor="preview",state="ready"', 40),
    **at_gateways("safelight_jobs", 'processor="preview",state="dead"', 7),
    **at_gateways("safelight_jobs", 'processor="slow",state="ready"', 900),
    **at_gateways("safelight_oldest_ready_job_age_seconds", 'processor="preview"', 12),
    **at_gateways("safelight_oldest_ready_job_age_seconds", 'processor="slow"', 50, 15),  # paused an hour ago
    **at_gateways("safelight_processor_paused", 'processor="preview"', 0),
    **at_gateways("safelight_processor_paused", 'processor="slow"', 1),
    **at_gateways("safelight_dead_jobs_total", 'processor="preview"', 7),
    **at_gateways("safelight_job_runs_total", 'processor="preview",outcome="ok"', 0, 60),
    **at_gateways("safelight_job_runs_total", 'processor="preview",outcome="retry"', 0, 1),
    **at_gateways("safelight_job_runs_total", 'processor="preview",outcome="crashed"', 0, 0.1),
    **at_gateways("safelight_job_runs_total", 'processor="preview",outcome="snoozed"', 0, 30),
    **at_gateways("safelight_job_runs_total", 'processor="preview",outcome="dead"', 7),
    **at_gateways("safelight_job_runs_total", 'processor="preview",outcome="expired"', 0, 0.02),
    f'safelight_sandbox_kills_total{{{WORKER},reason="wall_time"}}': (0, 0.1),
    **at_gateways("safelight_dispatch_lag_seconds", "", 1),
    **at_gateways("safelight_dispatch_last_success_timestamp_seconds", "", 0, STEP_SECONDS),
    **{
        series: value
        for name in ("postgres", "s3", "redis")
        for series, value in at_gateways("safelight_dependency_up", f'dependency="{name}"', 1).items()
    },
    f'safelight_dependency_up{{{WORKER},dependency="redis"}}': (1, 0),
    f'safelight_dependency_up{{{DOOR},dependency="s3"}}': (0, 0),
    **at_gateways("safelight_reconcile_findings_total", 'finding="original_missing",action="left"', 1),
    **at_gateways("safelight_reconcile_findings_total", 'finding="preview_missing",action="repaired"', 0, 0.2),
    **at_gateways("safelight_reconcile_last_turn_timestamp_seconds", "", 0, STEP_SECONDS),
    **at_gateways("safelight_reconcile_last_pass_timestamp_seconds", "", 10, STEP_SECONDS),
    **at_gateways("safelight_reconcile_pass_interval_seconds", "", 3600),
    **at_gateways("safelight_disk_free_bytes", "", 40e9),
    **at_gateways("safelight_disk_size_bytes", "", 100e9),
    **at_gateways("safelight_postgres_pool_connections", 'state="used"', 6),
    **at_gateways("safelight_postgres_pool_connections", 'state="idle"', 4),
    **at_gateways("safelight_postgres_pool_limit", "", 10),
    **at_gateways("safelight_uploads_in_flight", "", 100),
    **at_gateways("safelight_uploads_limit", "", 256),
    **at_gateways("safelight_uploads_waiting", "", 5),
    f"safelight_door_requests_in_flight{{{DOOR}}}": (200, 0),
    f"safelight_door_requests_limit{{{DOOR}}}": (1000, 0),
    **at_gateways("safelight_http_requests_total", 'method="PUT",route="/v1/photos",status="201"', 0, 90),
    **at_gateways("safelight_http_requests_total", 'method="PUT",route="/v1/photos",status="503"', 0, 1),
    **at_gateways("safelight_http_requests_total", 'method="GET",route="/readyz",status="503"', 0, 90),
    f'safelight_door_requests_total{{{DOOR},operation="PutObject",status="200"}}': (0, 90),
    f'safelight_door_requests_total{{{DOOR},operation="PutObject",status="503"}}': (0, 1),
    **at_gateways("safelight_bucket_events_lag_seconds", 'source="minio"', 2),
    **at_gateways("safelight_bucket_events_last_timestamp_seconds", 'source="minio"', 0, STEP_SECONDS),
    **at_gateways("safelight_bucket_events_lag_seconds", 'source="ceph"', 4000),  # the last one, long ago
    **at_gateways("safelight_bucket_events_last_timestamp_seconds", 'source="ceph"', -7200),
    **at_gateways("safelight_bucket_event_messages_unusable_total", 'reason="not_json"', 3),
    **at_gateways("safelight_bucket_event_requests_refused_total", 'reason="token"', 0, 0.05),
    **at_gateways("safelight_event_place_wait_seconds", "", 0.2),
    **at_gateways("safelight_webhook_oldest_due_seconds", "", 3),
    f'safelight_webhook_attempts_total{{{WORKER},outcome="failed"}}': (0, 1),
    f'safelight_webhook_attempts_total{{{WORKER},outcome="dead"}}': (4, 0),
}

# What changes of it in each outage, and every alert that fires then.
OUTAGES: dict[str, tuple[Series, set[str]]] = {
    "both gateways are gone": (at_gateways("up", "", 0), {"SafelightGatewayMissing", "SafelightProcessDown"}),
    "one of two gateways is gone": (
        {f"up{{{GATEWAYS[0]}}}": (0, 0)},
        {"SafelightProcessDown"},
    ),
    "the S3 door does not answer": ({f"up{{{DOOR}}}": (0, 0)}, {"SafelightProcessDown", "SafelightProgramMissing"}),
    "the S3 door has stopped, and DNS names it no more": ({f"up{{{DOOR}}}": GONE}, {"SafelightProgramMissing"}),
    "all workers have stopped, and DNS names them no more": ({f"up{{{WORKER}}}": GONE}, {"SafelightProgramMissing"}),
    "no worker is left": (at_gateways("safelight_workers", "", 0), {"SafelightNoWorker"}),
    "the storage is down": (
        at_gateways("safelight_dependency_up", 'dependency="s3"', 0),
        {"SafelightDependencyDown"},
    ),
    "Postgres is down": (
        {
            **at_gateways("safelight_dependency_up", 'dependency="postgres"', 0),
            **{series: GONE for series in ORDINARY if FROM_POSTGRES.match(series)},
            **at_gateways("safelight_dispatch_last_success_timestamp_seconds", "", BEFORE * STEP_SECONDS),
            **at_gateways("safelight_reconcile_last_turn_timestamp_seconds", "", BEFORE * STEP_SECONDS),
            **at_gateways("safelight_http_requests_total", 'method="PUT",route="/v1/photos",status="201"', 7200),
            **at_gateways("safelight_http_requests_total", 'method="PUT",route="/v1/photos",status="503"', 80, 90),
        },
        {"SafelightDependencyDown", "SafelightDispatchStalled", "SafelightReconcileStalled", "SafelightRequestsFail"},
    ),
    "a worker has lost Redis": (
        {f'safelight_dependency_up{{{WORKER},dependency="redis"}}': (0, 0)},
        {"SafelightDependencyDown"},
    ),
    "jobs wait": (
        at_gateways("safelight_oldest_ready_job_age_seconds", 'processor="preview"', 90),
        {"SafelightJobsWait"},
    ),
    "the queue is stuck": (
        at_gateways("safelight_oldest_ready_job_age_seconds", 'processor="preview"', 12, STEP_SECONDS),
        {"SafelightJobsWait", "SafelightQueueStuck"},
    ),
    "jobs die": (
        at_gateways("safelight_dead_jobs_total", 'processor="preview"', 7, 0.2),
        {"SafelightDeadJobs"},
    ),
    "runs fail": (
        at_gateways("safelight_job_runs_total", 'processor="preview",outcome="retry"', 80, 40),
        {"SafelightRunsFail"},
    ),
    "workers fall silent": (
        at_gateways("safelight_job_runs_total", 'processor="preview",outcome="expired"', 2, 1),
        {"SafelightLeasesExpire"},
    ),
    "decoders die": (
        {f'safelight_sandbox_kills_total{{{WORKER},reason="wall_time"}}': (8, 2)},
        {"SafelightChildrenDie"},
    ),
    "nothing is dispatched": (
        at_gateways("safelight_dispatch_lag_seconds", "", 1, STEP_SECONDS),
        {"SafelightDispatchLag"},
    ),
    "no dispatcher runs": (
        at_gateways("safelight_dispatch_last_success_timestamp_seconds", "", BEFORE * STEP_SECONDS),
        {"SafelightDispatchStalled"},
    ),
    "originals are lost": (
        at_gateways("safelight_reconcile_findings_total", 'finding="original_missing",action="left"', 1, 0.1),
        {"SafelightOriginalsLost"},
    ),
    "reconciling has stopped": (
        at_gateways("safelight_reconcile_last_turn_timestamp_seconds", "", BEFORE * STEP_SECONDS),
        {"SafelightReconcileStalled"},
    ),
    "the disk is full": (at_gateways("safelight_disk_free_bytes", "", 4e9), {"SafelightDiskNearlyFull"}),
    "the pool is used up": (
        at_gateways("safelight_postgres_pool_connections", 'state="used"', 10),
        {"SafelightPoolNearlyFull"},
    ),
    "uploads are at their limit": (
        at_gateways("safelight_uploads_in_flight", "", 250),
        {"SafelightUploadsNearlyFull"},
    ),
    "the door is at its limit": (
        {f"safelight_door_requests_in_flight{{{DOOR}}}": (990, 0)},
        {"SafelightUploadsNearlyFull"},
    ),
    "uploads wait for memory": (at_gateways("safelight_uploads_waiting", "", 80), {"SafelightUploadsNearlyFull"}),
    "REST fails": (
        at_gateways("safelight_http_requests_total", 'method="PUT",route="/v1/photos",status="503"', 80, 30),
        {"SafelightRequestsFail"},
    ),
    "the S3 door fails": (
        {f'safelight_door_requests_total{{{DOOR},operation="PutObject",status="503"}}': (80, 30)},
        {"SafelightRequestsFail"},
    ),
    "bucket events are late": (
        at_gateways("safelight_bucket_events_lag_seconds", 'source="minio"', 1200),
        {"SafelightBucketEventsLate"},
    ),
    "bucket events cannot be read": (
        at_gateways("safelight_bucket_event_messages_unusable_total", 'reason="not_json"', 3, 0.2),
        {"SafelightBucketEventsUnusable"},
    ),
    "events get no place": (
        at_gateways("safelight_event_place_wait_seconds", "", 0, STEP_SECONDS),
        {"SafelightEventsWait"},
    ),
    "deliveries wait": (
        at_gateways("safelight_webhook_oldest_due_seconds", "", 3, STEP_SECONDS),
        {"SafelightDeliveriesWait"},
    ),
    "deliveries die": (
        {f'safelight_webhook_attempts_total{{{WORKER},outcome="dead"}}': (4, 0.2)},
        {"SafelightDeliveriesDie"},
    ),
    "a stranger knocks": (
        at_gateways("safelight_bucket_event_requests_refused_total", 'reason="token"', 4, 2),
        {"SafelightHookRefused"},
    ),
}
# Those that only come after more than a day are tried over days.
SLOW: dict[str, tuple[Series, set[str]]] = {
    "a processor is forgotten": ({}, {"SafelightProcessorPaused"}),
    "no pass ends any more": (
        at_gateways("safelight_reconcile_last_pass_timestamp_seconds", "", 10),
        {"SafelightProcessorPaused", "SafelightReconcileStale"},
    ),
}


def written(first: float, by: float, steps: int) -> str:
    if math.isnan(first):
        return f"stale _x{steps - 1}"
    return f"{first:g}+{by:g}x{steps - 1}"


def judge(tmp_path: Path, tests: list[dict[str, Any]], *, every: str = "1m") -> str:
    """What promtool finds wrong, where the rules are evaluated so often."""
    path = tmp_path / "test.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": every, "tests": tests}))
    command = ("promtool", "test", "rules", str(path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def expect(at: str, query: str, alerts: set[str]) -> dict[str, Any]:
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)]
    return {"eval_time": at, "expr": query, "exp_samples": samples}


def scenario(changes: Series, alerts: set[str], *, interval: str, before: int, after: int) -> dict[str, Any]:
    """Ordinary for `before` samples, then as changed for `after`: silent until then, and these alerts at the end."""
    assert changes.keys() <= ORDINARY.keys()
    series = {name: written(*value, before + after) for name, value in ORDINARY.items()}
    for name, value in changes.items():
        series[name] = f"{written(*ORDINARY[name], before)} {written(*value, after)}"
    step = int(interval.rstrip("smh"))
    unit = interval[-1]
    firing = 'group by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            expect(f"{(before - 1) * step}{unit}", firing, set()),
            expect(f"{(before + after - 1) * step}{unit}", firing, alerts),
        ],
    }


@pytest.mark.needs_promtool
def test_an_hour_of_ordinary_load_is_silent(tmp_path: Path) -> None:
    """No alert fires in an hour of ordinary load, not even for a moment."""
    series = [{"series": name, "values": written(*value, 241)} for name, value in ORDINARY.items()]
    ever = 'group by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))'
    test = {"interval": "15s", "input_series": series, "promql_expr_test": [expect("60m", ever, set())]}
    assert judge(tmp_path, [test]) == ""


def counted(chance: random.Random, by: float) -> list[float]:
    """A counter that rises unevenly, and begins again where its process is restarted."""
    values, total = [], 0.0
    for sample in range(SAMPLES):
        total = 0 if sample == RESTARTED[-1] + 1 else total + by * chance.choice((0, 0.5, 1, 1, 1.5, 2))
        values.append(total)
    return values


def swayed(chance: random.Random, least: float, most: float, *, peak: float | None = None) -> list[float]:
    """A number that goes up and down; now and then, for less than a minute, up to `peak`."""
    values = [chance.uniform(least, most) for _ in range(SAMPLES)]
    for begin in range(40, SAMPLES, 60):
        values[begin : begin + 3] = [peak if peak is not None else most] * 3
    return values


def busy_hour(seed: int) -> dict[str, list[float]]:
    """Uneven load with short peaks; one worker becomes four for twenty minutes, then one again; at 45 minutes a deploy
    stops every process for half a minute, so their counters begin anew and a few leases run out."""
    chance = random.Random(seed)
    found: dict[str, list[float]] = {}
    for series, (first, by) in ORDINARY.items():
        metric = series.split("{")[0]
        going = metric.endswith("_total") and by > 0
        found[series] = counted(chance, by) if going else [first + by * sample for sample in range(SAMPLES)]
    for name, labels, values in (
        ("oldest_ready_job_age_seconds", 'processor="preview"', swayed(chance, 0, 40, peak=75)),
        ("jobs", 'processor="preview",state="ready"', swayed(chance, 0, 4000)),
        ("dispatch_lag_seconds", "", swayed(chance, 0, 8, peak=20)),
        ("event_place_wait_seconds", "", swayed(chance, 0, 5, peak=35)),
        ("webhook_oldest_due_seconds", "", swayed(chance, 0, 90, peak=130)),
        ("uploads_in_flight", "", swayed(chance, 0, 220, peak=256)),
        ("uploads_waiting", "", swayed(chance, 0, 30, peak=70)),
        ("postgres_pool_connections", 'state="used"', swayed(chance, 0, 8, peak=10)),
        ("workers", "", [4.0 if sample in SCALED else 1.0 for sample in range(SAMPLES)]),
    ):
        found |= dict.fromkeys(at_gateways(f"safelight_{name}", labels, 0), values)
    for number in (2, 3, 4):
        other = WORKER.replace('"w"', f'"w{number}"')
        found[f"up{{{other}}}"] = [1.0 if sample in SCALED else math.nan for sample in range(SAMPLES)]
        kills = f'safelight_sandbox_kills_total{{{other},reason="wall_time"}}'
        found[kills] = [0.03 * sample if sample in SCALED else math.nan for sample in range(SAMPLES)]
    for series, values in found.items():
        for sample in RESTARTED:
            values[sample] = 0 if series.startswith("up{") and not math.isnan(values[sample]) else math.nan
    expired = at_gateways("safelight_job_runs_total", 'processor="preview",outcome="expired"', 0)
    found |= {
        series: [value + (2 if sample > 190 else 0) for sample, value in enumerate(found[series])] for series in expired
    }
    return found


@pytest.mark.needs_promtool
def test_an_uneven_hour_with_a_deploy_is_silent(tmp_path: Path) -> None:
    """No alert fires, not even for a moment, while the load jumps, workers come and go, and a deploy restarts all."""
    ever = 'group by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))'
    tests = []
    for seed in range(3):
        series = [
            {"series": name, "values": " ".join("stale" if math.isnan(value) else f"{value:g}" for value in values)}
            for name, values in busy_hour(seed).items()
        ]
        tests.append({"interval": "15s", "input_series": series, "promql_expr_test": [expect("60m", ever, set())]})
    assert judge(tmp_path, tests, every="15s") == ""


@pytest.mark.needs_promtool
def test_each_outage_fires_its_alerts_and_no_other(tmp_path: Path) -> None:
    """After twenty minutes of ordinary load each kind of outage fires exactly the alerts that are about it."""
    tests = [
        scenario(changes, alerts, interval="15s", before=BEFORE, after=AFTER) for changes, alerts in OUTAGES.values()
    ]
    assert judge(tmp_path, tests) == ""


@pytest.mark.needs_promtool
def test_only_paused_jobs_wait_for_no_worker(tmp_path: Path) -> None:
    """Without a worker nobody is called while the only jobs that wait are paused ones."""
    changes = {
        **at_gateways("safelight_workers", "", 0),
        **at_gateways("safelight_jobs", 'processor="preview",state="ready"', 0),
    }
    assert judge(tmp_path, [scenario(changes, set(), interval="15s", before=BEFORE, after=AFTER)]) == ""


@pytest.mark.needs_promtool
def test_what_died_while_no_gateway_ran_is_told(tmp_path: Path) -> None:
    """Gateways that count from nought again after ten minutes away still show that there are more dead letters."""
    died = {**dict.fromkeys(at_gateways("safelight_jobs", 'processor="preview",state="dead"', 0), (9.0, 0.0))}
    away, back = 40, 92
    test = scenario({}, {"SafelightDeadJobs"}, interval="15s", before=BEFORE, after=away + back)
    for item in test["input_series"]:
        name = item["series"]
        if "safelight-gateway" in name:
            first, by = ORDINARY[name]
            now = (
                first + by * (BEFORE + away)
                if "_timestamp_" in name or not name.split("{")[0].endswith("_total")
                else 0
            )
            item["values"] = (
                f"{written(first, by, BEFORE)} {written(*GONE, away)} {written(*died.get(name, (now, by)), back)}"
            )
    assert judge(tmp_path, [test]) == ""


@pytest.mark.needs_promtool
def test_what_goes_on_for_days_is_told(tmp_path: Path) -> None:
    """A processor that stays paused, and a comparison with the storage that never comes to its end."""
    tests = []
    for changes, alerts in SLOW.values():
        test = scenario(changes, alerts, interval="10m", before=6, after=180)
        for item in test["input_series"]:
            first, by = ORDINARY[item["series"]]
            if by == STEP_SECONDS and item["series"] not in changes:  # it goes by the clock
                item["values"] = written(first, 600, 186)
        tests.append(test)
    assert judge(tmp_path, tests, every="10m") == ""


def test_every_alert_has_an_outage_and_a_page_in_the_runbook() -> None:
    """Each alert is tried by an outage here, says how bad it is, and leads to a section of the runbook of its name that
    says what it means and what to do; the runbook has no others."""
    tried = set().union(*(alerts for _, alerts in (*OUTAGES.values(), *SLOW.values())))
    assert tried == set(ALERTS)
    text = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    sections = dict(re.findall(r"(?ms)^### (Safelight\w+)\n(.*?)(?=^##|\Z)", text))
    assert sections.keys() == ALERTS.keys()
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in {"page", "warn"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert "**Means**" in sections[name], name
        assert "**Do**" in sections[name], name
