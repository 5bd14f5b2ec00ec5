"""`safelight doctor` on real servers: silent where all is well, and for each thing that is wrong a finding."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from safelight.cli import app
from safelight.embedded import Valkey
from storage import condition, credentials, pauses, samples
from storage.blobs import Blobs
from storage.database import Database
from tests.integration.hooked import TOKEN, minio_event
from tests.integration.programs import Stage, read_address
from tests.integration.stage import add_photo, environment_of, in_transaction, until
from tests.servers import S3Backend

DEAD = "127.0.0.1:9"


async def address_of(ports: Path) -> str:
    return read_address(ports)


def examine(environment: Mapping[str, str], *arguments: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """Exit code, and by name of the check what was found: (level, found and what to do)."""
    unset: dict[str, str | None] = {name: None for name in os.environ if name.startswith("SAFELIGHT_")}
    settings = {"SAFELIGHT_DATA_DIR": "/nowhere", "SAFELIGHT_URL": f"http://{DEAD}", **environment}
    done = CliRunner().invoke(app, ["doctor", "--json", *arguments], env=unset | settings, catch_exceptions=False)
    found: dict[str, list[tuple[str, str]]] = {}
    for item in json.loads(done.stdout)["findings"]:
        assert (item["do"] is None) == (item["level"] == "ok"), item
        found.setdefault(item["name"], []).append((item["level"], f"{item['found']} {item['do'] or ''}"))
    return done.exit_code, found


@pytest.fixture
def environment(postgres_dsn: str, redis_url: str, s3_backend: S3Backend, bucket_prefix: str) -> dict[str, str]:
    return environment_of(postgres_dsn, redis_url, s3_backend, bucket_prefix)


async def make_key(database: Database) -> None:
    create = partial(credentials.create, credential=credentials.generate(), name="n", scopes=["read"], places=[])
    await in_transaction(database, create)


async def test_where_all_is_well_nothing_fails(
    database: Database, stage: Stage, environment: dict[str, str], blobs: Blobs
) -> None:
    """With gateway and worker alive: exit code 0, every check made, each permission of both buckets, and nothing of it
    left in the storage; only what the tests' servers lack is warned of."""
    await make_key(database)
    _, ports = stage.start_gateway()
    stage.start_worker()

    async def both_live() -> bool:
        async with database.connection() as conn:
            return ports.exists() and bool(await conn.fetchval("select count(*) from worker"))

    await until(both_live, seconds=30, what="gateway and worker are up")
    url = json.loads(ports.read_text())["http_url"]
    code, found = await asyncio.to_thread(examine, {**environment, "SAFELIGHT_URL": url})
    assert code == 0, found
    levels = {name: {level for level, _ in items} for name, items in found.items()}
    lacking = {"postgres writing", "redis persistence", "reconciling", "open files"}
    lacking |= {"sandbox network", "sandbox files", "sandbox processes"}
    assert {name for name, of in levels.items() if of != {"ok"}} <= lacking
    assert {"settings", "postgres", "schema", "redis", "storage clock", "public address", "sandbox"} <= set(levels)
    assert levels["postgres notifications"] == {"ok"}
    assert "sandbox processes" in levels
    assert levels["gateway"] == levels["workers"] == levels["keys"] == {"ok"}
    for bucket in (environment["SAFELIGHT_DEFAULT_BUCKET"], environment["SAFELIGHT_DERIVED_BUCKET"]):
        assert "hold multipart uploads, delete" in found[f"bucket {bucket}"][0][1]
        assert await blobs.list_page(bucket) == ([], False)
        assert await blobs.list_uploads(bucket) == ([], False)


async def test_what_is_wrong_with_the_queue_is_told(
    database: Database, environment: dict[str, str], valkey: Valkey, blobs: Blobs
) -> None:
    """No worker, no gateway, no key, a paused processor, dead and old jobs, an unusable message, a Redis that evicts, a
    public address that nobody answers: each has its finding, with what to do."""
    await add_photo(database, processors=("preview", "exif"))
    await in_transaction(database, partial(pauses.pause, processor="exif", actor="ann", note=None))
    keep = partial(samples.keep, origin="webhook", reason="not_json", body=b"?", size_bytes=1)
    await in_transaction(database, keep)
    async with database.connection() as conn:
        await conn.execute("update job set run_at = now() - interval '1 h' where processor = 'preview'")
        await add_photo(database, key="dead.jpg")
        await conn.execute(
            """
            update job set state = 'dead', finished_at = now(), error_code = 'odd' from object
            where object.id = object_id and key = 'dead.jpg'
            """
        )
    await asyncio.to_thread(make_evicting, valkey)
    wrong = {"SAFELIGHT_REDIS_URL": valkey.url, "SAFELIGHT_S3_PUBLIC_ENDPOINT": f"http://{DEAD}"}
    code, found = await asyncio.to_thread(examine, {**environment, **wrong})
    assert code == 1
    for name, level, said in (
        ("workers", "fail", "safelight worker"),
        ("gateway", "warn", "No gateway answers"),
        ("keys", "warn", "safelight keys create"),
        ("paused", "warn", "safelight jobs resume exif"),
        ("waiting jobs", "warn", "A due job of preview has waited for 3,6"),
        ("dead jobs", "warn", "1 of preview"),
        ("bucket events", "warn", "not_json, by webhook"),
        ("redis eviction", "warn", "maxmemory-policy noeviction"),
        ("redis persistence", "warn", "appendonly yes"),
        ("public address", "fail", "SAFELIGHT_S3_PUBLIC_ENDPOINT"),
    ):
        (item,) = [item for item in found[name] if item[0] != "ok"]
        assert (item[0], said in item[1]) == (level, True), (name, item)


def make_evicting(valkey: Valkey) -> None:
    import redis

    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")


async def test_servers_that_are_away_or_refuse_do_not_hide_each_other(
    environment: dict[str, str], blobs: Blobs
) -> None:
    """Postgres and Redis away, the storage's key wrong: three failures, each with its setting; then the storage away
    and a bucket gone."""
    wrong = {
        "SAFELIGHT_POSTGRES_DSN": f"postgresql://nobody@{DEAD}/none",
        "SAFELIGHT_REDIS_URL": f"redis://{DEAD}/0",
        "SAFELIGHT_S3_SECRET_KEY": "wrong",
    }
    code, found = await asyncio.to_thread(examine, {**environment, **wrong})
    bucket = f"bucket {environment['SAFELIGHT_DEFAULT_BUCKET']}"
    assert code == 1
    for name, said in (
        ("postgres", "SAFELIGHT_POSTGRES_DSN"),
        ("redis", "SAFELIGHT_REDIS_URL"),
        (bucket, "key cannot"),
    ):
        ((level, text),) = found[name]
        assert (level, said in text) == ("fail", True), (name, text)
    assert "schema" not in found
    assert found["sandbox"][0][0] == "ok"
    code, found = await asyncio.to_thread(examine, {**environment, "SAFELIGHT_S3_ENDPOINT": f"http://{DEAD}"})
    assert (code, found["storage"][0][0]) == (1, "fail")
    missing = f"{environment['SAFELIGHT_DERIVED_BUCKET']}-none"
    code, found = await asyncio.to_thread(examine, {**environment, "SAFELIGHT_DERIVED_BUCKET": missing})
    assert (code, found[f"bucket {missing}"][0][0]) == (1, "fail")
    assert "The bucket is not there" in found[f"bucket {missing}"][0][1]
    code, found = await asyncio.to_thread(examine, {**environment, "SAFELIGHT_HOOKS": f"{missing}:exif,other:none"})
    assert (code, found[f"bucket {missing}"][0][0], "bucket other" in found) == (1, "fail", False)


async def test_notifications_that_do_not_arrive_are_told(database: Database) -> None:
    """Behind a pooler the one who listens hears nothing: here, because nobody tells."""

    class Mute:
        async def execute(self, *_: object) -> None:
            pass

    async with database.connection() as conn, database.connection() as other:
        assert await condition.hears(conn, other)
        assert not await condition.hears(conn, Mute(), seconds=0.05)  # type: ignore[arg-type]


async def test_settings_and_schema_come_first(database: Database, environment: dict[str, str]) -> None:
    """Each setting that cannot be is a failure of its own and nothing else is tried; an old schema is told, and what
    needs it is left out."""
    wrong = {"SAFELIGHT_LEASE_SECONDS": "0", "SAFELIGHT_TYPO": "1"}
    code, found = await asyncio.to_thread(examine, {**environment, **wrong})
    assert code == 1
    assert set(found) == {"settings"}
    assert len(found["settings"]) == 2
    async with database.connection() as conn:
        await conn.execute("delete from schema_version where version > 2")
    code, found = await asyncio.to_thread(examine, environment)
    assert code == 1
    ((level, text),) = found["schema"]
    assert (level, "safelight migrate" in text, "workers" in found) == ("fail", True, False)


async def test_events_are_tried_in_earnest(
    database: Database, stage: Stage, environment: dict[str, str], blobs: Blobs, tmp_path: Path
) -> None:
    """A storage that tells the gateway of the photo passes; the photo is gone afterwards, from storage and lists."""
    bucket = environment["SAFELIGHT_DEFAULT_BUCKET"]
    ports = tmp_path / "hooked.json"
    stage.start("gateway", http_port="0", s3_port="0", ports_file=str(ports), hook_token=TOKEN)
    url = await until(partial(address_of, ports), seconds=30, what="the gateway is up")
    examining = asyncio.create_task(asyncio.to_thread(examine, {**environment, "SAFELIGHT_URL": url}, "--events"))
    headers = {"Authorization": f"Bearer {TOKEN}"}

    async def tell() -> bool:
        """What MinIO would do when the photo is written."""
        for item in (await blobs.list_page(bucket, prefix=".safelight-doctor/"))[0]:
            if item.key.endswith(".gif"):
                event = minio_event(bucket, item.key, etag=item.etag)
                hook = f"{url}/hooks/bucket-events"
                async with aiohttp.ClientSession(headers=headers) as session, session.post(hook, json=event) as answer:
                    assert answer.status == 200, await answer.text()
                return True
        return examining.done()

    await until(tell, seconds=60, what="the photo is written")
    _, found = await asyncio.wait_for(examining, 60)
    assert ("ok", True) in [(level, "told of a photo" in text) for level, text in found["bucket events"]], found
    assert await blobs.list_page(bucket) == ([], False)
    async with database.connection() as conn:
        rows = await conn.fetch("select deleted_at is not null as deleted from object")
    assert [row["deleted"] for row in rows] == [True]
