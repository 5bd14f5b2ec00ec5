"""schema.sql applied by real processes, at once and again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.servers import Servers, execute, fetch_value, run_apart

VERSION = 9


@pytest.fixture
def empty_dsn(servers: Servers) -> Iterator[str]:
    """URL of a database without the schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_apart(execute(servers.postgres.dsn_of("postgres"), f'create database "{name}"'))
    yield servers.postgres.dsn_of(name)
    servers.drop_database(name)


async def migrate(dsn: str, *arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "safelight", "migrate", *arguments),
        env={"PATH": os.defpath, "SAFELIGHT_POSTGRES_DSN": dsn},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


async def test_four_processes_migrate_at_once(empty_dsn: str) -> None:
    """Four `safelight migrate` on an empty database at the same time all succeed; so does a fifth, and keeps rows."""
    done = await asyncio.gather(*(migrate(empty_dsn) for _ in range(4)))
    assert {code for code, _ in done} == {0}
    assert all(said.startswith(f"The schema is at version {VERSION}") for _, said in done), done
    await execute(
        empty_dsn,
        "insert into object (id, bucket, key, etag, size_bytes, content_type)"
        " values (gen_random_uuid(), 'b', 'k', 'e', 1, 'image/jpeg')",
    )
    nothing = f"The schema is at version {VERSION}; there was nothing to do.\n"
    assert await migrate(empty_dsn) == (0, nothing)
    assert await fetch_value(empty_dsn, "select count(*) from object") == 1
    assert await fetch_value(empty_dsn, "select max(version) from schema_version") == VERSION


async def test_actions_of_before_are_kept_as_actions(empty_dsn: str) -> None:
    """What people did before there was a list of it is in the list: jobs changed together are one line."""
    assert (await migrate(empty_dsn))[0] == 0
    await execute(
        empty_dsn,
        """
        with made as (
          insert into object (id, bucket, key, etag, size_bytes, content_type)
          select gen_random_uuid(), 'b', n::text, 'e', 1, 'image/jpeg' from generate_series(1, 7) as n returning id
        ), jobs as (
          insert into job (object_id, processor, version, max_attempts) select id, 'exif', 1, 1 from made returning id
        ) insert into job_action (job_id, action, actor, note) select id, 'replay', 'ann', 'why' from jobs;
        insert into job_action (job_id, action, actor) select min(id), 'discard', 'bob' from job;
        drop table action;
        """,
    )
    assert (await migrate(empty_dsn))[0] == 0
    found = "select string_agg(format('%s %s %s %s', action, actor, jobs, cardinality(job_ids)), ', ' order by id)"
    assert await fetch_value(empty_dsn, f"{found} from action") == "replay ann 7 5, discard bob 1 1"
    assert (await migrate(empty_dsn))[0] == 0
    assert await fetch_value(empty_dsn, "select count(*) from action") == 2


async def test_migrate_says_from_which_version_to_which(empty_dsn: str) -> None:
    """--check tells beforehand and changes nothing, exit code 1 where there is something to do; a newer schema than
    this release's is left alone and told."""
    assert await migrate(empty_dsn, "--check") == (
        1,
        f"There is no schema yet; this release wants version {VERSION}: safelight migrate\n",
    )
    assert await fetch_value(empty_dsn, "select to_regclass('job')") is None
    assert await migrate(empty_dsn) == (0, f"The schema is at version {VERSION} now; it was at none.\n")
    assert (await migrate(empty_dsn, "--check"))[0] == 0
    await execute(empty_dsn, "delete from schema_version where version > 3")
    code, told = await migrate(empty_dsn, "--check", "--json")
    assert (code, json.loads(told)) == (1, {"from": 3, "to": 3, "wanted": VERSION, "up_to_date": False})
    assert await migrate(empty_dsn) == (0, f"The schema is at version {VERSION} now; it was at 3.\n")
    await execute(empty_dsn, "insert into schema_version (version) values (9999)")
    assert await migrate(empty_dsn) == (0, f"The schema is at version 9999, newer than this release's {VERSION}.\n")
