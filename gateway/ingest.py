"""EVERY door ends here: an object that lies in S3 becomes a row with its jobs, in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from processors.settings import JobSettings
from storage import objects
from storage.database import Connection
from storage.objects import Plan, Recorded, StoredObject

ReadEtag = Callable[[], Awaitable[str | None]]


async def record(
    conn: Connection,
    stored: StoredObject,
    settings: JobSettings,
    *,
    asked_for: bool = False,
    read_etag: ReadEtag | None = None,
) -> Recorded | None:
    """Make it the current generation of its key, with a ready job for each processor that its hook names. Idempotent on
    (bucket, key, etag, version). Must run in a transaction; the client may be answered once that has committed.

    None, with nothing written: nobody watches there, and no photo was there. Where one was, what replaces it is
    recorded with all processors, because nobody may be shown the previews of bytes that are gone.

    `asked_for`: the client gave this to Safelight as a photo (REST). That is explicit, while hooks only say what is to
    be done with what passes by; so where nobody watches it gets all processors, and the answer is never None.

    Two writers of one key may come here in another order than they reached the storage. A door that has just written
    gives `read_etag`: the ETag that the storage has under this key now, None for no such object. It is asked only where
    another generation is current already.

    What the door itself found to be no photo (`stored.rejection`) is recorded as rejected, without jobs.

    The request id that the logs carry now is kept with the object: workers log it too."""
    stored = replace(stored, request_id=structlog.contextvars.get_contextvars().get("request_id"))
    if read_etag is not None and await _was_overwritten(conn, stored, read_etag):
        return await objects.record_superseded(conn, stored)
    if stored.rejection is not None:
        return await objects.record(conn, stored, ())
    processors = settings.processors_for(stored.bucket, stored.key, asked_for=asked_for)
    if not processors:
        await objects.lock_key(conn, stored.bucket, stored.key)
        if await objects.find_current(conn, stored.bucket, stored.key) is None:
            return None
        processors = settings.processors_for(stored.bucket, stored.key, asked_for=True)
    plans = [Plan(processor=item.name, version=item.version, max_attempts=settings.max_attempts) for item in processors]
    return await objects.record(conn, stored, plans)


async def _was_overwritten(conn: Connection, stored: StoredObject, read_etag: ReadEtag) -> bool:
    await objects.lock_key(conn, stored.bucket, stored.key)
    current = await objects.find_current(conn, stored.bucket, stored.key)
    if current is None or current["etag"] == stored.etag:
        return False
    return bool(await read_etag() == current["etag"])
