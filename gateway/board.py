"""What the people on call see and do beyond single jobs: errors in groups, trends, pauses, and who did what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

from gateway import rendering
from gateway.errors import Problem
from gateway.queue_schemas import DonePageSchema, GroupListSchema, HistorySchema, ProcessorSchema, ProcessorsSchema
from gateway.routing import Call
from gateway.schemas import encode_cursor
from processors import registry
from storage import actions, errorgroups, pauses, trends
from storage.database import Connection
from storage.jobfilters import JobFilter

Turn = Callable[..., Awaitable[bool]]  # pauses.pause or pauses.resume

log = structlog.get_logger(__name__)


async def list_groups(call: Call) -> web.StreamResponse:
    query = dict(call.query)
    limit = query.pop("limit")
    async with call.context.database.connection() as conn:
        rows = await errorgroups.list_groups(conn, JobFilter(**query, places=call.reach.places), limit=limit)
    groups = [{**row, "message": errorgroups.message_of(row["error"], traces=call.sees_traces)} for row in rows]
    return rendering.answer(GroupListSchema, {"groups": groups})


async def get_history(call: Call) -> web.StreamResponse:
    async with call.context.database.connection() as conn:
        trend = await trends.measure(conn, minutes=call.query["minutes"])
    nothing = trends.empty(trend.steps)
    names = [item.name for item in registry.available()]
    return rendering.answer(
        HistorySchema,
        {
            "start": trend.start,
            "end": trend.end,
            "step_seconds": trend.step_seconds,
            "processors": dict.fromkeys(names, nothing) | trend.processors,
        },
    )


async def pause_processor(call: Call) -> web.StreamResponse:
    """Neither dispatch nor any worker takes its jobs from now on; a worker that holds one finishes it."""
    name, context = call.request.match_info["processor"], call.context
    async with context.database.transaction() as conn:
        await _require_processor(conn, name)
        changed = await pauses.pause(conn, name, actor=call.actor, note=call.body["note"])
        paused = (await pauses.list_paused(conn))[name]
    if changed:
        log.warning("processor.paused", message="A processor was paused.", processor=name, actor=call.actor)
    return _answer(name, paused, changed=changed)


async def resume_processor(call: Call) -> web.StreamResponse:
    name, context = call.request.match_info["processor"], call.context
    async with context.database.transaction() as conn:
        changed = await pauses.resume(conn, name, actor=call.actor, note=call.body["note"])
        if not changed:
            await _require_processor(conn, name)
    if changed:
        context.dispatcher.wake()
        log.warning("processor.resumed", message="A processor runs again.", processor=name, actor=call.actor)
    return _answer(name, None, changed=changed)


async def pause_all(call: Call) -> web.StreamResponse:
    return await _turn_all(call, pauses.pause)


async def resume_all(call: Call) -> web.StreamResponse:
    return await _turn_all(call, pauses.resume)


async def _turn_all(call: Call, turn: Turn) -> web.StreamResponse:
    """Every processor that is known here or has jobs, in one transaction."""
    context = call.context
    async with context.database.transaction() as conn:
        names = sorted({item.name for item in registry.available()} | {*await pauses.list_processors(conn)})
        changed = [name for name in names if await turn(conn, name, actor=call.actor, note=call.body["note"])]
        paused = await pauses.list_paused(conn)
    if changed:
        context.dispatcher.wake()
        log.warning(
            "processor.paused" if turn is pauses.pause else "processor.resumed",
            message="All processors were paused or run again.",
            processors=changed,
            actor=call.actor,
        )
    told = [{"processor": name, "paused": paused.get(name), "changed": name in changed} for name in names]
    return rendering.answer(ProcessorsSchema, {"processors": told})


async def list_actions(call: Call) -> web.StreamResponse:
    limit = call.query["limit"]
    async with call.context.database.connection() as conn:
        rows = await actions.list_newest(conn, before_id=call.query.get("cursor"), limit=limit + 1)
    cursor = encode_cursor(str(rows[limit - 1]["id"])) if len(rows) > limit else None
    return rendering.answer(DonePageSchema, {"actions": rows[:limit], "next_cursor": cursor})


async def _require_processor(conn: Connection, name: str) -> None:
    """Known here, or to whoever made jobs for it: another release may know more than this gateway."""
    if name not in {item.name for item in registry.available()} and not await pauses.has_jobs(conn, name):
        raise Problem("no_such_processor", "GET /v1/stats names those that there are.")


def _answer(name: str, paused: dict[str, Any] | None, *, changed: bool) -> web.Response:
    return rendering.answer(ProcessorSchema, {"processor": name, "paused": paused, "changed": changed})
