"""What a worker tells monitoring of itself: what it runs, and what became of its children. How jobs do is told by the
gateways, from Postgres, because a worker that is killed takes its counters with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from processors import registry as processors
from processors.dispatch import Dispatcher
from processors.runner import Runner
from processors.sandbox.pool import Sandbox
from processors.vitals import Dependency, DispatchNumbers, Vitals, register_process
from storage.database import Database

_KNOWN_REASONS = ("wall_time", "memory", "cpu_time", "protocol")


class WorkNumbers(Collector):
    def __init__(self, slots: int, runner: Runner, sandbox: Sandbox) -> None:
        self._slots = slots
        self._runner = runner
        self._sandbox = sandbox

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("safelight_worker_slots", "Photos that this worker decodes at a time.", self._slots)
        yield self._running()
        yield GaugeMetricFamily(
            "safelight_sandbox_children", "Children that are alive, idle or at work.", len(self._sandbox.child_pids)
        )
        yield CounterMetricFamily(
            "safelight_sandbox_starts_total", "Children that were started.", value=self._sandbox.starts
        )
        crashes = CounterMetricFamily(
            "safelight_sandbox_kills_total",
            "Children that died or were killed over a photo, by what they died of.",
            labels=("reason",),
        )
        for reason in sorted({*_KNOWN_REASONS, *self._sandbox.crashes}):
            crashes.add_metric((reason,), self._sandbox.crashes[reason])
        yield crashes

    def describe(self) -> Iterable[Metric]:
        return ()

    def _running(self) -> Metric:
        running = GaugeMetricFamily(
            "safelight_worker_running_jobs", "Jobs that this worker has claimed and not ended.", labels=("processor",)
        )
        held = [item.claim.processor for item in self._runner.held.values()]
        for name in sorted({item.name for item in processors.available()} | set(held)):
            running.add_metric((name,), held.count(name))
        return running


def register_worker(  # noqa: PLR0917 - everything that a worker has
    registry: CollectorRegistry,
    slots: int,
    runner: Runner,
    sandbox: Sandbox,
    dispatcher: Dispatcher,
    database: Database,
    redis: Dependency,
) -> None:
    registry.register(Vitals("worker", database, {"postgres": database, "redis": redis}))
    registry.register(DispatchNumbers(dispatcher))
    registry.register(WorkNumbers(slots, runner, sandbox))
    register_process(registry)
