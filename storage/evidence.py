"""What the rows tell about one photo, for whoever asks why it has no preview. Read-only; functions take a connection
first.
"""

from __future__ import annotations

import uuid
from typing import Any

from storage.database import Connection


async def find_by_key(conn: Connection, bucket: str, key: str) -> dict[str, Any] | None:
    """The photo that is current under a key, or else the newest one that was."""
    row = await conn.fetchrow(
        """
        select * from object where bucket = $1 and key = $2
        order by (superseded_at is null and deleted_at is null) desc, created_at desc limit 1
        """,
        bucket,
        key,
    )
    return dict(row) if row else None


async def find_by_id(conn: Connection, photo_id: uuid.UUID) -> dict[str, Any] | None:
    """The photo, deleted ones too."""
    row = await conn.fetchrow("select * from object where id = $1", photo_id)
    return dict(row) if row else None


async def find_by_job(conn: Connection, job_id: int) -> dict[str, Any] | None:
    row = await conn.fetchrow("select object.* from object join job on object.id = object_id where job.id = $1", job_id)
    return dict(row) if row else None


async def list_alike(conn: Connection, bucket: str, key: str, *, limit: int = 3) -> list[str]:
    """Keys of the bucket that differ from this one only in capitals, or that end in the same file name."""
    rows = await conn.fetch(
        """
        select key from object
        where bucket = $1 and superseded_at is null and deleted_at is null
          and (lower(key) = lower($2) or right(lower(key), length($3)) = lower($3))
        order by lower(key) = lower($2) desc, created_at desc limit $4
        """,
        bucket,
        key,
        "/" + key.rsplit("/", 1)[-1],
        limit,
    )
    return [row["key"] for row in rows]


async def count_ahead(conn: Connection, job_ids: list[int], *, most: int = 100_000) -> dict[int, int]:
    """By job: how many due jobs of its processor are taken before it. Counts no further than `most`."""
    rows = await conn.fetch(
        """
        select mine.id, (
          select count(*) from (
            select 1 from job
            where state = 'ready' and job.processor = mine.processor and run_at <= now() and job.id <> mine.id
              and (job.priority > mine.priority
                   or (job.priority = mine.priority and (job.run_at, job.id) < (mine.run_at, mine.id)))
            limit $2
          ) as before
        ) as ahead
        from job as mine where mine.id = any($1) and mine.state = 'ready'
        """,
        job_ids,
        most,
    )
    return {row["id"]: row["ahead"] for row in rows}


async def list_discards(conn: Connection, job_ids: list[int]) -> dict[int, dict[str, Any]]:
    """By job: who discarded it last, with the note."""
    rows = await conn.fetch(
        """
        select distinct on (job_id) job_id, actor, note, at from job_action
        where job_id = any($1) and action = 'discard' order by job_id, id desc
        """,
        job_ids,
    )
    return {row["job_id"]: dict(row) for row in rows}
