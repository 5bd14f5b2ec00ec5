"""`safelight keys` as people and init containers run it, against real Postgres; and the table of an older release."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from safelight.embedded.server import descendants
from safelight.settings import load
from storage import credentials, sealing
from storage.credentials import KeyRecord
from storage.database import Database
from storage.sealing import MasterKeys, SealBroken
from tests.integration.stage import environment_of, fetch, in_transaction, until
from tests.servers import S3Backend, Servers, execute, run_apart

OLD, NEW = "00" * 31 + "01", "00" * 31 + "02"
ACCESS, SECRET = "SLTESTTESTTESTTESTTE", "s" * 40
# The table as schema version 1 made it.
VERSION_1 = """
create table schema_version (version int primary key, applied_at timestamptz not null default now());
create table api_key (
  access_key   text primary key check (access_key ~ '^[A-Z0-9]{16,40}$'),
  secret_hash  bytea not null check (octet_length(secret_hash) = 32),
  name         text not null check (length(name) between 1 and 200),
  scopes       text[] not null check (cardinality(scopes) > 0 and scopes <@ array['read', 'write', 'admin']),
  created_at   timestamptz not null default now(),
  expires_at   timestamptz,
  revoked_at   timestamptz
);
insert into schema_version (version) values (1);
insert into api_key (access_key, secret_hash, name, scopes)
  values ('SLTESTTESTTESTTESTTE', sha256(convert_to(repeat('s', 40), 'UTF8')), 'old', array['read']);
"""


class Said(NamedTuple):
    code: int | None
    out: str
    err: str


Run = Callable[..., Awaitable[Said]]


async def run_command(dsn: str, *arguments: str, **more: str) -> Said:
    """Run `safelight` with those arguments; `more` are settings, named without SAFELIGHT_."""
    settings = {f"SAFELIGHT_{name.upper()}": value for name, value in more.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "safelight", *arguments),
        env={"PATH": os.defpath, "COLUMNS": "200", "SAFELIGHT_POSTGRES_DSN": dsn, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Said(process.returncode, out.decode(), err.decode())


@pytest.fixture
def run(postgres_dsn: str) -> Run:
    """Runs `safelight keys ...` on this test's database."""
    return partial(run_command, postgres_dsn, "keys")


@pytest.fixture
def old_dsn(servers: Servers) -> Iterator[str]:
    """URL of a database with the keys of schema version 1."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    run_apart(execute(servers.postgres.dsn_of("postgres"), f'create database "{name}"'))
    run_apart(execute(servers.postgres.dsn_of(name), VERSION_1))
    yield servers.postgres.dsn_of(name)
    servers.drop_database(name)


async def find(database: Database, access_key: str = ACCESS) -> KeyRecord:
    record = await in_transaction(database, partial(credentials.find, access_key=access_key))
    assert record is not None
    return record


def unsealed(record: KeyRecord, masters: str = OLD) -> str:
    assert record.sealed_secret is not None
    return MasterKeys.parse(masters).open(record.sealed_secret, access_key=record.access_key)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    conn = await asyncpg.connect(dsn, command_timeout=20)
    try:
        yield conn
    finally:
        await conn.close()


async def test_an_older_table_gets_its_columns(old_dsn: str) -> None:
    """A database of schema version 1 is migrated, twice; its key opens REST as before, is not limited, and can be given
    the S3 door."""
    for _ in range(2):
        said = await run_command(old_dsn, "migrate")
        assert (said.code, said.out.startswith("The schema is at version ")) == (0, True), said
    async with connected(old_dsn) as conn:
        record = await credentials.find(conn, ACCESS)
        assert record is not None
        assert (record.name, record.places, record.sealed_secret) == ("old", (), None)
        assert record.secret_hash == credentials.hash_secret(SECRET)
        assert await conn.fetchval("select min(version) + max(version) >= 3 from schema_version")
        said = await run_command(old_dsn, "keys", "ensure", "--name", "old", key=f"{ACCESS}.{SECRET}", master_key=OLD)
        assert said.code == 0, said
        record = await credentials.find(conn, ACCESS)
        assert record is not None
        assert unsealed(record) == SECRET


async def test_a_migration_without_changes_does_not_wait_for_readers(postgres_dsn: str) -> None:
    """Somebody who reads the keys for long, such as a backup, does not hold up a migration that has nothing to do."""
    async with connected(postgres_dsn) as reader, reader.transaction():
        await reader.fetch("select * from api_key")
        said = await asyncio.wait_for(run_command(postgres_dsn, "migrate"), 15)
    assert said.code == 0, said


@pytest.mark.parametrize(
    "column",
    ["storage_access_key = 'x'", "sealed_storage_secret = '\\x00'", "places = array['photos', null]", "places = null"],
)
async def test_half_of_a_key_cannot_be_stored(run: Run, database: Database, column: str) -> None:
    """Credentials of the storage are both there or both not, and places are all named, whoever writes them."""
    await run("ensure", "--name", "n", key=f"{ACCESS}.{SECRET}")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await in_transaction(database, lambda conn: conn.execute(f"update api_key set {column}"))


async def test_a_created_key_opens_both_doors(run: Run, database: Database) -> None:
    """With a master key, what is printed once is kept as a hash and as a seal, and the places with it."""
    said = await run(
        *("create", "--name", "n", "--place", "photos/weddings/", "--place", "archive", "--json"), master_key=OLD
    )
    assert (said.code, said.err) == (0, "")
    made = json.loads(said.out)
    record = await find(database, made["access_key"])
    assert unsealed(record) == made["secret_key"]
    assert record.secret_hash == credentials.hash_secret(made["secret_key"])
    assert record.places == tuple(made["places"]) == ("photos/weddings/", "archive")
    assert (made["opens_s3"], made["storage_access_key"]) == (True, None)
    assert made["secret_key"] not in repr(record)


async def test_without_a_master_key_it_opens_rest_only_and_says_so(run: Run, database: Database) -> None:
    """The key is made, nothing is sealed, and the warning goes where programs do not read."""
    said = await run("create", "--name", "n", "--json")
    assert said.code == 0
    assert "opens REST only" in said.err
    assert "safelight keys master" in said.err
    made = json.loads(said.out)
    assert made["opens_s3"] is False
    record = await find(database, made["access_key"])
    assert (record.sealed_secret, record.places) == (None, ())


async def test_ensure_makes_a_key_what_it_asks_for(run: Run, database: Database) -> None:
    """A repetition with other terms sets all of them: limits, doors and scopes, and takes away what it leaves out."""
    key = f"{ACCESS}.{SECRET}"
    assert (await run("ensure", "--name", "n", "--place", "photos/", key=key, master_key=OLD)).code == 0
    record = await find(database)
    assert (unsealed(record), record.places, record.scopes) == (SECRET, ("photos",), {"read", "write"})
    said = await run("ensure", "--name", "n", "--scopes", "read", "--json", key=key)
    assert (json.loads(said.out)["scopes"], SECRET in said.out) == (["read"], False)
    assert (said.code, "opens REST only" in said.err) == (0, True)
    record = await find(database)
    assert (record.sealed_secret, record.places, record.scopes) == (None, (), {"read"})


async def test_credentials_of_the_storage_are_sealed_with_the_key(run: Run, database: Database) -> None:
    """They come from the environment, lie sealed for this access key, and go when they are left out."""
    create = ("ensure", "--name", "n", "--storage-access-key", "AKIATENANT")
    secrets = {"key": f"{ACCESS}.{SECRET}", "master_key": OLD, "storage_secret_key": "tenant/secret+"}
    said = await run(*create, **secrets)
    assert said.code == 0, said
    record = await find(database)
    assert record.storage_access_key == "AKIATENANT"
    assert record.sealed_storage_secret is not None
    assert b"tenant" not in record.sealed_storage_secret
    assert MasterKeys.parse(OLD).open(record.sealed_storage_secret, access_key=ACCESS) == "tenant/secret+"
    assert "S3 (as AKIATENANT)" in (await run("list")).out
    assert (await run("ensure", "--name", "n", key=secrets["key"], master_key=OLD)).code == 0
    assert (await find(database)).storage_access_key is None


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (["--place", "Photos/x"], {}, "a bucket's name has 3 to 63"),
        (["--place", "photos/x/*"], {}, "leave the * at its end out"),
        (["--storage-access-key", "a"], {"storage_secret_key": "b"}, "--storage-access-key needs SAFELIGHT_MASTER_KEY"),
        (["--storage-access-key", "a"], {"master_key": OLD}, "SAFELIGHT_STORAGE_SECRET_KEY"),
        (["--scopes", "root"], {}, "not root"),
        ([], {"master_key": "hidden-hidden"}, "master key 1 of it is neither"),
        ([], {"master_key": f"{OLD},hidden"}, "master key 2 of it is neither"),
    ],
)
async def test_wrong_wishes_make_no_key(
    run: Run, database: Database, arguments: list[str], settings: dict[str, str], sentence: str
) -> None:
    """What cannot be is told in a sentence, without the master key, and nothing is stored."""
    said = await run("create", "--name", "n", *arguments, **settings)
    assert (said.code, sentence in said.err) == (2, True), said
    assert "hidden" not in said.out + said.err
    assert OLD not in said.out + said.err
    assert await fetch(database, "select * from api_key") == []


async def test_a_bad_master_key_is_told_at_the_start(postgres_dsn: str) -> None:
    """A gateway or worker with an unusable SAFELIGHT_MASTER_KEY does not start, and says what to do without showing it;
    a repr of the settings does not show a usable one."""
    others = {"redis_url": "redis://127.0.0.1:1/0", "s3_access_key": "a", "s3_secret_key": "b"}
    for command in ("gateway", "worker"):
        said = await run_command(postgres_dsn, command, master_key=f"{OLD},hidden-hidden", **others)
        assert said.code == 2
        assert "SAFELIGHT_MASTER_KEY is set, but master key 2 of it is neither" in said.err
        assert "`safelight keys master` makes one" in said.err
        assert "hidden" not in said.err
        assert OLD not in said.err
    environ = {f"SAFELIGHT_{name.upper()}": text for name, text in others.items()}
    found = load({**environ, "SAFELIGHT_POSTGRES_DSN": postgres_dsn, "SAFELIGHT_MASTER_KEY": OLD})
    assert found.gateway.master_key == OLD
    assert OLD not in repr(found)


async def test_the_list_shows_doors_and_places_and_no_secret(run: Run) -> None:
    """Each key stands there with where it opens what; neither hash nor seal is printed."""
    await run("ensure", "--name", "sealed", "--place", "photos/a/", key=f"{ACCESS}.{SECRET}", master_key=OLD)
    await run("create", "--name", "plain")
    lines = (await run("list")).out.splitlines()
    assert [("REST, S3" in line, "photos/a/" in line) for line in lines[1:]] == [(True, True), (False, False)]
    rows = json.loads((await run("list", "--json")).out)
    assert [(row["name"], row["opens_s3"], row["places"]) for row in rows] == [
        ("sealed", True, ["photos/a/"]),
        ("plain", False, []),
    ]
    assert not [name for name in rows[0] if "secret" in name or "hash" in name]


async def test_reseal_moves_every_secret_to_the_first_master_key(run: Run, database: Database) -> None:
    """After it, the new master key alone opens all; a second run finds nothing to do."""
    storage = ("--storage-access-key", "AKIATENANT")
    secrets = {"key": f"{ACCESS}.{SECRET}", "storage_secret_key": "tenant"}
    await run("ensure", "--name", "both", *storage, master_key=OLD, **secrets)
    await run("create", "--name", "one", master_key=OLD)
    await run("create", "--name", "newer", master_key=NEW)
    await run("create", "--name", "rest only")
    said = await run("reseal", master_key=f"{NEW},{OLD}")
    assert (said.code, said.out) == (0, "Sealed anew: 2; with the first already: 1; not opened: 0.\n"), said
    record = await find(database)
    assert unsealed(record, NEW) == SECRET
    assert record.sealed_storage_secret is not None
    assert MasterKeys.parse(NEW).open(record.sealed_storage_secret, access_key=ACCESS) == "tenant"
    with pytest.raises(SealBroken):
        unsealed(record, OLD)
    again = await run("reseal", "--json", master_key=NEW)
    assert json.loads(again.out) == {"resealed": 0, "kept": 3, "broken": {}}


async def test_reseal_leaves_what_it_cannot_open(run: Run, database: Database) -> None:
    """Keys sealed with a lost master key, or altered, are named with the reason and stay; the others are done."""
    await run("ensure", "--name", "lost", key=f"{ACCESS}.{SECRET}", master_key="ff" * 32)
    await run("ensure", "--name", "altered", key=f"{'A' * 20}.{SECRET}", master_key=OLD)
    await run("ensure", "--name", "good", key=f"{'B' * 20}.{SECRET}", master_key=OLD)
    change = "update api_key set sealed_secret = set_byte(sealed_secret, 20, get_byte(sealed_secret, 20) # 1)"
    await in_transaction(database, lambda conn: conn.execute(f"{change} where name = 'altered'"))
    before = (await find(database)).sealed_secret
    said = await run("reseal", master_key=f"{NEW},{OLD}")
    assert (said.code, said.out) == (1, "Sealed anew: 1; with the first already: 0; not opened: 2.\n")
    assert f"{ACCESS} cannot be opened: it was sealed with a master key that is not among those given." in said.err
    assert f"{'A' * 20} cannot be opened: its bytes were altered" in said.err
    assert (await find(database)).sealed_secret == before
    assert unsealed(await find(database, "B" * 20), NEW) == SECRET
    assert (await run("reseal")).code == 2


async def test_a_printed_master_key_can_be_used_as_it_is(run: Run) -> None:
    """Standard output holds the key and nothing else; how to set it is told beside it."""
    said = await run("master")
    assert len(base64.b16decode(said.out.strip().upper())) == sealing.KEY_BYTES
    assert "SAFELIGHT_MASTER_KEY" in said.err
    again = await run("create", "--name", "n", "--json", master_key=said.out)
    assert json.loads(again.out)["opens_s3"] is True
    assert (await run("master")).out != said.out


@pytest.mark.parametrize("given", ["", NEW], ids=["its own", "the environment's"])
async def test_up_gives_one_master_key_to_all(
    tmp_path: Path, postgres_dsn: str, redis_url: str, s3_backend: S3Backend, bucket_prefix: str, given: str
) -> None:
    """On a data folder of an older release `safelight up` seals the key that it finds there, with a master key that is
    made once, unless the environment gives one; gateway and worker are given the same."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "secrets.json").write_text(json.dumps({"access_key": "ab" * 20, "secret_key": "cd" * 20}))
    environment = {
        **environment_of(postgres_dsn, redis_url, s3_backend, bucket_prefix),
        "SAFELIGHT_DATA_DIR": str(data_dir),
        "SAFELIGHT_HTTP_PORT": "0",
        "SAFELIGHT_S3_PORT": "0",
        "SAFELIGHT_GRACE_SECONDS": "1",
        "SAFELIGHT_WORKER_SLOTS": "1",
        "SAFELIGHT_MASTER_KEY": given,
    }
    used = []
    async with connected(postgres_dsn) as conn:
        for _ in range(2):
            seen = await run_up(environment, data_dir, tmp_path / "output")
            kept = json.loads((data_dir / "secrets.json").read_text())
            assert ("master_key" in kept) is not bool(given)
            used.append(given or kept["master_key"])
            assert seen == {used[-1]}
            record = await credentials.find(conn, f"SL{('ab' * 20)[:18].upper()}")
            assert record is not None
            assert unsealed(record, used[-1]) == "cd" * 20
    assert used[0] == used[1]


async def run_up(environment: dict[str, str], data_dir: Path, output: Path) -> set[str]:
    """Start everything and stop it again; the master keys in the environments of its children."""
    with output.open("w") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "safelight", "up"),
            env={"PATH": os.defpath, **environment},
            stdout=file,
            stderr=file,
        )
    try:

        async def is_up() -> bool:
            assert process.returncode is None, text_of(output)
            return "Safelight is up" in text_of(output)

        await until(is_up, seconds=60, what="Safelight is up")
        found = {master_key_of(pid) for pid in children_of(process.pid)}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0, text_of(output)
    finally:
        if process.returncode is None:
            process.kill()
    return found


def text_of(path: Path) -> str:
    return path.read_text()


def children_of(pid: int) -> list[int]:
    """The programs that `safelight up` itself started: not the worker's sandbox children, which inherit nothing."""
    return [item for item in descendants(pid) if int(Path(f"/proc/{item}/stat").read_text().split()[3]) == pid]


def master_key_of(pid: int) -> str:
    pairs = (pair.partition("=") for pair in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return {name: value for name, _, value in pairs}.get("SAFELIGHT_MASTER_KEY", "none")
