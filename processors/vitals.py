"""What every process of Safelight says of itself to monitoring: its version, its connections to Postgres, its disk, and
what it finds of the things it depends on. For a registry of its own, never the library's global one.

Everything is read when it is asked for; nothing here waits for anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:  # the S3 door stays small: it loads neither the queue's library nor the storage's
    from processors.dispatch import Dispatcher
    from storage.database import Database

Render = Callable[[], Awaitable[bytes]]
Expose = Callable[[Render], AbstractAsyncContextManager[None]]  # answers scrapes while its block runs


class Dependency(Protocol):
    """Anything that remembers since when it cannot be used."""

    @property
    def down_since(self) -> float | None: ...  # time.time() of the first failure in a row


def make_registry() -> CollectorRegistry:
    """An empty registry of one process. The times at which counters were made are left out: Prometheus does not use
    them, and they would be as many series again."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()


@contextlib.asynccontextmanager
async def expose_nothing(_render: Render) -> AsyncIterator[None]:
    """For a process that nobody scrapes."""
    yield


def render_with(registry: CollectorRegistry) -> Render:
    """What a scrape is answered with where nothing has to be asked for first."""

    async def render() -> bytes:
        return generate_latest(registry)

    return render


class Vitals(Collector):
    """Of one process. `program`: gateway, door, worker or events. `dependencies`: as the last use of each found it;
    none where they are asked anew."""

    def __init__(self, program: str, database: Database, dependencies: Mapping[str, Dependency]) -> None:
        self._program = program
        self._database = database
        self._dependencies = dependencies

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("safelight_build_info", "What runs here.", labels=("program", "version"))
        build.add_metric((self._program, version("safelight")), 1)
        yield build
        yield from self._pool()
        yield from _disk()
        if self._dependencies:
            yield from show_dependencies({name: item.down_since for name, item in self._dependencies.items()})

    def describe(self) -> Iterable[Metric]:
        return ()  # or the registry would collect before there is anything

    def _pool(self) -> Iterator[Metric]:
        use = self._database.pool_use
        connections = GaugeMetricFamily(
            "safelight_postgres_pool_connections", "Connections to Postgres that are open.", labels=("state",)
        )
        connections.add_metric(("used",), use.used)
        connections.add_metric(("idle",), use.idle)
        yield connections
        yield GaugeMetricFamily("safelight_postgres_pool_limit", "Connections that there may be.", value=use.limit)


class DispatchNumbers(Collector):
    """What the dispatcher of one process did."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def collect(self) -> Iterator[Metric]:
        dispatcher = self._dispatcher
        yield GaugeMetricFamily(
            "safelight_dispatch_last_success_timestamp_seconds",
            "Last complete look for due jobs in this process; 0: none yet.",
            value=dispatcher.succeeded_at or 0,
        )
        yield CounterMetricFamily(
            "safelight_dispatched_jobs_total", "Job ids that this process gave to Redis.", value=dispatcher.sent
        )
        yield CounterMetricFamily(
            "safelight_expired_leases_total",
            "Jobs that this process took back because their worker fell silent.",
            value=dispatcher.taken_back,
        )

    def describe(self) -> Iterable[Metric]:
        return ()


def show_dependencies(down_since: Mapping[str, float | None]) -> Iterator[Metric]:
    """Whether each can be used, and since when not."""
    up = GaugeMetricFamily("safelight_dependency_up", "1 where it can be used.", labels=("dependency",))
    since = GaugeMetricFamily(
        "safelight_dependency_down_since_timestamp_seconds",
        "First failure in a row; 0 while it is up.",
        labels=("dependency",),
    )
    for name, moment in down_since.items():
        up.add_metric((name,), moment is None)
        since.add_metric((name,), moment or 0)
    yield up
    yield since


def register_process(registry: CollectorRegistry) -> None:
    """CPU, memory and descriptors of this process, under the names that they have everywhere."""
    ProcessCollector(registry=registry)


def _disk() -> Iterator[Metric]:
    """The file system that the process runs on. In a container that is the one of the machine's containers and their
    volumes."""
    with contextlib.suppress(OSError):
        found = os.statvfs(os.getcwd())
        yield GaugeMetricFamily(
            "safelight_disk_free_bytes",
            "Free on the file system of this process.",
            value=found.f_bavail * found.f_frsize,
        )
        yield GaugeMetricFamily(
            "safelight_disk_size_bytes", "Size of that file system.", value=found.f_blocks * found.f_frsize
        )
