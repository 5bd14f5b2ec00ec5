"""The queue in numbers: jobs by processor and state, rates and times, workers, turns; and for admins, what Redis says
of itself.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway import rendering, turns
from gateway.context import Context
from gateway.queue_schemas import RedisAnswerSchema
from gateway.routing import Call
from gateway.schemas import StatsSchema
from processors import registry
from storage import pauses, workers

_STATES = ("ready", "due", "later", "running", "done", "rejected", "dead", "discarded")
_NOTHING_RUN = {"jobs": 0, "per_second": 0.0, "p50_seconds": None, "p95_seconds": None, "p99_seconds": None}


async def get_stats(call: Call) -> web.StreamResponse:
    context = call.context
    async with context.database.connection() as conn:
        counts = await workers.count_jobs(conn)
        runs = await workers.measure_runs(conn)
        waits = await workers.measure_waits(conn)
        alive = await workers.list_alive(conn, alive_seconds=context.jobs.alive_seconds)
        gone = await workers.list_gone(conn, alive_seconds=context.jobs.alive_seconds)
        paused = await pauses.list_paused(conn)
    names = [item.name for item in registry.available()]
    names += sorted({*counts, *paused} - set(names))
    return rendering.answer(
        StatsSchema,
        {
            "at": datetime.now(UTC),
            "processors": {
                name: _show(counts.get(name, {}), runs.get(name, {}))
                | {"paused": paused.get(name), "wait": waits.get(name)}
                for name in names
            },
            "workers": alive,
            "gone_workers": gone,
            "turns": _list_turns(context),
            "redis_stream_depth": await context.broker.depth(),
            "uploads_waiting": context.memory.waiting,
        },
    )


async def get_redis(call: Call) -> web.StreamResponse:
    return rendering.answer(RedisAnswerSchema, {"redis": await call.context.broker.describe()})


def _show(counts: dict[str, Any], runs: dict[int, dict[str, Any]]) -> dict[str, Any]:
    return {state: counts.get(state, 0) for state in _STATES} | {
        "next_at": counts.get("next_at"),
        "oldest_ready_seconds": counts.get("oldest_ready_seconds"),
        "windows": {f"{minutes}m": runs.get(minutes, _NOTHING_RUN) for minutes in workers.WINDOWS_MINUTES},
    }


def _list_turns(context: Context) -> list[dict[str, Any]]:
    sent_at = context.dispatcher.succeeded_at
    dispatched_at = None if sent_at is None else datetime.fromtimestamp(sent_at, UTC)
    return [
        turns.describe("dispatch", dispatched_at, context.jobs.dispatch_interval_seconds),
        turns.describe("housekeeping", context.turns.housekeeping_at, turns.HOUSEKEEPING_SECONDS),
        turns.describe("reconcile", context.turns.reconcile_at, context.settings.reconcile_interval_seconds),
    ]
