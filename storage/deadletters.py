"""What people do with jobs: list, inspect, replay, discard, promote. Functions take a connection first.

The dead letter queue is no queue: it is the set of jobs in state `dead`. Every action is kept (storage.actions), and is
idempotent under concurrency: of twenty replays at once, one acts.
"""

from __future__ import annotations

import uuid
from typing import Any, Final, Literal

from storage import actions, objects
from storage.database import JOB_CHANNEL, Connection
from storage.jobfilters import JobFilter, in_state, source, where

Action = Literal["replay", "discard", "promote"]
# The states that each may be done in; the first one where nothing else is asked for.
ACTS_ON: Final[dict[Action, tuple[str, ...]]] = {
    "replay": ("dead",),
    "discard": ("dead", "ready", "due", "later"),
    "promote": ("later",),
}

_NEWEST_JOBS = 20_000
_MAX_ID = 2**63 - 1


_COLUMNS = """
  job.id, job.object_id, object.bucket, object.key, job.processor, job.version, job.state, job.outcome, job.attempt,
  job.max_attempts, job.crashes, job.expiries, job.token, job.run_at, job.lease_until, job.worker, job.error_code,
  job.error, job.error_group, job.created_at, job.started_at, job.finished_at,
  case when job.state = 'running' then extract(epoch from now() - job.started_at)
       when job.state in ('done', 'dead') then extract(epoch from job.finished_at - job.started_at)
  end::float8 as seconds
"""


async def list_jobs(
    conn: Connection, wanted: JobFilter, *, before_id: int | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Jobs that match, newest first."""
    if wanted.search is None or wanted.state == "dead":
        return await _list(conn, *where(wanted), before_id=before_id, limit=limit)
    # What is searched for is mostly found among the newest jobs, quickly; else all keys are gone through, once.
    conditions, arguments = where(wanted)
    newest = before_id or await conn.fetchval("select coalesce(max(id), 0) + 1 from job")
    conditions.append(f"job.id >= {newest - _NEWEST_JOBS:d}")
    found = await _list(conn, conditions, arguments, before_id=newest, limit=limit)
    if len(found) == limit:
        return found
    return await _list(conn, *where(wanted, search_first=True), before_id=before_id, limit=limit)


async def _list(
    conn: Connection, conditions: list[str], arguments: list[Any], *, before_id: int | None, limit: int
) -> list[dict[str, Any]]:
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from job join object on object.id = job.object_id
        where {" and ".join(conditions)} and job.id < ${len(arguments) + 1}
        order by job.id desc limit ${len(arguments) + 2}
        """,
        *arguments,
        before_id if before_id is not None else _MAX_ID,
        limit,
    )
    return [dict(row) for row in rows]


async def list_of_objects(conn: Connection, object_ids: list[uuid.UUID]) -> list[dict[str, Any]]:
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from job join object on object.id = job.object_id
        where job.object_id = any($1) order by job.object_id, job.id
        """,
        object_ids,
    )
    return [dict(row) for row in rows]


async def get(conn: Connection, job_id: int) -> dict[str, Any] | None:
    row = await conn.fetchrow(
        f"select {_COLUMNS} from job join object on object.id = job.object_id where job.id = $1", job_id
    )
    return dict(row) if row else None


async def get_photo(conn: Connection, job_id: int) -> dict[str, Any]:
    """What a job's page tells of its photo. The job must be there."""
    row = await conn.fetchrow(
        """
        select filename, content_type, size_bytes, status, request_id,
               superseded_at is null and deleted_at is null as current
        from object where id = (select object_id from job where id = $1)
        """,
        job_id,
    )
    assert row is not None
    return dict(row)


async def list_attempts(conn: Connection, job_id: int) -> list[dict[str, Any]]:
    """Every run of a job, oldest first."""
    rows = await conn.fetch(
        """
        select token as number, worker, started_at, ended_at, outcome, error_code, error,
               extract(epoch from ended_at - started_at)::float8 as seconds
        from job_attempt where job_id = $1 order by token
        """,
        job_id,
    )
    return [dict(row) for row in rows]


async def count_by_error(conn: Connection, wanted: JobFilter) -> dict[str, int]:
    """Jobs that match, by error code; `none` where nothing has failed yet."""
    conditions, arguments = where(wanted)
    rows = await conn.fetch(
        f"""
        select coalesce(job.error_code, case when job.state = 'dead' then 'unknown' else 'none' end) as code,
               count(*) as matched
        from {source(wanted)}
        where {" and ".join(conditions)} group by 1 order by 2 desc, 1
        """,
        *arguments,
    )
    return {row["code"]: row["matched"] for row in rows}


async def pick(conn: Connection, wanted: JobFilter, *, limit: int) -> list[int]:
    """Ids of jobs that match, oldest first."""
    conditions, arguments = where(wanted)
    arguments.append(limit)
    rows = await conn.fetch(
        f"""
        select job.id from {source(wanted)}
        where {" and ".join(conditions)} order by job.id limit ${len(arguments)}
        """,
        *arguments,
    )
    return [row["id"] for row in rows]


async def act(
    conn: Connection,
    job_ids: list[int],
    action: Action,
    *,
    actor: str,
    note: str | None,
    attempts: int,
    state: str = "dead",
    wanted: JobFilter | None = None,
) -> list[int]:
    """Replay (ready again, with `attempts` more of them), discard or promote (due now) jobs in a state that the action
    may be done in. `wanted`: the filter that chose them, for the audit. Must run in a transaction. Returns the ids of
    those that were in that state and are not any more."""
    if state not in ACTS_ON[action]:
        raise ValueError(f"{action} {state}")
    if not job_ids:
        return []
    if action != "promote":  # which leaves the photo's status as it is
        await conn.execute(
            """
            select from object where id in (select object_id from job where id = any($1)) order by id for update
            """,
            job_ids,
        )
    changes = {
        "replay": """state = 'ready', crashes = 0, expiries = 0, max_attempts = attempt + $2, run_at = now(),
                     dispatched_at = null, finished_at = null""",
        "discard": "state = 'discarded', finished_at = now() + 0 * $2 * interval '1 s'",
        "promote": "run_at = now() + 0 * $2 * interval '1 s', dispatched_at = null",
    }
    # The clock, because a transaction that began before another one promoted would find the job for later still.
    still = in_state(state, moment="clock_timestamp()")
    rows = await conn.fetch(
        f"update job set {changes[action]} where id = any($1) and {still} returning id, object_id",
        job_ids,
        attempts,
    )
    changed = sorted(row["id"] for row in rows)
    if not changed:
        return []
    chosen_by = wanted.as_json() if wanted else None
    await actions.note_jobs(conn, action, changed, actor=actor, note=note, wanted=chosen_by)
    if action != "promote":
        for object_id in sorted({row["object_id"] for row in rows}):
            await objects.settle(conn, object_id)
    if action != "discard":
        await conn.execute("select pg_notify($1, '')", JOB_CHANNEL)
    return changed
