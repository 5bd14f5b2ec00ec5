"""Fixtures of the integration tests: clients of the session's real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from safelight.embedded import Valkey
from storage.blobs import Blobs
from storage.database import Database
from tests.integration.direct import start_app  # noqa: F401 - a fixture
from tests.integration.programs import Stage
from tests.integration.stage import environment_of, storage_settings
from tests.servers import S3Backend


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    """The pool of one process, on a database of this test alone."""
    async with Database(storage_settings(postgres_dsn, postgres_pool_size=25)) as opened:
        yield opened


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey of this test alone, to be broken; it keeps nothing when it ends."""
    server = Valkey(tmp_path / "valkey", persistent=False)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def stage(
    tmp_path: Path, postgres_dsn: str, redis_url: str, s3_backend: S3Backend, bucket_prefix: str
) -> Iterator[Stage]:
    """Programs with a database and buckets of their own, a lease of 3 s and a redispatch of 2 s."""
    environment = {
        **environment_of(postgres_dsn, redis_url, s3_backend, bucket_prefix),
        "SAFELIGHT_LEASE_SECONDS": "3",
        "SAFELIGHT_REDISPATCH_SECONDS": "2",
        "SAFELIGHT_WORKER_SLOTS": "2",
        "SAFELIGHT_CHILD_WALL_SECONDS": "60",
        "SAFELIGHT_LOG_FORMAT": "json",
    }
    opened = Stage(tmp_path, environment)
    yield opened
    opened.end()


@pytest.fixture
async def blobs(postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str) -> AsyncIterator[Blobs]:
    """An S3 client on the session's SeaweedFS, with both buckets of this test made."""
    settings = storage_settings(
        postgres_dsn, s3_backend, default_bucket=f"{bucket_prefix}-photos", derived_bucket=f"{bucket_prefix}-derived"
    )
    async with Blobs(settings) as opened:
        for bucket in (settings.default_bucket, settings.derived_bucket):
            await opened.ensure_bucket(bucket)
        yield opened
