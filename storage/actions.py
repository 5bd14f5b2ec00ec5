"""Who did what to jobs and processors: one line for each thing that somebody did, however many jobs it changed.

Functions take a connection first and run in the transaction of what they write down. What was done to one job is in
job_action too, for the page of that job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.database import Connection

_SAMPLE = 5


async def note_jobs(
    conn: Connection,
    action: str,
    job_ids: list[int],
    *,
    actor: str,
    note: str | None,
    wanted: Mapping[str, Any] | None = None,
) -> None:
    """Jobs were replayed, discarded or promoted. `wanted`: the filter that chose them, None where they were named."""
    await conn.executemany(
        "insert into job_action (job_id, action, actor, note) values ($1, $2, $3, $4)",
        [(job_id, action, actor, note) for job_id in job_ids],
    )
    await conn.execute(
        "insert into action (action, actor, note, filter, jobs, job_ids) values ($1, $2, $3, $4, $5, $6)",
        action,
        actor,
        note,
        None if wanted is None else dict(wanted),
        len(job_ids),
        job_ids[:_SAMPLE],
    )


async def note_processor(conn: Connection, action: str, processor: str, *, actor: str, note: str | None) -> None:
    """A processor was paused or resumed."""
    await conn.execute(
        "insert into action (action, actor, note, processor) values ($1, $2, $3, $4)", action, actor, note, processor
    )


async def list_newest(conn: Connection, *, before_id: int | None, limit: int) -> list[dict[str, Any]]:
    rows = await conn.fetch(
        """
        select id, action, actor, note, processor, filter, jobs, job_ids, at from action
        where id < coalesce($1, 9223372036854775807) order by id desc limit $2
        """,
        before_id,
        limit,
    )
    return [dict(row) for row in rows]


async def list_of_job(conn: Connection, job_id: int) -> list[dict[str, Any]]:
    """What was done to one job, oldest first."""
    rows = await conn.fetch("select action, actor, note, at from job_action where job_id = $1 order by id", job_id)
    return [dict(row) for row in rows]
