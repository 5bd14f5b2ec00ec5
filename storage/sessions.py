"""Browser sessions: who signed in with which key, until when. Functions take a connection first.

Of the token that a browser holds only the SHA-256 is kept. A session opens nothing by itself: its key must still be
valid, and have the secret that it had at the sign-in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.credentials import KeyRecord
from storage.database import Connection


@dataclass(frozen=True, kw_only=True)
class Session:
    key: KeyRecord
    expires_at: datetime


async def begin(conn: Connection, token_hash: bytes, key: KeyRecord, *, seconds: float) -> datetime:
    """Keep a session of that key. Returns when it ends; sessions that ended are forgotten on the way."""
    await conn.execute("delete from browser_session where expires_at < now()")
    expires_at: datetime = await conn.fetchval(
        """
        insert into browser_session (token_hash, access_key, secret_hash, expires_at)
        values ($1, $2, $3, now() + $4::float8 * interval '1 s') returning expires_at
        """,
        token_hash,
        key.access_key,
        key.secret_hash,
        seconds,
    )
    return expires_at


async def find(conn: Connection, token_hash: bytes) -> Session | None:
    """The session, with its key as it is now; None where it ended. The key may be revoked or expired."""
    row = await conn.fetchrow(
        """
        select api_key.access_key, api_key.secret_hash, api_key.name, api_key.scopes, api_key.expires_at,
               api_key.revoked_at, api_key.places, browser_session.expires_at as session_expires_at
        from browser_session join api_key using (access_key, secret_hash)
        where token_hash = $1 and browser_session.expires_at > now()
        """,
        token_hash,
    )
    if row is None:
        return None
    values = dict(row)
    expires_at = values.pop("session_expires_at")
    key = KeyRecord(**{**values, "scopes": frozenset(row["scopes"]), "places": tuple(row["places"])})
    return Session(key=key, expires_at=expires_at)


async def end(conn: Connection, token_hash: bytes) -> None:
    await conn.execute("delete from browser_session where token_hash = $1", token_hash)
