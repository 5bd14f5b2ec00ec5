"""A client's retry, by `Idempotency-Key`: taken before the body is read, kept while it arrives, answered once.

Without the header nothing is kept. With it, a retry of a finished request gets the first one's photos, after its
body was found to be the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.auth import Principal
from gateway.errors import Problem
from storage import idempotency, keys
from storage.database import Connection, Database, DatabaseUnavailable

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_RELEASE_SECONDS = 1.0  # of trying, where Postgres is away for a moment


@dataclass(kw_only=True)
class Attempt:
    """One try of a request. `answer` is set where an earlier try was finished."""

    principal: str
    key: str | None
    uploads: list[dict[str, Any]] = field(default_factory=list)
    answer: list[dict[str, Any]] | None = None

    async def assign(
        self, database: Database, index: int, *, bucket: str, key: str | None, filename: str | None, extension: str
    ) -> str:
        """The S3 key of the request's file number `index`: the one that an earlier try was given, else the client's
        or a new one, committed before anything is stored under it."""
        if index < len(self.uploads):
            return str(self.uploads[index]["key"])
        now = datetime.now(UTC)
        chosen = key or keys.upload_key(keys.new_id(now), filename, extension, now)
        self.uploads.append({"bucket": bucket, "key": chosen})
        if self.key is not None:
            async with database.connection() as conn:
                await idempotency.assign(conn, self.principal, self.key, self.uploads)
        return chosen

    async def finish(self, conn: Connection, stored: list[tuple[uuid.UUID, bytes]]) -> None:
        """Keep the answer, in the transaction that records the last photo."""
        if self.key is not None:
            answer = [{"id": str(photo_id), "sha256": sha256.hex()} for photo_id, sha256 in stored]
            await idempotency.finish(conn, self.principal, self.key, answer)


@contextlib.asynccontextmanager
async def attempt(request: web.Request, principal: Principal, database: Database) -> AsyncIterator[Attempt]:
    """Hold the request's Idempotency-Key, if it has one. Raises Problem idempotency_in_progress or
    idempotency_key_reused."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        yield Attempt(principal=principal.access_key, key=None)
        return
    if not _KEY.fullmatch(key):
        raise Problem("invalid_request", "An Idempotency-Key has 1 to 255 visible ASCII characters, no spaces.")
    who = principal.access_key
    async with database.transaction() as conn:
        begun = await idempotency.begin(conn, who, key, f"{request.method} {request.path}")
    if begun.reused:
        raise Problem("idempotency_key_reused", "Send each new request with a new key.")
    if begun.busy:
        raise Problem(
            "idempotency_in_progress", "Wait for its answer, or send it again later.", headers={"Retry-After": "2"}
        )
    renewing = asyncio.create_task(_renew(database, who, key))
    try:
        yield Attempt(principal=who, key=key, uploads=list(begun.uploads), answer=begun.answer)
    except BaseException:
        renewing.cancel()
        await asyncio.shield(_release(database, who, key))
        raise
    finally:
        renewing.cancel()


def check_same(answer: list[dict[str, Any]], sha256s: list[bytes]) -> None:
    """Raises Problem idempotency_key_reused where these are not the bytes that were answered before."""
    if [item["sha256"] for item in answer] != [sha256.hex() for sha256 in sha256s]:
        raise Problem("idempotency_key_reused", "It was used for other photos. Send each new request with a new key.")


async def _renew(database: Database, who: str, key: str) -> None:
    while True:
        await asyncio.sleep(idempotency.LOCK_SECONDS / 3)
        with contextlib.suppress(DatabaseUnavailable):
            async with database.connection() as conn:
                await idempotency.renew(conn, who, key)


async def _release(database: Database, who: str, key: str) -> None:
    """Not given up at once: whoever is told to send it again in a moment is not to find the key held then."""
    with contextlib.suppress(DatabaseUnavailable):
        await database.persist(
            lambda conn: idempotency.release(conn, who, key), for_seconds=_RELEASE_SECONDS, in_transaction=False
        )
