"""Client retries (`Idempotency-Key`): one answer per (principal, key). Functions take a connection first.

The S3 keys of a request are chosen and committed before its first byte is stored, so a retry after a crash writes to
the same places instead of leaving a second photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage.database import Connection

LOCK_SECONDS = 15.0  # renewed while the body arrives; a crashed request blocks its retry no longer than this


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What is known of the key. Exactly one of: `answer` (finished before), `busy` (under way elsewhere), `reused`
    (sent with another request), or none of them (ours to do, with the keys in `uploads`)."""

    uploads: list[dict[str, Any]]
    answer: list[dict[str, Any]] | None = None
    busy: bool = False
    reused: bool = False


async def begin(conn: Connection, principal: str, key: str, request: str) -> Begun:
    """Take the key for LOCK_SECONDS. Must run in a transaction."""
    await conn.execute(
        """
        insert into idempotency (principal, key, request, uploads) values ($1, $2, $3, '[]') on conflict do nothing
        """,
        principal,
        key,
        request,
    )
    row = await conn.fetchrow(
        """
        select request, uploads, answer, coalesce(locked_until > now(), false) as locked
        from idempotency where principal = $1 and key = $2 for update
        """,
        principal,
        key,
    )
    assert row is not None
    uploads = row["uploads"]
    if row["request"] != request:
        return Begun(uploads=uploads, reused=True)
    if row["answer"] is not None:
        return Begun(uploads=uploads, answer=row["answer"])
    if row["locked"]:
        return Begun(uploads=uploads, busy=True)
    await renew(conn, principal, key)
    return Begun(uploads=uploads)


async def assign(conn: Connection, principal: str, key: str, uploads: list[dict[str, Any]]) -> None:
    """Commit to the S3 keys of this request, in the order of its files."""
    await conn.execute("update idempotency set uploads = $3 where principal = $1 and key = $2", principal, key, uploads)


async def renew(conn: Connection, principal: str, key: str) -> None:
    await conn.execute(
        "update idempotency set locked_until = now() + $3::float8 * interval '1 s' where principal = $1 and key = $2",
        principal,
        key,
        LOCK_SECONDS,
    )


async def finish(conn: Connection, principal: str, key: str, answer: list[dict[str, Any]]) -> None:
    """Keep the answer: [{id, sha256}, ...]."""
    await conn.execute(
        "update idempotency set answer = $3, locked_until = null where principal = $1 and key = $2",
        principal,
        key,
        answer,
    )


async def release(conn: Connection, principal: str, key: str) -> None:
    """The request failed: its retry may begin at once."""
    await conn.execute(
        "update idempotency set locked_until = null where principal = $1 and key = $2 and answer is null",
        principal,
        key,
    )


async def prune(conn: Connection, *, older_than_hours: float) -> int:
    status: str = await conn.execute(
        "delete from idempotency where created_at < now() - $1::float8 * interval '1 h'", older_than_hours
    )
    return int(status.rsplit(" ", 1)[-1])
