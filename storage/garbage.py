"""Derived objects whose photo is gone. Functions take a connection first; the S3 deletion is the caller's."""

from __future__ import annotations

from dataclasses import dataclass

from storage import objects
from storage.database import Connection


@dataclass(frozen=True, kw_only=True)
class Garbage:
    bucket: str
    key: str


async def pick(conn: Connection, *, bucket: str | None = None, key: str | None = None) -> list[Garbage]:
    """Lock the garbage of one photo, of the given source or else of any. Must run in a transaction that deletes it from
    S3 and ends with `forget`. While it lasts nobody can put a photo back under the source's key; where one came back
    already, its previews are not garbage, and none is returned."""
    source = await conn.fetchrow(
        """
        select source_bucket, source_key from garbage
        where ($1::text is null or source_bucket = $1) and ($2::text is null or source_key = $2)
        order by at limit 1 for update skip locked
        """,
        bucket,
        key,
    )
    if source is None:
        return []
    await objects.lock_key(conn, source["source_bucket"], source["source_key"])
    rows = await conn.fetch(
        "select bucket, key from garbage where source_bucket = $1 and source_key = $2 for update",
        source["source_bucket"],
        source["source_key"],
    )
    found = [Garbage(**dict(row)) for row in rows]
    if await objects.find_current(conn, source["source_bucket"], source["source_key"]):
        await forget(conn, found)
        return []
    return found


async def forget(conn: Connection, found: list[Garbage]) -> None:
    await conn.executemany(
        "delete from garbage where bucket = $1 and key = $2", [(item.bucket, item.key) for item in found]
    )
