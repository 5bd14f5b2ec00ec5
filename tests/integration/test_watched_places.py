"""Hooks with real servers: what is watched gets the jobs and previews that its rule names, and the rest is let be."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway import ingest
from gateway.app import create_app
from gateway.settings import GatewaySettings
from processors.hooks import parse_hooks
from processors.settings import JobSettings
from storage import credentials, objects
from storage.blobs import Blobs
from storage.database import Database
from storage.objects import Recorded, StoredObject
from tests.integration.programs import Stage
from tests.integration.stage import (
    fetch,
    in_transaction,
    job_settings,
    make_stored,
    photo,
    storage_settings,
    until,
    value,
)
from tests.photos import make_jpeg
from tests.servers import S3Backend

PHOTO = make_jpeg(64, 48)
OTHER_PHOTO = make_jpeg(48, 64)
Record = Callable[..., Awaitable[Recorded | None]]


@pytest.fixture
def bucket(bucket_prefix: str) -> str:
    """The bucket of photos that `blobs` makes."""
    return f"{bucket_prefix}-photos"


@pytest.fixture
def hooks(bucket: str) -> str:
    """The rules of these tests: one narrow prefix, one for facts, one that nobody watches; the rest of the bucket."""
    return f"{bucket},{bucket}/small/:preview+exif:thumb,{bucket}/facts/:exif,{bucket}/scratch/:none"


@pytest.fixture
def settings(redis_url: str, hooks: str) -> JobSettings:
    return job_settings(redis_url, hooks=parse_hooks(hooks))


@pytest.fixture
def record(database: Database, bucket: str, settings: JobSettings) -> Record:
    """Records an object of the bucket, as a door does that was not asked to."""

    async def record_one(key: str, etag: str = "e1", *, asked_for: bool = False, **more: Any) -> Recorded | None:
        stored = make_stored(key, etag, bucket=bucket, **more)
        async with database.transaction() as conn:
            return await ingest.record(conn, stored, settings, asked_for=asked_for)

    return record_one


async def put(blobs: Blobs, record: Record, bucket: str, key: str, **more: Any) -> uuid.UUID:
    """A photo in the storage and in Postgres; its id."""
    written = await blobs.put(bucket, key, PHOTO, content_type="image/jpeg")
    more = {"sha256": written.sha256, "size_bytes": written.size_bytes, **more}
    recorded = await record(key, written.etag, **more)
    assert recorded is not None
    return recorded.id


async def processors_of(database: Database, photo_id: uuid.UUID) -> list[str]:
    rows = await fetch(database, "select processor from job where object_id = $1 order by id", photo_id)
    return [row["processor"] for row in rows]


async def until_settled(database: Database, stage: Stage) -> None:
    async def settled() -> bool:
        return bool(await value(database, "select bool_and(settled_at is not null) from object"))

    await until(settled, seconds=60, what=f"all photos have settled; errors: {stage.unexpected()}")


async def test_each_place_gets_the_jobs_and_previews_that_its_rule_names(
    database: Database, blobs: Blobs, bucket: str, bucket_prefix: str, record: Record, stage: Stage, hooks: str
) -> None:
    """A real worker makes all previews, only the thumb, or only facts, depending on the key, and writes no more."""
    ids = {key: await put(blobs, record, bucket, key) for key in ("a.jpg", "small/a.jpg", "facts/a.jpg")}
    stage.start_worker(hooks=hooks)
    await until_settled(database, stage)
    assert [(await photo(database, item))["status"] for item in ids.values()] == ["ready"] * 3
    made = {
        key: (
            await processors_of(database, photo_id),
            [row["preset"] for row in await fetch(
                database, "select preset from artifact where object_id = $1 order by preset", photo_id
            )],
            await value(database, "select count(*) from facts where object_id = $1 and processor = 'exif'", photo_id),
        )
        for key, photo_id in ids.items()
    }  # fmt: skip
    assert made == {
        "a.jpg": (["preview", "exif"], ["preview", "thumb"], 1),
        "small/a.jpg": (["preview", "exif"], ["thumb"], 1),
        "facts/a.jpg": (["exif"], [], 1),
    }
    page, _ = await blobs.list_page(f"{bucket_prefix}-derived")
    assert {item.key for item in page} == {
        f"{bucket}/{key}" for key in ("a.jpg/preview.jpg", "a.jpg/thumb.webp", "small/a.jpg/thumb.webp")
    }
    assert stage.unexpected() == []


async def test_what_nobody_watches_passes_through(database: Database, record: Record) -> None:
    """Not a row is written for an object in an unwatched place."""
    assert await record("scratch/a.jpg") is None
    assert await value(database, "select count(*) from object") == 0
    assert await value(database, "select count(*) from job") == 0


async def test_a_photo_that_was_asked_for_is_one_where_nobody_watches_too(database: Database, record: Record) -> None:
    """It gets all processors, and so does what replaces it by a door that was not asked to; once it is deleted, nobody
    watches there again."""
    first = await record("scratch/a.jpg", asked_for=True)
    assert first is not None
    assert await processors_of(database, first.id) == ["preview", "exif"]
    second = await record("scratch/a.jpg", "e2")
    assert second is not None
    assert second.id != first.id
    assert await processors_of(database, second.id) == ["preview", "exif"]
    assert (await photo(database, first.id))["superseded_at"] is not None
    bucket = (await photo(database, first.id))["bucket"]
    deleted = await in_transaction(database, lambda conn: objects.mark_deleted(conn, bucket, "scratch/a.jpg"))
    assert deleted == second.id
    assert await record("scratch/a.jpg", "e3") is None


async def test_recording_an_unwatched_place_twice_changes_nothing(database: Database, record: Record) -> None:
    """The very generation that was asked for comes again by another door: it is known already."""
    first = await record("scratch/a.jpg", asked_for=True)
    assert first is not None
    assert await record("scratch/a.jpg") == Recorded(id=first.id, created=False)
    assert await value(database, "select count(*) from job") == 2


@pytest.mark.parametrize(("found", "is_superseded"), [("e1", True), ("e2", False), ("other", False), (None, False)])
async def test_the_storage_is_asked_which_generation_it_kept(
    database: Database, bucket: str, settings: JobSettings, record: Record, found: str | None, is_superseded: bool
) -> None:
    """Where another generation is current, ours is recorded as superseded only if the storage holds that other one."""
    first = await record("a.jpg", "e1")
    asked: list[str | None] = []

    async def read_etag() -> str | None:
        asked.append(found)
        return found

    async def record_again(stored: StoredObject) -> Recorded | None:
        async with database.transaction() as conn:
            return await ingest.record(conn, stored, settings, read_etag=read_etag)

    second = await record_again(make_stored("a.jpg", "e2", bucket=bucket))
    assert first is not None
    assert second is not None
    assert asked == [found]
    rows = {item: (await photo(database, item))["superseded_at"] is not None for item in (first.id, second.id)}
    assert rows == {first.id: not is_superseded, second.id: is_superseded}
    assert await processors_of(database, second.id) == ([] if is_superseded else ["preview", "exif"])


async def test_what_replaced_a_photo_behind_our_back_gets_the_jobs_of_its_place(
    database: Database, blobs: Blobs, bucket: str, record: Record, stage: Stage, hooks: str
) -> None:
    """A worker that finds other bytes than its job was made for records them with the processors of the hook."""
    old = await put(blobs, record, bucket, "facts/a.jpg")
    await blobs.put(bucket, "facts/a.jpg", OTHER_PHOTO, content_type="image/jpeg")
    stage.start_worker(hooks=hooks)

    async def replaced() -> list[dict[str, Any]]:
        return await fetch(database, "select * from object where id <> $1 and status = 'ready'", old)

    (new,) = await until(replaced, seconds=60, what=f"the new bytes are processed; errors: {stage.unexpected()}")
    assert new["size_bytes"] == len(OTHER_PHOTO)
    assert await processors_of(database, new["id"]) == ["exif"]


async def test_too_large_a_photo_is_rejected_before_anything_is_fetched(
    database: Database, blobs: Blobs, bucket: str, record: Record, stage: Stage
) -> None:
    """Neither the whole nor the head is asked for: nothing lies under the key, which a read would have found. One that
    has just the allowed size is processed."""
    most_bytes = len(PHOTO)
    fitting = await put(blobs, record, bucket, "fitting.jpg")
    recorded = await record("large.jpg", size_bytes=most_bytes + 1)
    assert recorded is not None
    stage.start_worker(max_photo_bytes=str(most_bytes))
    await until_settled(database, stage)
    large = await photo(database, recorded.id)
    assert (large["status"], large["rejection"]["code"]) == ("rejected", "too_large")
    assert large["rejection"]["detail"] == (
        f"It has {most_bytes + 1} bytes; {most_bytes} are allowed (SAFELIGHT_MAX_PHOTO_BYTES)."
    )
    jobs = await fetch(database, "select state, outcome, attempt, crashes from job where object_id = $1", recorded.id)
    assert jobs == [{"state": "done", "outcome": "rejected", "attempt": 1, "crashes": 0}] * 2
    assert (await photo(database, fitting))["status"] == "ready"
    assert stage.unexpected() == []


async def test_rest_shows_what_a_place_gets(
    aiohttp_client: Any,
    database: Database,
    blobs: Blobs,
    postgres_dsn: str,
    s3_backend: S3Backend,
    bucket: str,
    bucket_prefix: str,
    settings: JobSettings,
) -> None:
    """Links name only previews that will be made, other presets are answered with those that there are, and a photo
    that is sent to an unwatched place is processed whole."""
    credential = credentials.generate()
    await in_transaction(
        database, lambda conn: credentials.create(conn, credential, name="test", scopes=["read", "write"])
    )
    storage = storage_settings(
        postgres_dsn, s3_backend, default_bucket=bucket, derived_bucket=f"{bucket_prefix}-derived"
    )
    client = await aiohttp_client(create_app(GatewaySettings(), settings, storage))
    bearer = {"Authorization": f"Bearer {credential.token}"}
    seen: dict[str, tuple[list[str], list[str], str]] = {}
    for place in ("small", "facts", "scratch"):
        answer = await client.put(f"/v1/photos/{bucket}/{place}/a.jpg", data=PHOTO, headers=bearer)
        assert answer.status == 201
        found = await answer.json()
        answer = await client.get(f"/v1/photos/{found['id']}/previews/preview", headers=bearer)
        problem = await answer.json()
        assert (answer.status, problem["code"]) == (404, "no_such_preview")
        processors = sorted(job["processor"] for job in found["jobs"])
        seen[place] = (processors, sorted(found["links"]["previews"]), problem["detail"])
    await client.close()
    assert seen == {
        "small": (["exif", "preview"], ["thumb"], "There are thumb."),
        "facts": (["exif"], [], "None are made of what lies there (SAFELIGHT_HOOKS)."),
        "scratch": (["exif", "preview"], ["preview", "thumb"], "The preview is not ready yet. Ask again in a moment."),
    }
