"""Counters and histograms of runs and jobs, made of what has ended in Postgres since this gateway started. So they hold
what workers did that were killed since, and every gateway shows the same: take one gateway's, do not add them up.

They are behind the truth by the time that a transaction may last, because what is counted once is never looked at
again. Asks nothing by itself: `follow` is called where somebody scrapes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from processors import registry
from storage import measures
from storage.database import Connection

RUN_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WAIT_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
_OUTCOMES: Final = ("ok", "rejected", "superseded", "retry", "snoozed", "dead", "crashed", "released", "expired")
_TIMED: Final = ("ok", "rejected", "retry", "dead", "crashed")  # the others say nothing of how long work takes
_REJECTION_CODES: Final = 50  # a processor of others could make any number of them
_OTHER: Final = "other"


@dataclass(kw_only=True)
class Distribution:
    """A histogram that is filled by counts."""

    bounds: Sequence[float]
    counts: Counter[int] = field(default_factory=Counter)
    total: float = 0.0

    def add(self, bucket: int, times: int, seconds: float) -> None:
        self.counts[bucket] += times
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, how many are not above it), as Prometheus wants them."""
        found, below = [], 0
        for number, bound in enumerate((*self.bounds, float("inf"))):
            below += self.counts[number]
            found.append(("+Inf" if bound == float("inf") else str(bound), float(below)))
        return found


class RunNumbers(Collector):
    def __init__(self, *, settled_seconds: float) -> None:
        """`settled_seconds`: how long a transaction of ours can last."""
        self._settled_seconds = settled_seconds
        self._until: datetime | None = None
        self._runs: Counter[tuple[str, str]] = Counter()
        self._rejections: Counter[tuple[str, str]] = Counter()
        self._dead: Counter[str] = Counter()
        self._seconds = _by_processor(RUN_BOUNDS)
        self._waits = _by_processor(WAIT_BOUNDS)
        self._totals = _by_processor(WAIT_BOUNDS)

    async def follow(self, conn: Connection) -> None:
        """Count what has ended since the last time. Must run in one transaction, in which now() stands still."""
        span = await measures.find_span(conn, self._until, settled_seconds=self._settled_seconds)
        runs = await measures.count_runs(conn, span, bounds=RUN_BOUNDS)
        done = await measures.count_done(conn, span, bounds=WAIT_BOUNDS)
        dead = await measures.count_dead(conn, span)
        for row in runs:
            self._count_run(row["processor"], row["outcome"], row["code"], row["runs"])
            if row["outcome"] in _TIMED:
                self._seconds[row["processor"]].add(row["bucket"], row["runs"], row["seconds"])
        for row in done:
            name, jobs = row["processor"], row["jobs"]
            self._waits[name].add(row["wait_bucket"], jobs, row["wait_seconds"])
            self._totals[name].add(row["total_bucket"], jobs, row["total_seconds"])
        self._dead.update(dead)
        self._until = span.until

    def collect(self) -> Iterator[Metric]:
        names = sorted(
            {item.name for item in registry.available()} | {name for name, _ in self._runs} | set(self._dead)
        )
        runs = CounterMetricFamily(
            "safelight_job_runs_total", "Runs of jobs that ended, by how.", labels=("processor", "outcome")
        )
        dead = CounterMetricFamily("safelight_dead_jobs_total", "Jobs that became dead letters.", labels=("processor",))
        for name in names:
            dead.add_metric((name,), self._dead[name])
            for outcome in _OUTCOMES:
                runs.add_metric((name, outcome), self._runs[name, outcome])
        yield runs
        yield dead
        rejections = CounterMetricFamily(
            "safelight_rejections_total", "Photos that a processor rejected, by why.", labels=("processor", "code")
        )
        for labels, times in sorted(self._rejections.items()):
            rejections.add_metric(labels, times)
        yield rejections
        yield _histogram("safelight_job_run_seconds", "How long runs took.", self._seconds, names)
        yield _histogram(
            "safelight_job_wait_seconds",
            "How long jobs had been due when the run began that ended them.",
            self._waits,
            names,
        )
        yield _histogram(
            "safelight_job_end_to_end_seconds",
            "From the arrival of the photo to the end of its job.",
            self._totals,
            names,
        )

    def describe(self) -> Iterable[Metric]:
        return ()

    def _count_run(self, processor: str, outcome: str, code: str | None, runs: int) -> None:
        self._runs[processor, outcome] += runs
        if outcome == "rejected":
            key = (processor, code or _OTHER)
            if key not in self._rejections and len(self._rejections) >= _REJECTION_CODES:
                key = (processor, _OTHER)
            self._rejections[key] += runs


def _by_processor(bounds: Sequence[float]) -> defaultdict[str, Distribution]:
    return defaultdict(lambda: Distribution(bounds=bounds))


def _histogram(name: str, help_text: str, found: Mapping[str, Distribution], names: Iterable[str]) -> Metric:
    metric = HistogramMetricFamily(name, help_text, labels=("processor",))
    for processor in names:
        metric.add_metric((processor,), found[processor].buckets(), found[processor].total)
    return metric
