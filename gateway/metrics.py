"""GET /metrics: what this gateway knows, for Prometheus. Numbers that need Postgres, Redis or the storage are asked for
at most every five seconds, however often they are scraped, and what counts jobs the more seldom the longer it takes.
While Postgres is away its numbers are left out, not stale, and nothing waits for it: a scrape always comes to its end.

A registry for each app: nothing is kept in the library's global one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Mapping
from typing import Any, Final

from aiohttp import web
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from gateway.context import Context
from gateway.event_numbers import EventNumbers
from gateway.findings import FINDINGS, Tally
from gateway.health import answers
from gateway.routing import Call
from gateway.runs import RunNumbers
from processors import registry
from processors.vitals import DispatchNumbers, Vitals, make_registry, register_process
from storage import measures, pauses, reconciliation, workers
from storage.database import DatabaseUnavailable

FRESH_SECONDS: Final = 5.0
REST: Final = 10  # asking may take one part in so many of a connection's time,
STALE_SECONDS: Final = 60.0  # unless the numbers grew older than this
ASK_SECONDS: Final = 6.0  # with the three of the slowest ping less than the ten after which Prometheus gives up
_STATES: Final = ("ready", "running", "done", "rejected", "dead", "discarded")
_ACTIONS: Final = ("repaired", "left")
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The numbers of one app."""

    def __init__(self) -> None:
        self.registry = make_registry()
        self._ping_again_at = self._ask_again_at = float("-inf")
        self._asking = asyncio.Lock()
        self._runs: RunNumbers | None = None
        self._events: EventNumbers | None = None
        self._findings = Counter(
            "safelight_reconcile_findings",
            "What reconciling in this gateway found, and what became of it.",
            ("finding", "action"),
            registry=self.registry,
        )
        for finding in FINDINGS:
            for action in _ACTIONS:
                self._findings.labels(finding, action)
        self._make_request_metrics()
        self._make_queue_metrics()

    def _make_request_metrics(self) -> None:
        self._requests = Counter(
            "safelight_http_requests",
            "REST requests that were answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "safelight_http_request_seconds",
            "How long REST requests took, ?wait= included.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter("safelight_http_bytes", "Bytes of REST bodies.", ("direction",), registry=self.registry)
        self._in_flight = self._gauge("uploads_in_flight", "Uploads that this gateway is taking.")
        self._upload_limit = self._gauge("uploads_limit", "Uploads in flight that it takes at most.")
        self._waiting = self._gauge("uploads_waiting", "Uploads that wait for memory in this gateway.")
        self._memory = self._gauge("upload_memory_used_bytes", "Memory that uploads hold in this gateway.")
        self._memory_limit = self._gauge("upload_memory_limit_bytes", "Memory that they may hold.")

    def _make_queue_metrics(self) -> None:
        self._last_pass = self._gauge(
            "reconcile_last_pass_timestamp_seconds", "Since when all buckets were gone through; 0: not yet."
        )
        self._last_turn = self._gauge(
            "reconcile_last_turn_timestamp_seconds", "When this gateway last came to the end of a turn; 0: not yet."
        )
        self._pass_seconds = self._gauge(
            "reconcile_pass_interval_seconds", "Time between the starts of two passes; 0: reconciling is off."
        )
        self._jobs = self._gauge("jobs", "Jobs in the database.", "processor", "state")
        self._later = self._gauge("jobs_later", "Ready jobs that are not due yet; they count as ready.", "processor")
        self._oldest = self._gauge(
            "oldest_ready_job_age_seconds", "How long the oldest due job has waited.", "processor"
        )
        self._paused = self._gauge("processor_paused", "1 where people paused it.", "processor")
        self._lag = self._gauge(
            "dispatch_lag_seconds", "How long the oldest due job has not been dispatched; 0: none is due."
        )
        self._workers = self._gauge("workers", "Workers that were heard of lately and take jobs.")
        self._slots = self._gauge("slots_in_all", "Photos that all of them decode at a time.")
        self._up = self._gauge("dependency_up", "1 where it answers.", "dependency")
        self._down_since = self._gauge(
            "dependency_down_since_timestamp_seconds", "First failure in a row; 0 while it is up.", "dependency"
        )
        self._depth = self._gauge("redis_stream_depth", "Job ids in Redis that nobody has taken; NaN: not known.")
        self._took = self._gauge("metrics_query_seconds", "How long Postgres took for the numbers that come from it.")

    def attend(self, context: Context) -> None:
        """Take the clients of a gateway that starts; once."""
        self._runs = RunNumbers(settled_seconds=2 * context.storage.postgres_idle_seconds)
        register_process(self.registry)
        self.registry.register(Vitals("gateway", context.database, {}))
        self.registry.register(DispatchNumbers(context.dispatcher))
        self.registry.register(self._runs)
        self._events = EventNumbers(context.follower)
        self.registry.register(self._events)

    def register(self, collector: Collector) -> None:
        """Show further numbers of this process."""
        self.registry.register(collector)

    def count_request(self, request: web.Request, response: web.StreamResponse, seconds: float) -> None:
        """Count a request that was answered. A path that is no route counts as none, or strangers could make any."""
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        method = request.method if route != "none" else "any"
        self._requests.labels(method, route, str(response.status)).inc()
        self._seconds.labels(method, route).observe(seconds)
        self._bytes.labels("in").inc(getattr(request.content, "total_bytes", 0))
        self._bytes.labels("out").inc(response.body_length if response.prepared else 0)

    def count_findings(self, tally: Tally) -> None:
        for finding, actions in tally.counts.items():
            for action, times in actions.items():
                self._findings.labels(finding, action).inc(times)

    def note_turn(self) -> None:
        self._last_turn.set_to_current_time()

    async def render(self, context: Context) -> bytes:
        """Everything, as it is now or was a few seconds ago."""
        await self.refresh(context)
        return generate_latest(self.registry)

    async def refresh(self, context: Context) -> None:
        """Ask again what was not asked lately. Scrapes at the same time ask once."""
        self._in_flight.set(context.limits.uploads_in_flight)
        self._upload_limit.set(context.settings.max_uploads)
        self._waiting.set(context.memory.waiting)
        self._memory.set(context.memory.used_bytes)
        self._memory_limit.set(context.settings.upload_memory_bytes)
        on = context.settings.reconcile_interval_seconds > 0
        self._pass_seconds.set(context.settings.reconcile_pass_seconds if on else 0)
        async with self._asking:
            if time.monotonic() < self._ping_again_at:
                return
            if await self._ping(context):
                await self._ask_postgres(context)
            else:
                self._forget()

    async def _ping(self, context: Context) -> bool:
        """Ask what there is to depend on; whether Postgres answers."""
        self._ping_again_at = time.monotonic() + FRESH_SECONDS
        postgres, s3, depth = await asyncio.gather(
            answers(context.database.ping()), answers(context.blobs.ping()), context.broker.depth()
        )
        self._depth.set(float("nan") if depth is None else depth)
        self._set_dependency("postgres", postgres, context.database.down_since)
        self._set_dependency("s3", s3, context.blobs.down_since)
        self._set_dependency("redis", depth is not None, context.broker.down_since)
        return postgres

    def _forget(self) -> None:
        """Postgres is away: what it told is no longer true, and is asked for as soon as it is back."""
        for gauge in (self._jobs, self._later, self._oldest, self._paused):
            gauge.clear()
        for single in (self._lag, self._workers, self._slots):
            single.set(float("nan"))
        assert self._events is not None, "attend was not called"
        self._events.forget()
        self._ask_again_at = float("-inf")

    async def _ask_postgres(self, context: Context) -> None:
        began = time.monotonic()
        if began < self._ask_again_at:
            return
        counting = asyncio.create_task(self._count(context))
        try:
            await asyncio.wait({counting}, timeout=ASK_SECONDS)
            if not (counting.done() and counting.result()):
                self._forget()
        finally:
            counting.cancel()  # not awaited: giving a connection back waits for a Postgres that stands still
        took_seconds = time.monotonic() - began
        self._took.set(took_seconds)
        self._ask_again_at = began + max(FRESH_SECONDS, took_seconds, min(STALE_SECONDS, REST * took_seconds))

    async def _count(self, context: Context) -> bool:
        """Show what Postgres tells; False where it cannot."""
        assert self._runs is not None, "attend was not called"
        assert self._events is not None
        try:
            async with context.database.transaction() as conn:
                await self._runs.follow(conn)
                await self._events.follow(conn)
                counts, paused = await workers.count_jobs(conn), await pauses.list_paused(conn)
                lag = await measures.find_dispatch_lag(conn)
                alive = await measures.count_workers(conn, alive_seconds=context.jobs.alive_seconds)
                buckets = {*await reconciliation.list_buckets(conn), context.storage.default_bucket}
                last_pass = await reconciliation.find_last_pass(
                    conn, sorted(buckets | {context.storage.derived_bucket})
                )
        except DatabaseUnavailable:
            return False
        self._last_pass.set(last_pass)
        self._lag.set(lag)
        self._workers.set(alive["workers"])
        self._slots.set(alive["slots"])
        for gauge in (self._jobs, self._later, self._oldest, self._paused):
            gauge.clear()
        for processor in {item.name for item in registry.available()} | set(counts):
            self._set_jobs(processor, counts.get(processor, {}), paused)
        return True

    def _set_jobs(self, processor: str, counts: Mapping[str, Any], paused: Container[str]) -> None:
        for state in _STATES:
            self._jobs.labels(processor, state).set(counts.get(state, 0))
        self._later.labels(processor).set(counts.get("later", 0))
        self._oldest.labels(processor).set(counts.get("oldest_ready_seconds") or 0)
        self._paused.labels(processor).set(processor in paused)

    def _set_dependency(self, name: str, up: bool, down_since: float | None) -> None:
        self._up.labels(name).set(up)
        self._down_since.labels(name).set(0 if up else down_since or 0)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"safelight_{name}", help_text, labels, registry=self.registry)


METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)


async def get_metrics(call: Call) -> web.StreamResponse:
    """What Prometheus scrapes."""
    body = await call.request.app[METRICS].render(call.context)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
