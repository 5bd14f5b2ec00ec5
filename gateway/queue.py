"""The queue as people see it: stats, jobs, and the dead letters that they replay or discard."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import web

from gateway import rendering
from gateway.errors import Problem
from gateway.routing import Call
from gateway.schemas import (
    JobActionSchema,
    JobDetailSchema,
    JobPageSchema,
    StatsSchema,
    encode_cursor,
)
from processors import registry
from storage import actions, deadletters, pauses, workers
from storage.database import Connection
from storage.deadletters import Action
from storage.jobfilters import JobFilter

log = structlog.get_logger(__name__)

_STATES = ("ready", "running", "done", "rejected", "dead", "discarded")
_NOTHING_RUN = {"jobs": 0, "per_second": 0.0, "p50_seconds": None, "p95_seconds": None, "p99_seconds": None}


async def get_stats(call: Call) -> web.StreamResponse:
    context = call.context
    async with context.database.connection() as conn:
        counts = await workers.count_jobs(conn)
        runs = await workers.measure_runs(conn)
        alive = await workers.list_alive(conn, alive_seconds=context.jobs.alive_seconds)
        paused = await pauses.list_paused(conn)
    names = [item.name for item in registry.available()]
    names += sorted({*counts, *paused} - set(names))
    processors = {
        name: {state: counts.get(name, {}).get(state, 0) for state in _STATES}
        | {
            "paused": paused.get(name),
            "oldest_ready_seconds": counts.get(name, {}).get("oldest_ready_seconds"),
            "windows": {
                f"{minutes}m": runs.get(name, {}).get(minutes, _NOTHING_RUN) for minutes in workers.WINDOWS_MINUTES
            },
        }
        for name in names
    }
    return rendering.answer(
        StatsSchema,
        {
            "at": datetime.now(UTC),
            "processors": processors,
            "workers": alive,
            "redis_stream_depth": await context.broker.depth(),
            "uploads_waiting": context.memory.waiting,
        },
    )


async def list_jobs(call: Call) -> web.StreamResponse:
    query = dict(call.query)
    limit, before_id = query.pop("limit"), query.pop("cursor", None)
    async with call.context.database.connection() as conn:
        rows = await deadletters.list_jobs(
            conn, JobFilter(**query, places=call.reach.places), before_id=before_id, limit=limit + 1
        )
    jobs = [rendering.show_job(row, traces=call.sees_traces) for row in rows[:limit]]
    cursor = encode_cursor(str(jobs[-1]["id"])) if len(rows) > limit else None
    return rendering.answer(JobPageSchema, {"jobs": jobs, "next_cursor": cursor})


async def get_job(call: Call) -> web.StreamResponse:
    job_id = _job_id(call)
    async with call.context.database.connection() as conn:
        return rendering.answer(JobDetailSchema, await _load(call, conn, job_id))


async def replay_job(call: Call) -> web.StreamResponse:
    return await _act_on_one(call, "replay")


async def discard_job(call: Call) -> web.StreamResponse:
    return await _act_on_one(call, "discard")


async def replay_jobs(call: Call) -> web.StreamResponse:
    return await _act_on_many(call, "replay")


async def discard_jobs(call: Call) -> web.StreamResponse:
    return await _act_on_many(call, "discard")


async def _act_on_one(call: Call, action: Action) -> web.StreamResponse:
    job_id, context = _job_id(call), call.context
    async with context.database.transaction() as conn:
        await _load(call, conn, job_id)
        changed = await deadletters.act(
            conn,
            [job_id],
            action,
            actor=call.actor,
            note=call.body["note"],
            attempts=context.jobs.max_attempts,
        )
        job = await _load(call, conn, job_id)
    if not changed:
        raise Problem("job_not_dead", f"It is {job['state']}.", state=job["state"])
    _acted(call, action, changed)
    return rendering.answer(JobDetailSchema, job)


async def _act_on_many(call: Call, action: Action) -> web.StreamResponse:
    body, context = call.body, call.context
    wanted = JobFilter(**body["filter"], places=call.reach.places)
    async with context.database.transaction() as conn:
        by_error = await deadletters.count_dead(conn, wanted)
        job_ids = await deadletters.pick_dead(conn, wanted, limit=body["limit"])
        changed = []
        if not body["dry_run"]:
            changed = await deadletters.act(
                conn,
                job_ids,
                action,
                actor=call.actor,
                note=body["note"],
                attempts=context.jobs.max_attempts,
                wanted=wanted,
            )
    if changed:
        _acted(call, action, changed)
    return rendering.answer(
        JobActionSchema,
        {
            "dry_run": body["dry_run"],
            "matched": sum(by_error.values()),
            "changed": len(changed),
            "by_error": by_error,
            "job_ids": job_ids if body["dry_run"] else changed,
        },
    )


def _acted(call: Call, action: Action, changed: list[int]) -> None:
    if action == "replay":
        call.context.dispatcher.wake()
    log.info(f"jobs.{action}", message="Dead jobs were acted on.", jobs=len(changed), actor=call.actor)


async def _load(call: Call, conn: Connection, job_id: int) -> dict[str, Any]:
    job = await deadletters.get(conn, job_id)
    if job is None or not call.reach.covers(job["bucket"], job["key"]):
        raise _no_such_job()
    attempts = await deadletters.list_attempts(conn, job_id)
    return {
        **rendering.show_job(job, traces=call.sees_traces),
        "attempts": [rendering.show_job(item, traces=call.sees_traces) for item in attempts],
        "actions": await actions.list_of_job(conn, job_id),
    }


def _job_id(call: Call) -> int:
    text = call.request.match_info["job_id"]
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) < 2**63):
        raise _no_such_job()
    return int(text)


def _no_such_job() -> Problem:
    return Problem("no_such_job", "GET /v1/jobs lists those that there are.")
