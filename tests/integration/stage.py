"""What the integration tests begin with: settings for real servers, photos that lie in the database, and waiting.

Everything waits for a condition with a deadline; nothing sleeps for a fixed time and hopes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from processors.settings import JobSettings
from storage import jobs, keys, objects
from storage.database import Connection, Database
from storage.facts import StoredArtifact
from storage.jobs import Claim
from storage.objects import Plan, StoredObject
from storage.settings import StorageSettings
from tests.servers import S3Backend

T = TypeVar("T")
KNOWN = {"preview": 1, "exif": 1}


async def until(condition: Callable[[], Awaitable[T]], *, seconds: float, what: str) -> T:
    """The first true answer of `condition`. Fails after `seconds`, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what} (last answer {found!r})"
        await asyncio.sleep(0.02)


def environment_of(dsn: str, redis_url: str, s3: S3Backend, prefix: str) -> dict[str, str]:
    """What programs of one test are told of its servers; `prefix` names its stream and begins its buckets."""
    return {
        "SAFELIGHT_POSTGRES_DSN": dsn,
        "SAFELIGHT_REDIS_URL": redis_url,
        "SAFELIGHT_REDIS_STREAM": prefix,
        "SAFELIGHT_S3_ENDPOINT": s3.endpoint,
        "SAFELIGHT_S3_ACCESS_KEY": s3.access_key,
        "SAFELIGHT_S3_SECRET_KEY": s3.secret_key,
        "SAFELIGHT_DEFAULT_BUCKET": f"{prefix}-photos",
        "SAFELIGHT_DERIVED_BUCKET": f"{prefix}-derived",
    }


def storage_settings(dsn: str, s3: S3Backend | None = None, **more: Any) -> StorageSettings:
    s3 = s3 or S3Backend(endpoint="http://127.0.0.1:9", access_key="none", secret_key="none")
    return StorageSettings(
        **{
            "postgres_dsn": dsn,
            "s3_endpoint": s3.endpoint,
            "s3_access_key": s3.access_key,
            "s3_secret_key": s3.secret_key,
            "s3_region": s3.region,
            **more,
        }
    )


def job_settings(redis_url: str, **more: Any) -> JobSettings:
    return JobSettings(**{"redis_url": redis_url, **more})


def make_stored(key: str = "a.jpg", etag: str = "e1", **more: Any) -> StoredObject:
    fresh = {"bucket": "photos", "size_bytes": 3, "content_type": "image/jpeg", "sha256": bytes(32)}
    return StoredObject(**{**fresh, "id": keys.new_id(datetime.now(UTC)), "key": key, "etag": etag, **more})


def make_artifact(key: str = "photos/a.jpg/thumb.webp", preset: str = "thumb") -> StoredArtifact:
    return StoredArtifact(
        preset=preset,
        preset_version="webp-320-q80-p1",
        bucket="derived",
        key=key,
        etag="d1",
        sha256=bytes(32),
        size_bytes=10,
        content_type="image/webp",
        width_px=320,
        height_px=240,
    )


async def add_photo(
    database: Database,
    *,
    key: str = "a.jpg",
    etag: str = "e1",
    processors: Iterable[str] = ("preview",),
    max_attempts: int = 8,
    version: int = 1,
) -> tuple[uuid.UUID, dict[str, int]]:
    """Record a photo; its id, and the ids of its jobs by processor."""
    plans = [Plan(processor=name, version=version, max_attempts=max_attempts) for name in processors]
    async with database.transaction() as conn:
        recorded = await objects.record(conn, make_stored(key, etag), plans)
        rows = await conn.fetch("select processor, id from job where object_id = $1", recorded.id)
    return recorded.id, {row["processor"]: row["id"] for row in rows}


async def take(database: Database, job_id: int, *, worker: str = "w1", lease_seconds: float = 30) -> Claim:
    """Claim a job that must be due."""
    async with database.connection() as conn:
        claim = await jobs.claim(conn, job_id, worker=worker, lease_seconds=lease_seconds, known=KNOWN)
    assert claim is not None, f"job {job_id} could not be claimed"
    return claim


async def in_transaction(database: Database, change: Callable[[Connection], Awaitable[T]]) -> T:
    async with database.transaction() as conn:
        return await change(conn)


async def fetch(database: Database, statement: str, *arguments: object) -> list[dict[str, Any]]:
    async with database.connection() as conn:
        return [dict(row) for row in await conn.fetch(statement, *arguments)]


async def value(database: Database, statement: str, *arguments: object) -> Any:
    async with database.connection() as conn:
        return await conn.fetchval(statement, *arguments)


async def job(database: Database, job_id: int) -> dict[str, Any]:
    return (await fetch(database, "select * from job where id = $1", job_id))[0]


async def photo(database: Database, photo_id: uuid.UUID) -> dict[str, Any]:
    return (await fetch(database, "select * from object where id = $1", photo_id))[0]


async def attempts(database: Database, job_id: int) -> list[str | None]:
    """How each run of a job ended, in order."""
    return [
        row["outcome"]
        for row in await fetch(database, "select outcome from job_attempt where job_id = $1 order by token", job_id)
    ]


async def fall_silent(database: Database, *job_ids: int) -> None:
    """As if the workers of these jobs had not beaten for longer than the lease."""
    async with database.connection() as conn:
        await conn.execute("update job set lease_until = now() - interval '1 ms' where id = any($1)", list(job_ids))


async def reap(database: Database, *, max_expiries: int = 25) -> list[dict[str, Any]]:
    async with database.transaction() as conn:
        return await jobs.reap(conn, max_expiries=max_expiries)
