"""GET /metrics: what this gateway knows, for Prometheus. Numbers that need Postgres, Redis or the storage are asked for
at most every five seconds, however often they are scraped; while Postgres is away its numbers are left out, not stale.

A registry for each app: nothing is kept in the library's global one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from gateway.context import Context
from gateway.findings import FINDINGS, Tally
from gateway.health import answers
from gateway.routing import Call
from processors import registry
from storage import reconciliation, workers
from storage.database import DatabaseUnavailable

FRESH_SECONDS: Final = 5.0
_STATES: Final = ("ready", "running", "done", "rejected", "dead", "discarded")
_ACTIONS: Final = ("repaired", "left")


class Metrics:
    """The numbers of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()
        self._findings = Counter(
            "safelight_reconcile_findings",
            "What reconciling in this gateway found, and what became of it.",
            ("finding", "action"),
            registry=self.registry,
        )
        for finding in FINDINGS:
            for action in _ACTIONS:
                self._findings.labels(finding, action)
        self._last_pass = self._gauge(
            "reconcile_last_pass_timestamp_seconds", "Since when all buckets were gone through; 0: not yet."
        )
        self._jobs = self._gauge("jobs", "Jobs in the database.", "processor", "state")
        self._oldest = self._gauge(
            "oldest_ready_job_age_seconds", "How long the oldest due job has waited.", "processor"
        )
        self._up = self._gauge("dependency_up", "1 where it answers.", "dependency")
        self._down_since = self._gauge(
            "dependency_down_since_timestamp_seconds", "First failure in a row; 0 while it is up.", "dependency"
        )
        self._waiting = self._gauge("uploads_waiting", "Uploads that wait for memory in this gateway.")
        self._dispatched = self._gauge(
            "dispatch_last_success_timestamp_seconds", "Last complete look for due jobs in this gateway; 0: none yet."
        )
        self._depth = self._gauge("redis_stream_depth", "Job ids in Redis that nobody has taken; NaN: not known.")

    def count_findings(self, tally: Tally) -> None:
        for finding, actions in tally.counts.items():
            for action, times in actions.items():
                self._findings.labels(finding, action).inc(times)

    async def refresh(self, context: Context) -> None:
        """Ask again what was not asked lately. Scrapes at the same time ask once."""
        self._waiting.set(context.memory.waiting)
        self._dispatched.set(context.dispatcher.succeeded_at or 0)
        async with self._asking:
            if time.monotonic() - self._asked_at < FRESH_SECONDS:
                return
            postgres, s3, depth = await asyncio.gather(
                answers(context.database.ping()), answers(context.blobs.ping()), context.broker.depth()
            )
            self._depth.set(float("nan") if depth is None else depth)
            self._set_dependency("postgres", postgres, context.database.down_since)
            self._set_dependency("s3", s3, context.blobs.down_since)
            self._set_dependency("redis", depth is not None, context.broker.down_since)
            await self._count_jobs(context)
            self._asked_at = time.monotonic()

    async def _count_jobs(self, context: Context) -> None:
        self._jobs.clear()
        self._oldest.clear()
        try:
            async with context.database.connection() as conn:
                counts = await workers.count_jobs(conn)
                buckets = {*await reconciliation.list_buckets(conn), context.storage.default_bucket}
                last_pass = await reconciliation.find_last_pass(
                    conn, sorted(buckets | {context.storage.derived_bucket})
                )
        except DatabaseUnavailable:
            return
        self._last_pass.set(last_pass)
        for processor in {item.name for item in registry.available()} | set(counts):
            self._set_jobs(processor, counts.get(processor, {}))

    def _set_jobs(self, processor: str, counts: Mapping[str, Any]) -> None:
        for state in _STATES:
            self._jobs.labels(processor, state).set(counts.get(state, 0))
        self._oldest.labels(processor).set(counts.get("oldest_ready_seconds") or 0)

    def _set_dependency(self, name: str, up: bool, down_since: float | None) -> None:
        self._up.labels(name).set(up)
        self._down_since.labels(name).set(0 if up else down_since or 0)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"safelight_{name}", help_text, labels, registry=self.registry)


METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)


async def get_metrics(call: Call) -> web.StreamResponse:
    """What Prometheus scrapes."""
    metrics = call.request.app[METRICS]
    await metrics.refresh(call.context)
    return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
