"""schema.sql applied by real processes, at once and again."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.servers import Servers, execute, fetch_value, run_apart

VERSION = 2


@pytest.fixture
def empty_dsn(servers: Servers) -> Iterator[str]:
    """URL of a database without the schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_apart(execute(servers.postgres.dsn_of("postgres"), f'create database "{name}"'))
    yield servers.postgres.dsn_of(name)
    servers.drop_database(name)


async def migrate(dsn: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "safelight", "migrate"),
        env={"PATH": os.defpath, "SAFELIGHT_POSTGRES_DSN": dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


async def test_four_processes_migrate_at_once(empty_dsn: str) -> None:
    """Four `safelight migrate` on an empty database at the same time all succeed; so does a fifth, and keeps rows."""
    done = await asyncio.gather(*(migrate(empty_dsn) for _ in range(4)))
    assert done == [(0, f"The schema is at version {VERSION}.\n")] * 4
    await execute(
        empty_dsn,
        "insert into object (id, bucket, key, etag, size_bytes, content_type)"
        " values (gen_random_uuid(), 'b', 'k', 'e', 1, 'image/jpeg')",
    )
    assert await migrate(empty_dsn) == (0, f"The schema is at version {VERSION}.\n")
    assert await fetch_value(empty_dsn, "select count(*) from object") == 1
    assert await fetch_value(empty_dsn, "select count(*) from schema_version") == VERSION
