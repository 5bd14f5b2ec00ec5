"""Rejected photos of direct uploads on their way to the bucket for such: planned, copied, removed where they were.
Functions take a connection first; the S3 side is the caller's.

Each step is committed before the next one begins, and each may be repeated. The photo's row keeps its bucket and key;
where its bytes are is told by `find`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from storage.database import Connection


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A photo that is to be moved, and how far that has come. `bucket`, `key`, `etag`: the original's."""

    object_id: uuid.UUID
    bucket: str
    key: str
    etag: str
    size_bytes: int
    filename: str | None
    expires_at: datetime  # of its upload's addresses
    copied: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the bytes of a quarantined photo lie."""

    bucket: str
    key: str
    etag: str


async def pick(conn: Connection, *, after: tuple[datetime, uuid.UUID] | None = None, limit: int = 20) -> list[Rejected]:
    """Rejected photos of direct uploads that are not moved yet, oldest first. `after`: only what comes behind that
    (expires_at, object_id). Nothing is locked: every step bears to be done twice."""
    rows = await conn.fetch(
        """
        select object.id as object_id, object.bucket, object.key, object.etag, object.size_bytes, object.filename,
               upload.expires_at, quarantine.copied_at is not null as copied
        from upload join object on object.id = upload.object_id
             left join quarantine on quarantine.object_id = object.id
        where upload.closed_at is null and object.status = 'rejected' and object.settled_at is not null
          and object.superseded_at is null and object.deleted_at is null and quarantine.removed_at is null
          and ($2::timestamptz is null or (upload.expires_at, object.id) > ($2::timestamptz, $3::uuid))
        order by upload.expires_at, object.id limit $1
        """,
        limit,
        *(after or (None, None)),
    )
    return [Rejected(**dict(row)) for row in rows]


async def plan(conn: Connection, object_id: uuid.UUID, bucket: str, key: str) -> None:
    """Say where the copy will lie, before there is one."""
    await conn.execute(
        "insert into quarantine (object_id, bucket, key) values ($1, $2, $3) on conflict do nothing",
        object_id,
        bucket,
        key,
    )


async def find_plan(conn: Connection, object_id: uuid.UUID) -> tuple[str, str] | None:
    """Bucket and key of the copy, whether there is one yet or not; None where none was planned."""
    row = await conn.fetchrow("select bucket, key from quarantine where object_id = $1", object_id)
    return (row["bucket"], row["key"]) if row else None


async def mark_copied(conn: Connection, object_id: uuid.UUID, etag: str) -> None:
    """The copy is there, whole: from now on the photo's bytes are read from it."""
    await conn.execute(
        "update quarantine set etag = $2, copied_at = now() where object_id = $1 and copied_at is null", object_id, etag
    )


async def mark_removed(conn: Connection, object_id: uuid.UUID) -> None:
    """The original is gone from where it was."""
    await conn.execute("update quarantine set removed_at = coalesce(removed_at, now()) where object_id = $1", object_id)
    await conn.execute("update upload set closed_at = coalesce(closed_at, now()) where object_id = $1", object_id)


async def find(conn: Connection, object_id: uuid.UUID) -> Place | None:
    """Where a photo's bytes lie; None where it is not in quarantine."""
    row = await conn.fetchrow(
        "select bucket, key, etag from quarantine where object_id = $1 and copied_at is not null", object_id
    )
    return Place(**dict(row)) if row else None
