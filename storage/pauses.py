"""Processors that people paused. Functions take a connection first.

A paused processor's jobs are neither dispatched nor claimed: storage.jobs asks for these rows in the statement itself,
so a message that was sent before the pause does nothing. Running jobs finish, and new photos get theirs as ever.
"""

from __future__ import annotations

from typing import Any

from storage import actions
from storage.database import JOB_CHANNEL, Connection


async def pause(conn: Connection, processor: str, *, actor: str, note: str | None) -> bool:
    """Pause it. False: it was paused already, and stays so as it was. Must run in a transaction."""
    made = await conn.fetchval(
        "insert into pause (processor, actor, note) values ($1, $2, $3) on conflict do nothing returning true",
        processor,
        actor,
        note,
    )
    if made:
        await actions.note_processor(conn, "pause", processor, actor=actor, note=note)
    return bool(made)


async def resume(conn: Connection, processor: str, *, actor: str, note: str | None) -> bool:
    """Let its jobs run again. False: it was not paused. Must run in a transaction."""
    if not await conn.fetchval("delete from pause where processor = $1 returning 1", processor):
        return False
    await actions.note_processor(conn, "resume", processor, actor=actor, note=note)
    await conn.execute("select pg_notify($1, '')", JOB_CHANNEL)
    return True


async def list_paused(conn: Connection) -> dict[str, dict[str, Any]]:
    """Processor -> {at, by, note} of those that are paused."""
    rows = await conn.fetch("select processor, at, actor as by, note from pause")
    return {row["processor"]: {"at": row["at"], "by": row["by"], "note": row["note"]} for row in rows}


async def list_processors(conn: Connection) -> list[str]:
    """Processors that have jobs or are paused. Steps from one to the next in job_tally, whatever the number of jobs."""
    rows = await conn.fetch(
        """
        with recursive named (processor) as (
          (select processor from job order by processor limit 1)
          union all
          select (select processor from job where processor > named.processor order by processor limit 1)
          from named where named.processor is not null
        )
        select processor from named where processor is not null union select processor from pause order by 1
        """
    )
    return [row["processor"] for row in rows]


async def has_jobs(conn: Connection, processor: str) -> bool:
    return bool(await conn.fetchval("select exists (select from job where processor = $1)", processor))
