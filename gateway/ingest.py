"""EVERY door ends here: an object that lies in S3 becomes a row with its jobs, in one transaction."""

from __future__ import annotations

from processors import registry
from processors.settings import JobSettings
from storage import objects
from storage.database import Connection
from storage.objects import Plan, Recorded, StoredObject


async def record(conn: Connection, stored: StoredObject, settings: JobSettings) -> Recorded:
    """Make it the current generation of its key, with a ready job for each processor. Idempotent on (bucket, key, etag,
    version). Must run in a transaction; the client may be answered once that has committed."""
    plans = [
        Plan(processor=processor.name, version=processor.version, max_attempts=settings.max_attempts)
        for processor in registry.available()
    ]
    return await objects.record(conn, stored, plans)
