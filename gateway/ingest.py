"""EVERY door ends here: an object that lies in S3 becomes a row with its jobs, in one transaction."""

from __future__ import annotations

from processors import registry
from processors.settings import JobSettings
from storage import objects
from storage.blobs import Blobs, NoSuchBlob
from storage.database import Connection
from storage.objects import Plan, Recorded, StoredObject


async def record(
    conn: Connection, stored: StoredObject, settings: JobSettings, *, blobs: Blobs | None = None
) -> Recorded:
    """Make it the current generation of its key, with a ready job for each processor. Idempotent on (bucket, key, etag,
    version). Must run in a transaction; the client may be answered once that has committed.

    Two writers of one key may come here in another order than they reached the storage. A door that has just written
    gives `blobs`, so that where another generation is current already, the storage is asked which one it kept."""
    if blobs is not None and await _was_overwritten(conn, stored, blobs):
        return await objects.record_superseded(conn, stored)
    plans = [
        Plan(processor=processor.name, version=processor.version, max_attempts=settings.max_attempts)
        for processor in registry.available()
    ]
    return await objects.record(conn, stored, plans)


async def _was_overwritten(conn: Connection, stored: StoredObject, blobs: Blobs) -> bool:
    await objects.lock_key(conn, stored.bucket, stored.key)
    current = await objects.find_current(conn, stored.bucket, stored.key)
    if current is None or current["etag"] == stored.etag:
        return False
    try:
        head = await blobs.head(stored.bucket, stored.key)
    except NoSuchBlob:
        return False
    return bool(head.etag == current["etag"])
