"""Samples of messages that nobody could use: enough to see what a storage sends, never more than a few of each kind."""

from __future__ import annotations

from typing import Any

from storage.database import Connection

SAMPLE_BYTES = 4096
KEPT = 10  # of each reason, the newest ones


async def keep(conn: Connection, *, origin: str, reason: str, body: bytes, size_bytes: int) -> None:
    """Keep the beginning of a message. `origin`: the way it came; `size_bytes`: of all of it, as far as it was read."""
    await conn.execute(
        "insert into unusable_message (origin, reason, body, size_bytes) values ($1, $2, $3, $4)",
        origin,
        reason,
        body[:SAMPLE_BYTES],
        size_bytes,
    )
    await conn.execute(
        """
        delete from unusable_message where reason = $1 and id not in (
          select id from unusable_message where reason = $1 order by id desc limit $2
        )
        """,
        reason,
        KEPT,
    )


async def list_newest(conn: Connection, *, limit: int = 100) -> list[dict[str, Any]]:
    """The samples that there are, newest first."""
    rows = await conn.fetch(
        "select id, origin, reason, body, size_bytes, received_at from unusable_message order by id desc limit $1",
        limit,
    )
    return [dict(row) for row in rows]
