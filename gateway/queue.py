"""Jobs as people see them, and what they do with them: replay, discard, have those for later run now."""

from __future__ import annotations

from dataclasses import replace
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
    encode_cursor,
)
from storage import actions, deadletters, facts
from storage.database import Connection
from storage.deadletters import ACTS_ON, Action
from storage.jobfilters import JobFilter

log = structlog.get_logger(__name__)


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


async def promote_job(call: Call) -> web.StreamResponse:
    return await _act_on_one(call, "promote")


async def replay_jobs(call: Call) -> web.StreamResponse:
    return await _act_on_many(call, "replay")


async def discard_jobs(call: Call) -> web.StreamResponse:
    return await _act_on_many(call, "discard")


async def promote_jobs(call: Call) -> web.StreamResponse:
    return await _act_on_many(call, "promote")


async def _act_on_one(call: Call, action: Action) -> web.StreamResponse:
    job_id, context = _job_id(call), call.context
    state = call.body.get("state", ACTS_ON[action][0])
    async with context.database.transaction() as conn:
        await _load(call, conn, job_id)
        changed = await deadletters.act(
            conn,
            [job_id],
            action,
            actor=call.actor,
            note=call.body["note"],
            attempts=context.jobs.max_attempts,
            state=state,
        )
        job = await _load(call, conn, job_id)
    if not changed:
        raise _refused(job, state)
    _acted(call, action, changed)
    return rendering.answer(JobDetailSchema, job)


async def _act_on_many(call: Call, action: Action) -> web.StreamResponse:
    body, context = call.body, call.context
    asked = JobFilter(**body["filter"], places=call.reach.places)
    wanted = replace(asked, state=asked.state or ACTS_ON[action][0])
    async with context.database.transaction() as conn:
        by_error = await deadletters.count_by_error(conn, wanted)
        job_ids = await deadletters.pick(conn, wanted, limit=body["limit"])
        changed = []
        if not body["dry_run"]:
            changed = await deadletters.act(
                conn,
                job_ids,
                action,
                actor=call.actor,
                note=body["note"],
                attempts=context.jobs.max_attempts,
                state=wanted.state or "",
                wanted=asked,
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
    if action != "discard":
        call.context.dispatcher.wake()
    log.info(f"jobs.{action}", message="Jobs were acted on.", jobs=len(changed), actor=call.actor)


def _refused(job: dict[str, Any], state: str) -> Problem:
    if state == "dead":
        return Problem("job_not_dead", f"It is {job['state']}.", state=job["state"])
    said = "It is due already." if state == "later" and job["state"] == "ready" else f"It is {job['state']}."
    return Problem("job_not_waiting", said, state=job["state"])


async def _load(call: Call, conn: Connection, job_id: int) -> dict[str, Any]:
    job = await deadletters.get(conn, job_id)
    if job is None or not call.reach.covers(job["bucket"], job["key"]):
        raise _no_such_job()
    attempts = await deadletters.list_attempts(conn, job_id)
    return {
        **rendering.show_job(job, traces=call.sees_traces),
        "photo": await deadletters.get_photo(conn, job_id),
        "made": await _load_made(conn, job),
        "attempts": [rendering.show_job(item, traces=call.sees_traces) for item in attempts],
        "actions": await actions.list_of_job(conn, job_id),
    }


async def _load_made(conn: Connection, job: dict[str, Any]) -> dict[str, Any]:
    """What its last run wrote: in one transaction, so that all of it bears the time at which the job ended."""
    made: dict[str, Any] = {"artifacts": [], "facts": None}
    if job["outcome"] == "ok":
        for artifact in await facts.list_artifacts(conn, [job["object_id"]]):
            if artifact["created_at"] == job["finished_at"]:
                url = rendering.preview_url(job["object_id"], artifact["preset"])
                made["artifacts"].append({**artifact, "url": url})
        made["facts"] = (await facts.get_facts(conn, job["object_id"])).get(job["processor"])
    return made


def _job_id(call: Call) -> int:
    text = call.request.match_info["job_id"]
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) < 2**63):
        raise _no_such_job()
    return int(text)


def _no_such_job() -> Problem:
    return Problem("no_such_job", "GET /v1/jobs lists those that there are.")
