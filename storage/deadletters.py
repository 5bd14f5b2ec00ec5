"""What people do with jobs: list, inspect, replay, discard. Functions take a connection first.

The dead letter queue is no queue: it is the set of jobs in state `dead`. Every action is kept in job_action, and is
idempotent under concurrency: of twenty replays at once, one acts.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from storage import objects
from storage.database import JOB_CHANNEL, Connection

Action = Literal["replay", "discard"]


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    state: str | None = None
    processor: str | None = None
    error_code: str | None = None
    bucket: str | None = None
    key_prefix: str | None = None
    photo_id: uuid.UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    finished_after: datetime | None = None
    finished_before: datetime | None = None

    @property
    def empty(self) -> bool:
        return all(getattr(self, item.name) is None for item in fields(self))


_CONDITIONS = {
    "state": "job.state = {}",
    "processor": "job.processor = {}",
    "error_code": "job.error_code = {}",
    "bucket": "object.bucket = {}",
    "key_prefix": "starts_with(object.key, {})",
    "photo_id": "job.object_id = {}",
    "created_after": "job.created_at >= {}",
    "created_before": "job.created_at < {}",
    "finished_after": "job.finished_at >= {}",
    "finished_before": "job.finished_at < {}",
}
_COLUMNS = """
  job.id, job.object_id, object.bucket, object.key, job.processor, job.version, job.state, job.outcome, job.attempt,
  job.max_attempts, job.crashes, job.expiries, job.token, job.run_at, job.lease_until, job.worker, job.error_code,
  job.error, job.created_at, job.started_at, job.finished_at
"""


async def list_jobs(
    conn: Connection, wanted: JobFilter, *, before_id: int | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Jobs that match, newest first."""
    where, arguments = _where(wanted)
    if before_id is not None:
        arguments.append(before_id)
        where.append(f"job.id < ${len(arguments)}")
    arguments.append(limit)
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from job join object on object.id = job.object_id
        where {" and ".join(where)} order by job.id desc limit ${len(arguments)}
        """,
        *arguments,
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


async def list_actions(conn: Connection, job_id: int) -> list[dict[str, Any]]:
    rows = await conn.fetch("select action, actor, note, at from job_action where job_id = $1 order by id", job_id)
    return [dict(row) for row in rows]


async def count_dead(conn: Connection, wanted: JobFilter) -> dict[str, int]:
    """Dead letters that match, by error code."""
    where, arguments = _where(wanted)
    rows = await conn.fetch(
        f"""
        select coalesce(job.error_code, 'unknown') as code, count(*) as matched
        from job join object on object.id = job.object_id
        where job.state = 'dead' and {" and ".join(where)} group by 1 order by 2 desc, 1
        """,
        *arguments,
    )
    return {row["code"]: row["matched"] for row in rows}


async def pick_dead(conn: Connection, wanted: JobFilter, *, limit: int) -> list[int]:
    """Ids of dead letters that match, oldest first."""
    where, arguments = _where(wanted)
    arguments.append(limit)
    rows = await conn.fetch(
        f"""
        select job.id from job join object on object.id = job.object_id
        where job.state = 'dead' and {" and ".join(where)} order by job.id limit ${len(arguments)}
        """,
        *arguments,
    )
    return [row["id"] for row in rows]


async def act(
    conn: Connection, job_ids: list[int], action: Action, *, actor: str, note: str | None, attempts: int
) -> list[int]:
    """Replay (ready again, with `attempts` more of them) or discard dead letters. Must run in a transaction.
    Returns the ids that were dead and are not any more."""
    if not job_ids:
        return []
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
    }
    rows = await conn.fetch(
        f"update job set {changes[action]} where id = any($1) and state = 'dead' returning id, object_id",
        job_ids,
        attempts,
    )
    changed = sorted(row["id"] for row in rows)
    await conn.executemany(
        "insert into job_action (job_id, action, actor, note) values ($1, $2, $3, $4)",
        [(job_id, action, actor, note) for job_id in changed],
    )
    for object_id in sorted({row["object_id"] for row in rows}):
        await objects.settle(conn, object_id)
    if changed and action == "replay":
        await conn.execute("select pg_notify($1, '')", JOB_CHANNEL)
    return changed


def _where(wanted: JobFilter) -> tuple[list[str], list[Any]]:
    where, arguments = ["true"], []
    for name, condition in _CONDITIONS.items():
        value = getattr(wanted, name)
        if value is not None:
            arguments.append(value)
            where.append(condition.format(f"${len(arguments)}"))
    return where, arguments
