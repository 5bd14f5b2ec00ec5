"""What Postgres takes of the queue: photos a second through record, claim and finish, without decoding or storage.

python -m benchmarks.queue [--photos 1500] [--rounds 3]

On a Postgres of its own that writes every commit to disk, which shares the machine with its sixteen clients: compare
runs on one machine, and several, because neighbours are noisy. Each photo has two jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from safelight.embedded import Postgres
from storage import jobs, keys, objects
from storage.database import Connection, Database
from storage.jobs import Claim
from storage.objects import Plan, StoredObject
from storage.settings import StorageSettings

_CLIENTS = 16
_PLANS = [Plan(processor=name, version=1, max_attempts=8) for name in ("preview", "exif")]
_KNOWN = {"preview": 1, "exif": 1}


async def carry(database: Database, number: int) -> None:
    """One photo, from its record to its verdict."""
    stored = StoredObject(
        id=keys.new_id(datetime.now(UTC)),
        bucket="photos",
        key=f"{number}-{uuid.uuid4().hex}.jpg",
        etag="e1",
        size_bytes=3,
        content_type="image/jpeg",
        sha256=bytes(32),
    )
    async with database.transaction() as conn:
        await objects.record(conn, stored, _PLANS)
        rows = await conn.fetch("select id from job where object_id = $1", stored.id)
    for row in rows:
        async with database.connection() as conn:
            claim = await jobs.claim(conn, row["id"], worker="bench", lease_seconds=30, known=_KNOWN)
        assert claim is not None

        async def finish(conn: Connection, claim: Claim = claim) -> str:
            return await jobs.finish(conn, claim, version=1, derived={"make": "Lumen"})

        await database.persist(finish, for_seconds=10)


async def measure(database: Database, photos: int) -> float:
    """Photos a second."""
    numbers = iter(range(photos))

    async def client() -> None:
        for number in numbers:
            await carry(database, number)

    started_at = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return photos / (time.perf_counter() - started_at)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder) / "postgres")
        server.start()
        try:
            settings = StorageSettings(
                postgres_dsn=server.dsn_of("postgres"), s3_access_key="", s3_secret_key="", postgres_pool_size=_CLIENTS
            )
            async with Database(settings) as database:
                await database.migrate()
                for _ in range(wanted.rounds):
                    rate = await measure(database, wanted.photos)
                    print(f"{rate:.0f} photos/s, {2 * rate:.0f} jobs/s")
        finally:
            server.kill()


if __name__ == "__main__":
    asyncio.run(main())
