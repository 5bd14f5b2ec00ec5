"""Multipart uploads of ours under way, so that those of a gateway that died can be told from everybody else's and
aborted. Functions take a connection first; the S3 side is the caller's.

A row is committed before the upload is created, and names its key rather than its id, which is not known yet:
whatever was begun under that key since the row was made, and has no living owner, is dangling.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from storage.database import Connection

SILENT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Dangling:
    id: uuid.UUID
    bucket: str
    key: str
    created_at: datetime


async def begin(conn: Connection, upload_id: uuid.UUID, bucket: str, key: str, owner: str) -> None:
    await conn.execute(
        "insert into multipart (id, bucket, key, owner) values ($1, $2, $3, $4)", upload_id, bucket, key, owner
    )


async def refresh(conn: Connection, owner: str) -> None:
    """Say that everything of this gateway is still under way."""
    await conn.execute("update multipart set seen_at = now() where owner = $1", owner)


async def finish(conn: Connection, upload_id: uuid.UUID) -> None:
    """It was completed or aborted."""
    await conn.execute("delete from multipart where id = $1", upload_id)


async def give_up(conn: Connection, upload_id: uuid.UUID) -> None:
    """Nobody owns it any more: it could not be aborted, and is dangling once it was silent for long enough."""
    await conn.execute("update multipart set owner = '' where id = $1", upload_id)


async def pick_dangling(
    conn: Connection, *, silent_seconds: float = SILENT_SECONDS, limit: int = 100
) -> list[Dangling]:
    """Lock rows whose owner fell silent and whose key nobody else is uploading to now. Must run in a transaction that
    aborts them in S3 and ends with `finish` for each."""
    rows = await conn.fetch(
        """
        select id, bucket, key, created_at from multipart
        where seen_at < now() - $1::float8 * interval '1 s'
          and not exists (select from multipart as other
                          where other.bucket = multipart.bucket and other.key = multipart.key
                            and other.seen_at >= now() - $1::float8 * interval '1 s')
        order by seen_at limit $2 for update skip locked
        """,
        silent_seconds,
        limit,
    )
    return [Dangling(**dict(row)) for row in rows]
