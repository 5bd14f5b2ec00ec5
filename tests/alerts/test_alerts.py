"""The alert rules against what real processes show to a real Prometheus, in order and in trouble.

How long something must last before an alert fires is tried by promtool (tests/unit/test_alert_rules.py); here each
rule's expression is asked as Prometheus would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from safelight.embedded.folder import choose_port
from safelight.embedded.identity import child_setup
from storage import sealing
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.programs import ROOT
from tests.faults.harness.proxy import Fault, Proxy
from tests.faults.harness.stack import Stack
from tests.faults.harness.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MONITORING = ROOT / "monitoring"
RULES: dict[str, str] = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
}
QUICK = {"reconcile_interval_seconds": "0.5", "reconcile_pass_seconds": "1", "reconcile_grace_seconds": "0"}


class Prometheus:
    """One that scrapes the given programs, under the job names of monitoring/prometheus.yml."""

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"
        self._session = session

    async def ask(self, expression: str) -> list[dict[str, Any]]:
        async with self._session.post(f"{self._url}/query", data={"query": expression}) as answer:
            found = await answer.json()
        assert found["status"] == "success", found
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    async def names(self) -> set[str]:
        """Every metric that it has seen."""
        async with self._session.get(f"{self._url}/label/__name__/values") as answer:
            return set((await answer.json())["data"])

    async def ready(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            return all(item["value"][1] == "1" for item in await self.ask("up")) and bool(await self.ask("up"))
        return False

    async def scrapes(self, kind: str) -> int:
        """How often it has scraped programs of a kind, in vain or not."""
        (found,) = await self.ask(f'count_over_time(up{{job="safelight-{kind}"}}[1h])')
        return int(found["value"][1])

    async def has_scraped(self, kind: str, times: int) -> bool:
        return await self.scrapes(kind) >= times

    async def holding(self) -> set[str]:
        """The alerts whose expression holds now."""
        answers = await asyncio.gather(*(self.ask(expression) for expression in RULES.values()))
        return {name for name, answer in zip(RULES, answers, strict=True) if answer}


def launch_prometheus(folder: Path, ports: dict[str, int], port: int, every: str) -> subprocess.Popen[bytes]:
    binary = shutil.which("prometheus")
    assert binary is not None, "it comes with promtool"
    jobs = [
        {"job_name": f"safelight-{kind}", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        for kind, target in ports.items()
    ]
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": every}, "scrape_configs": jobs}))
    command = [binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("wb") as log:
        return subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=child_setup(signal.SIGKILL, "same"),  # noqa: PLW1509
        )


@contextlib.asynccontextmanager
async def open_prometheus(folder: Path, ports: dict[str, int], *, every: str = "500ms") -> AsyncIterator[Prometheus]:
    """One that scrapes so often, and gives up on a scrape when the next one is due, but after ten seconds at most."""
    port = choose_port()
    process = launch_prometheus(folder, ports, port, every)
    try:
        async with aiohttp.ClientSession() as session:
            yield Prometheus(port, session)
    finally:
        process.kill()
        process.wait(10)


async def start_all(stack: Stack, s3_port: int) -> dict[str, int]:
    """A gateway, a worker and a door that show their metrics; the ports of those."""
    ports = {kind: choose_port() for kind in ("gateway", "worker", "door")}
    programs = [stack.launch(kind, metrics_port=str(ports[kind]), **QUICK) for kind in ("gateway", "worker")]
    door_settings = {"s3_port": str(s3_port), "master_key": sealing.generate()}
    programs.append(stack.launch("door", metrics_port=str(ports["door"]), **door_settings))
    await asyncio.gather(*(program.ready() for program in programs))
    return ports


async def knock(port: int) -> None:
    """A request at the S3 door, which is refused."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/photos/a.jpg") as answer:
        assert answer.status == 403


def cut_off(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.drop()


def metrics_in(texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in re.findall(r"\bsafelight_[a-z0-9_]+", text)}


@pytest.mark.needs_promtool
async def test_no_alert_in_order_and_the_right_ones_in_trouble(
    stack: Stack, open_ledger: Callable[..., Ledger], tmp_path: Path
) -> None:
    """With real processes under load no rule holds, and every metric that a rule or the dashboard names is there; then
    a worker that is gone, jobs that wait, dead letters, lost originals, Redis and the storage away, and no gateway at
    all: each makes the rules hold that are about it."""
    s3_port = choose_port()
    ports = await start_all(stack, s3_port)
    ledger = open_ledger()
    async with open_prometheus(tmp_path, ports) as prometheus:

        async def holds(*alerts: str) -> None:
            for alert in alerts:

                async def held(expression: str = RULES[alert]) -> bool:
                    return bool(await prometheus.ask(expression))

                await until(held, f"{alert} holds", seconds=60)

        async def silent() -> bool:
            return await prometheus.holding() == set()

        await until(prometheus.ready, "Prometheus has scraped all", seconds=60)
        await ledger.load(per_second=5, seconds=3)
        await stack.drain(seconds=20)
        assert await ledger.put(key="lost.jpg", wait=20) is not None
        photo = ledger.photo()
        assert await ledger.put(photo[: len(photo) // 8], wait=20) is not None  # to be rejected
        await knock(s3_port)
        await until(silent, "in order no rule holds", seconds=60)
        dashboard = (MONITORING / "grafana" / "dashboards" / "safelight.json").read_text("utf-8")
        wanted = metrics_in([*RULES.values(), *expressions(json.loads(dashboard))]) - LAZY

        async def all_seen() -> bool:
            return wanted <= await prometheus.names()

        await until(all_seen, f"each of {wanted} is scraped", seconds=20)

        (worker,) = stack.workers
        await worker.stop()
        await ledger.put()
        await holds("SafelightProcessDown", "SafelightNoWorker")
        cut_off(stack.ground.redis_proxy)
        await ledger.put()
        await stack.value("update job set run_at = now() - interval '2 min' where state = 'ready'")
        await holds("SafelightJobsWait", "SafelightDispatchLag")
        await stack.ground.redis_proxy.heal()
        broken = await stack.start_worker(max_attempts="1", failpoint="artifact.put_before:raise")
        await holds("SafelightDeadJobs")
        assert broken.hits("artifact.put_before")
        await stack.blobs.delete(stack.bucket, "lost.jpg")
        await holds("SafelightOriginalsLost")

        cut_off(stack.ground.redis_proxy)
        cut_off(stack.ground.s3_proxy)

        async def both_down() -> bool:
            found = await prometheus.ask(RULES["SafelightDependencyDown"])
            down = {item["metric"]["dependency"] for item in found if item["metric"]["job"] == "safelight-gateway"}
            return down == {"redis", "s3"}

        await until(both_down, "Redis and the storage are told to be down", seconds=60)
        await asyncio.gather(*(ledger.put(patience_seconds=0) for _ in range(10)))
        await holds("SafelightRequestsFail")
        (gateway,) = stack.gateways
        gateway.kill()
        await holds("SafelightGatewayMissing")


@pytest.mark.needs_promtool
@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_a_gateway_without_postgres_is_scraped_all_the_same(
    stack: Stack, open_ledger: Callable[..., Ledger], tmp_path: Path, how: str
) -> None:
    """Whether Postgres refuses connections or swallows what it is sent on many open ones: no scrape of a busy gateway
    fails for it, so the alert that it is down goes on; the numbers that come from it are left out until it is back."""
    ports = {"gateway": choose_port()}
    await stack.start_gateway(metrics_port=str(ports["gateway"]), **QUICK)
    async with open_prometheus(tmp_path, ports, every="10s") as prometheus:

        async def told_down() -> bool:
            found = await prometheus.ask(RULES["SafelightDependencyDown"])
            return {item["metric"]["dependency"] for item in found} == {"postgres"}

        async def shows_jobs() -> bool:
            return bool(await prometheus.ask("safelight_jobs"))

        await until(prometheus.ready, "Prometheus has scraped the gateway", seconds=60)
        await until(shows_jobs, "the jobs are shown", seconds=30)
        ledger = open_ledger()
        await asyncio.gather(*(ledger.get("/v1/stats") for _ in range(20)))  # so its pool is full of connections
        proxy = stack.ground.postgres_proxy
        if how == "refused":
            cut_off(proxy)
        else:
            proxy.set(Fault(mode="blackhole"))
        await until(told_down, "Postgres is told to be down", seconds=60)
        assert not await shows_jobs()
        scraped = await prometheus.scrapes("gateway")
        await until(lambda: prometheus.has_scraped("gateway", scraped + 2), "two more scrapes", seconds=60)
        assert await told_down()
        assert await prometheus.ask('min_over_time(up{job="safelight-gateway"}[5m]) == 0') == []
        await stack.ground.heal()
        await until(shows_jobs, "the jobs are shown again", seconds=60)
        assert not await told_down()


# Made only when there is something to count.
LAZY = {
    "safelight_bucket_event_messages_unusable_total",
    "safelight_bucket_event_requests_refused_total",
    "safelight_bucket_events_lag_seconds",
    "safelight_bucket_events_last_timestamp_seconds",
}


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
