"""Who may do what, and where: bearer tokens, checked against the keys in Postgres. Closed by default.

A key is remembered for a second, so revoking one takes effect within that. A wrong secret costs the same time as a
right one; an unknown access key is compared with a dummy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from gateway.errors import Problem
from gateway.reach import Reach
from gateway.remembering import Remembered
from storage import credentials
from storage.credentials import Credential, KeyRecord
from storage.database import Database

Scope = Literal["read", "write", "admin"]

_NOBODY = KeyRecord(access_key="", secret_hash=bytes(32), name="", scopes=frozenset(), expires_at=None, revoked_at=None)


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whose key opened the door."""

    access_key: str
    name: str
    scopes: frozenset[str]
    reach: Reach


class Gatekeeper:
    """Checks tokens for one process."""

    def __init__(self, database: Database, *, derived_bucket: str) -> None:
        self._database = database
        self._derived_bucket = derived_bucket
        self._records = Remembered(self._ask)

    async def admit(self, authorization: str | None, scope: Scope) -> Principal:
        """The principal of an Authorization header. Raises Problem unauthorized or forbidden, DatabaseUnavailable."""
        kind, _, token = (authorization or "").partition(" ")
        credential = credentials.parse_token(token.strip()) if kind.lower() == "bearer" else None
        if credential is None:
            raise _unauthorized("Send the header Authorization: Bearer <access key>.<secret key>.")
        return self.let_in(await self.recognise(credential), scope)

    async def recognise(self, credential: Credential) -> KeyRecord:
        """The key whose secret this is. Raises Problem unauthorized, DatabaseUnavailable."""
        record = await self._records.find(credential.access_key)
        if not (record or _NOBODY).opens(credential.secret_key, datetime.now(UTC)) or record is None:
            raise _unauthorized("This key is unknown, revoked or expired. `safelight keys create` makes one.")
        return record

    def let_in(self, record: KeyRecord, scope: Scope) -> Principal:
        """The principal of a key that is known to be valid. Raises Problem forbidden."""
        if scope not in record.scopes:
            raise Problem(
                "forbidden", f"It needs the scope {scope!r}; this key has {', '.join(sorted(record.scopes))}."
            )
        return Principal(
            access_key=record.access_key,
            name=record.name,
            scopes=record.scopes,
            reach=Reach(places=record.places, derived_bucket=self._derived_bucket),
        )

    async def _ask(self, access_key: str) -> KeyRecord | None:
        async with self._database.connection() as conn:
            return await credentials.find(conn, access_key)


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="safelight"'})
