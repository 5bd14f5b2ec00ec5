"""Reconciling Postgres with the storage: every finding made for real, on real servers, and what must never happen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tracemalloc
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import ingest
from gateway.findings import FINDINGS, Tally
from gateway.reconcile import Part, keep_reconciling, list_parts, run_pass, take_turn
from gateway.repairs import Site
from gateway.settings import GatewaySettings
from processors.contract import Preset
from processors.hooks import parse_hooks
from safelight.embedded import SeaweedFS
from storage import credentials, jobs, keys, multiparts, objects, reconciliation
from storage.blobs import Blobs, BlobsDenied
from storage.database import Connection, Database
from storage.facts import StoredArtifact
from storage.objects import StoredObject
from storage.reconciliation import Place
from tests.faults.harness.shim import Shim, Spoil
from tests.integration.programs import Stage
from tests.integration.stage import fetch, in_transaction, job_settings, photo, storage_settings, take, until, value
from tests.photos import make_jpeg
from tests.rgw import Rgw
from tests.servers import S3Backend, Servers

PHOTO = make_jpeg(64, 48)
OTHER_PHOTO = make_jpeg(48, 64)


@pytest.fixture
def site(
    database: Database, blobs: Blobs, postgres_dsn: str, redis_url: str, s3_backend: S3Backend, bucket_prefix: str
) -> Site:
    """Two empty buckets and a database of this test alone; nothing is too young to be looked at."""
    storage = storage_settings(
        postgres_dsn, s3_backend, default_bucket=f"{bucket_prefix}-photos", derived_bucket=f"{bucket_prefix}-derived"
    )
    settings = GatewaySettings(reconcile_grace_seconds=0, reconcile_window_keys=10)
    return Site(
        database=database,
        blobs=blobs,
        settings=settings,
        jobs=job_settings(redis_url, redispatch_seconds=600),
        storage=storage,
    )


def with_settings(site: Site, **settings: Any) -> Site:
    return replace(site, settings=replace(site.settings, **settings))


def ignore(_part: Part, _place: Place) -> None:
    """Nobody watches the progress."""


async def reconcile(site: Site, **where: Any) -> dict[str, dict[str, int]]:
    """A whole pass over everything; what was found, without zeros."""
    tally = Tally()
    for part in await list_parts(site, **where):
        place = await run_pass(site, part, restart=True, watch=ignore)
        assert place is not None
        tally.add(place.findings)
    return {name: {action: n for action, n in actions.items() if n} for name, actions in tally.counts.items()}


async def put(site: Site, key: str, data: bytes = PHOTO) -> None:
    """What an S3 client does that knows nothing of the gateway."""
    await site.blobs.put(site.storage.default_bucket, key, data, content_type="image/jpeg")


async def upload(site: Site, key: str = "a.jpg", data: bytes = PHOTO) -> uuid.UUID:
    """What a door does."""
    bucket = site.storage.default_bucket
    written = await site.blobs.put(bucket, key, data, content_type="image/jpeg")
    stored = StoredObject(
        id=keys.new_id(datetime.now(UTC)),
        bucket=bucket,
        key=key,
        etag=written.etag,
        version_id=written.version_id,
        sha256=written.sha256,
        size_bytes=written.size_bytes,
        content_type="image/jpeg",
    )

    async def read_etag() -> str:
        return (await site.blobs.head(bucket, key)).etag

    async with site.database.transaction() as conn:
        recorded = await ingest.record(conn, stored, site.jobs, asked_for=True, read_etag=read_etag)
    assert recorded is not None
    return recorded.id


async def process(site: Site, photo_id: uuid.UUID) -> None:
    """What a worker does: the previews of every preset in the storage, both jobs done."""
    rows = await fetch(site.database, "select id, processor from job where object_id = $1", photo_id)
    for row in rows:
        claim = await take(site.database, row["id"])
        artifacts = []
        if row["processor"] == "preview":
            artifacts = [await put_preview(site, claim, preset) for preset in site.jobs.presets]
        await in_transaction(site.database, partial(jobs.finish, claim=claim, version=1, artifacts=artifacts))


async def put_preview(site: Site, claim: jobs.Claim, preset: Preset, data: bytes = b"preview") -> StoredArtifact:
    key = keys.artifact_key(claim.bucket, claim.key, preset.name, preset.extension)
    metadata = {
        "source-etag": claim.etag,
        "source-id": str(claim.object_id),
        "preset": preset.name,
        "preset-version": preset.version,
    }
    bucket = site.storage.derived_bucket
    written = await site.blobs.put(bucket, key, data, content_type=preset.content_type, metadata=metadata)
    return StoredArtifact(
        preset=preset.name,
        preset_version=preset.version,
        bucket=bucket,
        key=key,
        etag=written.etag,
        sha256=written.sha256,
        size_bytes=written.size_bytes,
        content_type=preset.content_type,
        width_px=64,
        height_px=48,
    )


async def list_keys(site: Site, bucket: str) -> set[str]:
    found: set[str] = set()
    after, more = "", True
    while more:
        page, more = await site.blobs.list_page(bucket, after=after)
        found |= {item.key for item in page}
        after = page[-1].key if page else ""
    return found


async def forget(site: Site, photo_id: uuid.UUID) -> None:
    """As if it had been deleted and the account of what was left over had been lost."""
    async with site.database.connection() as conn:
        await conn.execute("update object set deleted_at = now() where id = $1", photo_id)


async def snapshot(site: Site) -> dict[str, Any]:
    """Everything that there is, in Postgres and in the storage."""
    tables = await fetch(
        site.database, "select table_name from information_schema.tables where table_schema = 'public' order by 1"
    )
    seen: dict[str, Any] = {
        name: await value(
            site.database, f"select md5(coalesce(string_agg(t::text, chr(10) order by t::text), '')) from \"{name}\" t"
        )
        for name in (row["table_name"] for row in tables)
    }
    for bucket in (site.storage.default_bucket, site.storage.derived_bucket):
        seen[bucket] = [(item.key, item.etag) for item in (await site.blobs.list_page(bucket))[0]]
        seen[f"{bucket} uploads"] = [item.upload_id for item in (await site.blobs.list_uploads(bucket))[0]]
    return seen


async def begin_multipart(site: Site, key: str) -> str:
    answer = await site.blobs._client.create_multipart_upload(Bucket=site.storage.default_bucket, Key=key)
    return str(answer["UploadId"])


async def open_uploads(site: Site) -> set[str]:
    return {item.upload_id for item in (await site.blobs.list_uploads(site.storage.default_bucket))[0]}


async def name_multipart(site: Site, key: str, *, silent_seconds: float, age_seconds: float = 0) -> None:
    """The row of an upload whose gateway was last heard of so long ago."""
    async with site.database.connection() as conn:
        upload_id = uuid.uuid4()
        await multiparts.begin(conn, upload_id, site.storage.default_bucket, key, "g1")
        await conn.execute(
            """
            update multipart set seen_at = now() - $2::float8 * interval '1 s',
                                 created_at = now() - $3::float8 * interval '1 s' where id = $1
            """,
            upload_id,
            silent_seconds,
            age_seconds,
        )


async def test_photos_put_into_the_storage_are_recorded_and_get_their_previews(site: Site, stage: Stage) -> None:
    """Photos that no door saw are found, under any key, and real workers make their previews; then all agrees."""
    names = {"a.jpg", "a/b.jpg", "a-b.jpg", "a-b/c.jpg", "ü ☃+%.jpg", *(f"2024/{n:03}.jpg" for n in range(25))}
    for name in names:
        await put(site, name)
    assert await reconcile(site) == {"unrecorded_object": {"repaired": 30}}
    rows = await fetch(site.database, "select key, sha256, content_type, size_bytes, filename from object")
    assert {row["key"] for row in rows} == names
    assert {(row["sha256"], row["content_type"], row["size_bytes"]) for row in rows} == {
        (None, "image/jpeg", len(PHOTO))
    }
    stage.start_worker()

    async def all_ready() -> bool:
        return bool(await value(site.database, "select count(*) = 30 from object where status = 'ready'"))

    await until(all_ready, seconds=60, what="all previews")
    assert await reconcile(site) == {}
    async with site.database.connection() as conn:
        await conn.execute("update artifact set preset_version = 'old' where preset = 'thumb'")
    (gone,) = await fetch(site.database, "select bucket, key from artifact where preset = 'preview' limit 1")
    await site.blobs.delete(gone["bucket"], gone["key"])
    found = await reconcile(site)
    assert found.pop("preview_outdated") == {"repaired": 30}
    assert found == {}  # the missing one's job is ready again already
    await until(all_ready, seconds=60, what="all previews again")
    assert await reconcile(site) == {}
    assert stage.unexpected() == []


@pytest.mark.needs_ceph
async def test_keys_that_our_doors_do_not_take_are_compared_too(
    site: Site, rgw: Rgw, postgres_dsn: str, bucket_prefix: str
) -> None:
    """Where a storage keeps `//` and `/../` as they are, photos under such keys are recorded, and a second pass over
    them and their previews finds nothing."""
    storage = storage_settings(
        postgres_dsn, rgw.backend, default_bucket=f"{bucket_prefix}-photos", derived_bucket=f"{bucket_prefix}-derived"
    )
    async with Blobs(storage) as blobs:
        ceph = replace(site, blobs=blobs, storage=storage)
        for bucket in (storage.default_bucket, storage.derived_bucket):
            await blobs.ensure_bucket(bucket)
        for key in ("a//b.jpg", "//c.jpg", "d/../e.jpg"):
            await put(ceph, key)
        assert await reconcile(ceph) == {"unrecorded_object": {"repaired": 3}}
        for row in await fetch(site.database, "select id from object"):
            await process(ceph, row["id"])
        assert await reconcile(ceph) == {}


async def test_an_object_that_the_storage_denies_is_reported_and_passed_over(
    site: Site, s3_backend: S3Backend, bucket_prefix: str
) -> None:
    """What may not be read, or is in an archive, is a finding, and the pass goes on; a bucket that is closed to us
    keeps no other one from its turn; and a storage that refuses us altogether ends the turn."""
    async with Shim(s3_backend.endpoint) as shim:
        storage = replace(site.storage, s3_endpoint=shim.url)
        async with Blobs(storage) as blobs:
            spoilt = with_settings(replace(site, blobs=blobs, storage=storage), reconcile_pass_seconds=3600)
            await put(site, "free.jpg")
            await put(site, "locked.jpg")
            for code in ("AccessDenied", "InvalidObjectState"):
                shim.set(Spoil(act="answer", status=403, code=code, within="locked.jpg"))
                assert (await reconcile(spoilt, bucket=site.storage.default_bucket))["unreadable"] == {"left": 1}
            assert [row["key"] for row in await fetch(site.database, "select key from object")] == ["free.jpg"]
            named = job_settings("redis://unused", hooks=parse_hooks(f"*,{bucket_prefix}-closed"))
            shim.set(Spoil(act="answer", status=403, code="AccessDenied", within=f"{bucket_prefix}-closed"))
            await take_turn(replace(spoilt, jobs=named), Tally())
            rows = await fetch(site.database, "select bucket, phase from reconcile where runner = 'gateway'")
            assert {row["bucket"].removeprefix(bucket_prefix): row["phase"] for row in rows} == {
                "-closed": "objects",  # not a window of it could be taken
                "-photos": "photos",
            }
            shim.set(Spoil(act="answer", status=403, code="AccessDenied"))
            with pytest.raises(BlobsDenied):
                await take_turn(spoilt, Tally())


async def test_what_is_no_photo_is_left_alone_and_counted(site: Site) -> None:
    """Text, empty objects and keys that Safelight does not take are neither recorded nor deleted."""
    for key, data in (("notes.txt", b"not a photo"), ("empty.jpg", b""), ("a\x01b.jpg", PHOTO)):
        await put(site, key, data)
    before = await list_keys(site, site.storage.default_bucket)
    assert await reconcile(site) == {"not_a_photo": {"left": 2}, "unusable_key": {"left": 1}}
    assert await value(site.database, "select count(*) from object") == 0
    assert await list_keys(site, site.storage.default_bucket) == before


@pytest.mark.parametrize("data", [OTHER_PHOTO, b"not a photo any more"])
async def test_other_bytes_under_a_known_key_are_recorded(site: Site, data: bytes) -> None:
    """What lies there now becomes the current generation with jobs of its own, photo or not."""
    old = await upload(site)
    await process(site, old)
    await put(site, "a.jpg", data)
    assert await reconcile(site) == {"unrecorded_generation": {"repaired": 1}}
    assert (await photo(site.database, old))["superseded_at"] is not None
    (new,) = await fetch(site.database, "select * from object where superseded_at is null")
    head = await site.blobs.head(site.storage.default_bucket, "a.jpg")
    assert (new["etag"], new["size_bytes"]) == (head.etag, len(data))
    assert (
        await value(site.database, "select count(*) from job where object_id = $1 and state = 'ready'", new["id"]) == 2
    )


async def test_what_is_younger_than_the_grace_period_is_left_alone(site: Site) -> None:
    """Objects without rows, rows without objects and orphans are not touched while they may be under way."""
    young = with_settings(site, reconcile_grace_seconds=300)
    photo_id = await upload(site)
    await process(site, photo_id)
    orphan = await upload(site, "gone.jpg")
    await process(site, orphan)
    await forget(site, orphan)
    for key in ("a.jpg", "gone.jpg"):
        await site.blobs.delete(site.storage.default_bucket, key)
    await put(site, "new.jpg")
    assert await reconcile(young) == {}
    assert set(await reconcile(site)) == {"unrecorded_object", "original_missing", "orphaned_preview"}


async def test_a_lost_original_is_reported_and_marked_as_deleted_only_when_accepted(site: Site) -> None:
    """Its row and its previews stay until somebody accepts the loss; the photos beside it stay anyhow."""
    lost, kept = await upload(site, "lost.jpg"), await upload(site, "kept.jpg")
    await process(site, lost)
    await process(site, kept)
    await site.blobs.delete(site.storage.default_bucket, "lost.jpg")
    assert await reconcile(site) == {"original_missing": {"left": 1}}
    assert (await photo(site.database, lost))["deleted_at"] is None
    assert await value(site.database, "select count(*) from garbage") == 0
    assert await reconcile(replace(site, accept_losses=True)) == {"original_missing": {"repaired": 1}}
    assert (await photo(site.database, lost))["deleted_at"] is not None
    assert (await photo(site.database, kept))["deleted_at"] is None
    assert await value(site.database, "select count(*) from garbage where source_key = 'lost.jpg'") == 2


async def test_losses_are_accepted_only_when_asked_for_and_the_bucket_is_there(site: Site) -> None:
    """Nothing is marked until that is asked for, and a bucket that is away marks nothing even then."""
    site = with_settings(site, reconcile_window_keys=200)
    for n in range(120):
        async with site.database.transaction() as conn:
            stored = StoredObject(
                id=keys.new_id(datetime.now(UTC)), bucket=site.storage.default_bucket, key=f"{n}.jpg", etag="e",
                size_bytes=3, content_type="image/jpeg",
            )  # fmt: skip
            await ingest.record(conn, stored, site.jobs)
    assert await reconcile(site) == {"original_missing": {"left": 120}}
    await site.blobs._client.delete_bucket(Bucket=site.storage.default_bucket)
    assert await reconcile(replace(site, accept_losses=True)) == {"bucket_missing": {"left": 1}}
    assert await value(site.database, "select count(*) from object where deleted_at is not null") == 0
    await site.blobs.ensure_bucket(site.storage.default_bucket)
    assert await reconcile(replace(site, accept_losses=True)) == {"original_missing": {"repaired": 120}}


@pytest.mark.parametrize("finding", ["preview_missing", "preview_changed", "preview_outdated"])
async def test_a_preview_that_is_not_as_it_should_be_is_made_again(site: Site, finding: str) -> None:
    """The preview job is ready again with all its attempts and the photo is processing; once run, all agrees."""
    photo_id = await upload(site)
    await process(site, photo_id)
    thumb = f"{site.storage.default_bucket}/a.jpg/thumb.webp"
    wanted = site
    if finding == "preview_missing":
        await site.blobs.delete(site.storage.derived_bucket, thumb)
    elif finding == "preview_changed":
        await site.blobs.put(site.storage.derived_bucket, thumb, b"vandal", content_type="image/webp")
    else:
        larger = Preset(name="large", max_side_px=2560, format="webp", quality=80)
        wanted = replace(site, jobs=replace(site.jobs, presets=(*site.jobs.presets, larger)))
    assert await reconcile(wanted) == {finding: {"repaired": 1}}
    (job,) = await fetch(site.database, "select * from job where processor = 'preview'")
    assert (job["state"], job["attempt"], job["outcome"]) == ("ready", 0, None)
    assert (await photo(site.database, photo_id))["status"] == "processing"
    assert await reconcile(wanted) == {}
    claim = await take(site.database, job["id"])
    artifacts = [await put_preview(wanted, claim, preset) for preset in wanted.jobs.presets]
    await in_transaction(site.database, partial(jobs.finish, claim=claim, version=1, artifacts=artifacts))
    assert (await photo(site.database, photo_id))["status"] == "ready"
    assert await reconcile(wanted) == {}


def with_hooks(site: Site, text: str) -> Site:
    """With rules for the bucket of this test, which they call B."""
    return replace(site, jobs=replace(site.jobs, hooks=parse_hooks(text.replace("B", site.storage.default_bucket))))


async def test_where_nobody_watches_only_known_photos_are_kept_up(site: Site) -> None:
    """Objects under an unwatched prefix are neither recorded nor counted, photos or not; a known photo there that was
    replaced is recorded with all its jobs, so that no preview of the old bytes is shown."""
    site = with_hooks(site, "B,B/scratch/:none,B/facts/:exif")
    known = await upload(site, "scratch/known.jpg")
    await process(site, known)
    for key in ("scratch/a.jpg", "scratch/notes.txt", "scratch/odd\x01.jpg", "facts/a.jpg", "a.jpg"):
        await put(site, key, b"some text" if key.endswith(".txt") else PHOTO)
    assert await reconcile(replace(site, dry_run=True)) == {"unrecorded_object": {"left": 2}}
    assert await reconcile(site) == {"unrecorded_object": {"repaired": 2}}
    await put(site, "scratch/known.jpg", OTHER_PHOTO)
    assert await reconcile(site) == {"unrecorded_generation": {"repaired": 1}}
    rows = await fetch(
        site.database,
        """
        select key, array_agg(processor order by job.id) as processors from object join job on object_id = object.id
        where superseded_at is null group by key
        """,
    )
    assert {row["key"]: row["processors"] for row in rows} == {
        "scratch/known.jpg": ["preview", "exif"],
        "facts/a.jpg": ["exif"],
        "a.jpg": ["preview", "exif"],
    }
    assert await reconcile(site) == {}


@pytest.mark.parametrize("hooks", ["B:preview+exif:thumb", "B:exif", "B:none", "elsewhere"])
async def test_previews_that_a_hook_no_longer_asks_for_stay(site: Site, hooks: str) -> None:
    """A hook that was narrowed makes nothing of what there is outdated, missing or orphaned."""
    photo_id = await upload(site)
    await process(site, photo_id)
    narrowed = with_hooks(site, hooks)
    before = await snapshot(site)
    assert await reconcile(narrowed) == {}
    after = await snapshot(site)
    assert {name for name in before if before[name] != after[name]} == {"reconcile"}
    changed = replace(narrowed.jobs, presets=tuple(replace(item, quality=50) for item in site.jobs.presets))
    wanted = {"preview_outdated": {"repaired": 1}} if "preview" in hooks else {}
    assert await reconcile(replace(narrowed, jobs=changed)) == wanted


async def test_of_a_narrow_hook_only_what_it_asks_for_is_missed(site: Site) -> None:
    """Photos that never had the other presets and jobs lack nothing; once the hook asks for more, that is found."""
    narrow = with_hooks(site, "B:preview:thumb")
    thumb = replace(site, jobs=replace(site.jobs, presets=site.jobs.presets[:1]))
    await process(thumb, await upload(narrow))
    assert await reconcile(narrow) == {}
    await site.blobs.delete(site.storage.derived_bucket, f"{site.storage.default_bucket}/a.jpg/thumb.webp")
    assert await reconcile(replace(narrow, dry_run=True)) == {"preview_missing": {"left": 1}}
    assert await reconcile(with_hooks(site, "B:preview")) == {"preview_outdated": {"repaired": 1}}
    assert await reconcile(site) == {"job_missing": {"left": 1}}


async def test_a_bucket_that_a_hook_names_is_looked_at_before_it_has_photos(site: Site, bucket_prefix: str) -> None:
    """Photos that were put there by other means are found, though Postgres knows nothing of that bucket; a bucket that
    does not exist, or that nobody watches, is nobody's trouble."""
    archive, scratch = f"{bucket_prefix}-archive", f"{bucket_prefix}-scratch"
    for name in (archive, scratch):
        await site.blobs.ensure_bucket(name)
        await site.blobs.put(name, "raw/a.jpg", PHOTO, content_type="image/jpeg")
    assert await reconcile(site) == {}
    hooked = with_hooks(site, f"*,{archive}/raw/,{scratch}:none,{bucket_prefix}-absent:exif")
    assert await reconcile(hooked) == {"unrecorded_object": {"repaired": 1}}
    (row,) = await fetch(site.database, "select bucket, key from object")
    assert (row["bucket"], row["key"]) == (archive, "raw/a.jpg")


@pytest.fixture
def own_seaweedfs(tmp_path: Path) -> Iterator[SeaweedFS]:
    """A storage whose buckets are those of this test alone, and `photos`, which it makes itself."""
    server = SeaweedFS(tmp_path / "seaweedfs")
    server.start()
    yield server
    server.kill()


async def test_buckets_that_nobody_named_are_found_where_that_is_wanted(
    site: Site, bucket_prefix: str, own_seaweedfs: SeaweedFS
) -> None:
    """With a hook for every bucket, and `all` asked for, a bucket that was written to while no gateway ran is gone
    through, but never those of previews and of rejected photos; without it, or without such a hook, it is not."""
    storage = replace(
        site.storage,
        s3_endpoint=own_seaweedfs.url,
        s3_access_key=own_seaweedfs.access_key,
        s3_secret_key=own_seaweedfs.secret_key,
        quarantine_bucket=f"{bucket_prefix}-rejected",
    )
    async with Blobs(storage) as blobs:
        alone = replace(site, blobs=blobs, storage=storage)
        for name in ("photos", "derived", "rejected", "late"):
            await blobs.ensure_bucket(f"{bucket_prefix}-{name}")
            await blobs.put(f"{bucket_prefix}-{name}", "a.jpg", PHOTO, content_type="image/jpeg")
        everywhere = with_settings(alone, reconcile_buckets="all")
        named = replace(everywhere, jobs=job_settings("redis://unused", hooks=parse_hooks(f"{bucket_prefix}-photos")))
        found = {
            name: {part.bucket.removeprefix(bucket_prefix) for part in await list_parts(one) if not part.derived}
            for name, one in (("known", alone), ("all", everywhere), ("named", named))
        }
        assert found == {"known": {"-photos"}, "all": {"photos", "-photos", "-late"}, "named": {"-photos"}}
        await reconcile(everywhere)
    rows = await fetch(site.database, "select bucket from object order by bucket")
    assert [row["bucket"] for row in rows] == [f"{bucket_prefix}-late", f"{bucket_prefix}-photos"]


async def test_a_rejected_photo_is_left_alone(site: Site) -> None:
    """A photo that can never be processed is not made to try again, though it lacks its previews."""
    photo_id = await upload(site)
    for row in await fetch(site.database, "select id, processor from job where object_id = $1", photo_id):
        claim = await take(site.database, row["id"])
        end: Any = partial(jobs.finish, version=1)
        if row["processor"] == "exif":
            end = partial(jobs.reject, code="malformed", detail="It is broken.")
        await in_transaction(site.database, partial(end, claim=claim))
    assert (await photo(site.database, photo_id))["status"] == "rejected"
    before = await snapshot(site)
    assert await reconcile(replace(site, dry_run=True)) == {}
    assert await reconcile(site) == {}
    after = await snapshot(site)
    assert {name for name in before if before[name] != after[name]} == {"reconcile"}


async def test_previews_of_ours_without_a_photo_are_deleted(site: Site) -> None:
    """An orphan is deleted where Postgres knows its deleted photo, and where Postgres forgot it altogether."""
    bucket = site.storage.default_bucket
    deleted, forgotten, kept = [await upload(site, key) for key in ("deleted.jpg", "dir/forgotten.jpg", "kept.jpg")]
    for photo_id in (deleted, forgotten, kept):
        await process(site, photo_id)
    await in_transaction(site.database, partial(objects.mark_deleted, bucket=bucket, key="deleted.jpg"))
    async with site.database.connection() as conn:
        await conn.execute("delete from garbage")  # as if its sweep had been lost
    await forget(site, forgotten)
    for key in ("deleted.jpg", "dir/forgotten.jpg"):
        await site.blobs.delete(bucket, key)
    assert await reconcile(site) == {"orphaned_preview": {"repaired": 4}}
    left = {f"{bucket}/kept.jpg/thumb.webp", f"{bucket}/kept.jpg/preview.jpg"}
    assert await list_keys(site, site.storage.derived_bucket) == left


async def test_derived_objects_that_are_not_provably_orphans_are_left_alone(site: Site) -> None:
    """Nothing is deleted that lacks our metadata, lies elsewhere than it says, or whose original may be there."""
    bucket, derived = site.storage.default_bucket, site.storage.derived_bucket
    ours = {"source-id": str(uuid.uuid4()), "source-etag": "e", "preset": "thumb", "preset-version": "v"}
    foreign = {
        f"{bucket}/gone.jpg/thumb.webp": {},
        f"{bucket}/gone2.jpg/thumb.webp": {**ours, "source-id": "not-an-id"},
        f"{bucket}/gone3.jpg/other.webp": ours,  # made of another preset than its name says
        f"{bucket}/there.jpg/thumb.webp": ours,  # the original is in the storage
        f"{bucket}/known.jpg/thumb.webp": ours,  # a photo of that key is known
        f"{bucket}/sha256-{'0' * 64}/thumb.webp": {**ours, "preset": "preview"},
        "no-such-bucket/gone.jpg/thumb.webp": ours,
        "readme.txt": {},
    }
    for key, metadata in foreign.items():
        await site.blobs.put(derived, key, b"theirs", content_type="image/webp", metadata=metadata)
    known = await upload(site, "known.jpg")
    async with site.database.connection() as conn:
        await conn.execute("update job set state = 'dead', finished_at = now() where object_id = $1", known)
    await put(site, "there.jpg", b"no photo, but an original nevertheless")
    assert await reconcile(site) == {"not_a_photo": {"left": 1}, "unknown_derived": {"left": len(foreign)}}
    assert await list_keys(site, derived) == set(foreign)
    await site.blobs.delete(bucket, "known.jpg")  # what its row says counts, until the loss is confirmed
    place = await run_pass(site, Part(bucket=derived, derived=True), restart=True, watch=ignore)
    assert place is not None
    assert place.findings == {"unknown_derived": {"left": len(foreign)}}


async def test_a_preview_that_is_being_made_is_no_orphan(site: Site) -> None:
    """A worker that has put a preview but not finished yet does not lose it."""
    photo_id = await upload(site)
    (row,) = await fetch(site.database, "select id from job where object_id = $1 and processor = 'preview'", photo_id)
    claim = await take(site.database, row["id"])
    await put_preview(site, claim, site.jobs.presets[0])
    assert await reconcile(site) == {}
    assert len(await list_keys(site, site.storage.derived_bucket)) == 1


async def test_multipart_uploads_of_dead_gateways_are_aborted_and_others_are_not(site: Site) -> None:
    """Only an upload that was begun right after the row of a silent owner is aborted; those of living owners, of
    others, and of another time stay."""
    dangling = await begin_multipart(site, "dangling.jpg")
    alive = await begin_multipart(site, "alive.jpg")
    foreign = await begin_multipart(site, "foreign.jpg")
    later = await begin_multipart(site, "later.jpg")
    longer = await begin_multipart(site, "dangling.jpg.more")
    await name_multipart(site, "dangling.jpg", silent_seconds=61)
    await name_multipart(site, "alive.jpg", silent_seconds=5)
    await name_multipart(site, "later.jpg", silent_seconds=900, age_seconds=1000)
    assert await reconcile(site) == {"dangling_upload": {"repaired": 1}}
    assert await open_uploads(site) == {alive, foreign, later, longer}
    assert [row["key"] for row in await fetch(site.database, "select key from multipart")] == ["alive.jpg"]
    old = with_settings(site, dangling_hours=0)
    assert await reconcile(old) == {"foreign_upload": {"left": 3}}
    assert await open_uploads(site) == {alive, foreign, later, longer}
    assert await reconcile(replace(old, abort_foreign=True)) == {"foreign_upload": {"repaired": 3}}
    assert await open_uploads(site) == {alive}
    assert dangling not in await open_uploads(site)


async def test_stuck_jobs_are_counted_and_left_to_the_dispatchers(site: Site) -> None:
    """Leases that ended long ago, due jobs that nobody sends and photos without a job are found; none is changed."""
    photo_id = await upload(site)
    async with site.database.connection() as conn:
        await conn.execute("delete from job where processor = 'exif'")
        await conn.execute("update job set run_at = now() - interval '1 hour'")
    assert await reconcile(site) == {"job_overdue": {"left": 1}, "job_missing": {"left": 1}}
    (row,) = await fetch(site.database, "select id from job where object_id = $1", photo_id)
    await take(site.database, row["id"])
    async with site.database.connection() as conn:
        await conn.execute("update job set lease_until = now() - interval '1 minute'")
    assert await reconcile(site) == {"lease_expired": {"left": 1}, "job_missing": {"left": 1}}


async def break_everything(site: Site) -> dict[str, int]:
    """One of most findings. Returns how often each is there to be found and repaired."""
    bucket, derived = site.storage.default_bucket, site.storage.derived_bucket
    names = ("lost.jpg", "changed.jpg", "missing.jpg", "vandal.jpg", "orphan.jpg", "fine.jpg")
    ids = {name: await upload(site, name) for name in names}
    for photo_id in ids.values():
        await process(site, photo_id)
    await put(site, "new.jpg")
    await put(site, "changed.jpg", OTHER_PHOTO)
    await site.blobs.delete(bucket, "lost.jpg")
    await site.blobs.delete(derived, f"{bucket}/missing.jpg/thumb.webp")
    await site.blobs.put(derived, f"{bucket}/vandal.jpg/thumb.webp", b"vandal", content_type="image/webp")
    await forget(site, ids["orphan.jpg"])
    await site.blobs.delete(bucket, "orphan.jpg")
    await begin_multipart(site, "dangling.jpg")
    await name_multipart(site, "dangling.jpg", silent_seconds=61)
    return {
        "unrecorded_object": 1,
        "unrecorded_generation": 1,
        "original_missing": 1,
        "preview_missing": 1,
        "preview_changed": 1,
        "orphaned_preview": 2,
        "dangling_upload": 1,
    }


async def test_a_dry_run_finds_everything_and_changes_nothing(site: Site) -> None:
    """Not a row and not an object differs after a dry run, and it found what the repair then repairs."""
    expected = await break_everything(site)
    before = await snapshot(site)
    found = await reconcile(replace(site, dry_run=True))
    assert await snapshot(site) == before
    assert found == {name: {"left": times} for name, times in expected.items()}
    repaired = await reconcile(replace(site, accept_losses=True))
    assert repaired == {name: {"repaired": times} for name, times in expected.items()}
    assert await reconcile(site) == {}


async def test_a_cancelled_run_goes_on_where_it_stopped(site: Site) -> None:
    """What is cancelled in its third window is continued from there, with what it found before; a restart is not."""
    for n in range(45):
        await put(site, f"{n:03}.jpg")
    part = Part(bucket=site.storage.default_bucket)
    seen: list[int] = []

    def cancel_in_third(_part: Part, place: Place) -> None:
        seen.append(place.keys)
        if place.keys == 20:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run_pass(site, part, restart=False, watch=cancel_in_third)
    assert await value(site.database, "select count(*) from object") == 20
    again: list[int] = []
    place = await run_pass(site, part, restart=False, watch=lambda _, place: again.append(place.keys))
    assert (seen, again[0]) == ([0, 10, 20], 20)
    assert place is not None
    assert place.findings == {"unrecorded_object": {"repaired": 45}}
    assert await value(site.database, "select count(*) from object") == 45
    with pytest.raises(asyncio.CancelledError):
        await run_pass(site, part, restart=False, watch=cancel_in_third)
    restarted: list[int] = []
    await run_pass(site, part, restart=True, watch=lambda _, place: restarted.append(place.keys))
    assert restarted[0] == 0


async def test_only_one_reconciles_a_bucket_at_a_time(site: Site) -> None:
    """While somebody holds a bucket a second run of it says so and does nothing; other buckets are free."""
    await put(site, "a.jpg")
    part = Part(bucket=site.storage.default_bucket)
    async with reconciliation.hold(site.database, part.bucket):
        assert await run_pass(site, part, restart=False, watch=ignore) is None
        other = Part(bucket=site.storage.derived_bucket, derived=True)
        assert await run_pass(site, other, restart=False, watch=ignore) is not None
        assert await value(site.database, "select count(*) from object") == 0
    assert await run_pass(site, part, restart=False, watch=ignore) is not None
    assert await value(site.database, "select count(*) from object") == 1


async def test_a_prefix_limits_what_is_looked_at(site: Site) -> None:
    """With a prefix nothing outside it is recorded."""
    for key in ("in/a.jpg", "in/b.jpg", "out/a.jpg", "inside.jpg"):
        await put(site, key)
    found = await reconcile(site, bucket=site.storage.default_bucket, prefix="in/")
    assert found == {"unrecorded_object": {"repaired": 2}}
    assert {row["key"] for row in await fetch(site.database, "select key from object")} == {"in/a.jpg", "in/b.jpg"}


async def record_listed(site: Site, names: list[str]) -> None:
    """Rows with ready jobs for objects that lie in the storage, all at once."""
    bucket, wanted, after, more = site.storage.default_bucket, set(names), "", True
    async with site.database.transaction() as conn:
        while more:
            page, more = await site.blobs.list_page(bucket, after=after)
            after = page[-1].key
            found = [item for item in page if item.key in wanted]
            await conn.execute(
                """
                insert into object (id, bucket, key, etag, size_bytes, content_type)
                select gen_random_uuid(), $1, key, etag, 3, 'image/jpeg'
                from unnest($2::text[], $3::text[]) as found (key, etag)
                """,
                bucket,
                [item.key for item in found],
                [item.etag for item in found],
            )
        await conn.execute(
            """
            insert into job (object_id, processor, version, max_attempts)
            select id, processor, 1, 8 from object, unnest(array['preview', 'exif']) as processor
            """
        )


async def test_memory_does_not_grow_with_the_number_of_keys(site: Site) -> None:
    """Going through 2,700 keys takes hardly more memory than going through 300, and misses none of what differs."""
    site = with_settings(site, reconcile_window_keys=100)
    names = [f"few/{n:04}.jpg" for n in range(300)] + [f"many/{n:04}.jpg" for n in range(2700)]
    slots = asyncio.Semaphore(16)

    async def put_one(name: str) -> None:
        async with slots:
            await put(site, name, b"\xff\xd8\xff" + name.encode())

    await asyncio.gather(*(put_one(name) for name in names))
    await record_listed(site, [name for name in names if not name.endswith("7.jpg")])
    peaks: dict[str, int] = {}
    for prefix, unknown in (("few/000", 1), ("few/", 29), ("many/", 270)):  # the first one fills caches
        tracemalloc.start()
        found = await reconcile(site, bucket=site.storage.default_bucket, prefix=prefix)
        peaks[prefix] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == {"unrecorded_object": {"repaired": unknown}}
    assert await value(site.database, "select count(*) from object") == 3000
    assert peaks["many/"] < 1.5 * peaks["few/"], peaks


async def test_it_is_safe_beside_uploads_and_deletions(site: Site) -> None:
    """With no grace period at all, while photos are uploaded, overwritten and deleted, passes lose none of them, bring
    none back, and leave both sides in agreement."""
    bucket = site.storage.default_bucket
    kept: dict[str, bytes] = {}
    done = asyncio.Event()

    async def client(number: int) -> None:
        for n in range(20):
            key = f"{number}/{n}.jpg"
            data = PHOTO + bytes([number, n])
            await upload(site, key, data)
            if n % 4 == 1:
                data += b"again"
                await upload(site, key, data)
            if n % 4 == 2:
                await remove(key)
            else:
                kept[key] = data

    async def remove(key: str) -> None:
        async with site.database.transaction() as conn:  # as the REST door does
            await objects.lock_key(conn, bucket, key)
            await site.blobs.delete(bucket, key)
            await objects.mark_deleted(conn, bucket, key)

    async def passes() -> int:
        count = 0
        while not done.is_set():
            found = await reconcile(site)
            assert not found.keys() & {"original_missing", "orphaned_preview", "dangling_upload"}, found
            count += 1
        return count

    running = asyncio.create_task(passes())
    await asyncio.gather(*(client(number) for number in range(4)))
    done.set()
    assert await running >= 2
    await reconcile(site)
    assert await reconcile(site) == {}
    current = await fetch(
        site.database, "select key, etag from object where superseded_at is null and deleted_at is null"
    )
    assert {row["key"] for row in current} == set(kept)
    for row in current:
        assert await site.blobs.read(bucket, row["key"], etag=row["etag"]) == kept[row["key"]]


async def test_turns_make_a_pass_and_then_rest(site: Site) -> None:
    """Each turn takes one window; after a whole pass the bucket rests, but dangling uploads are aborted at once."""
    for n in range(25):
        await put(site, f"{n:03}.jpg")
    tally = Tally()
    counts = []
    while True:
        await take_turn(site, tally)
        counts.append(await value(site.database, "select count(*) from object"))
        if await value(site.database, "select count(*) = 2 from reconcile where finished_at is not null"):
            break
        assert len(counts) < 30
    assert counts[:3] == [10, 20, 25]
    assert tally.counts["unrecorded_object"] == {"repaired": 25}
    await put(site, "later.jpg")
    await begin_multipart(site, "dangling.jpg")
    await name_multipart(site, "dangling.jpg", silent_seconds=61)
    await take_turn(site, tally)
    assert await open_uploads(site) == set()
    assert await value(site.database, "select count(*) from object") == 25
    await take_turn(with_settings(site, reconcile_pass_seconds=0.001), tally)
    assert await value(site.database, "select count(*) from reconcile where finished_at is null") == 1


async def test_an_outage_skips_turns_and_no_more(site: Site, servers: Servers) -> None:
    """While the storage is down turns are skipped, nothing is taken for lost, and it goes on by itself afterwards."""
    photo_id = await upload(site)
    often = with_settings(site, reconcile_interval_seconds=0.05, reconcile_pass_seconds=1)
    turns: list[Tally] = []
    task = asyncio.create_task(keep_reconciling(often, turns.append))
    try:
        servers.seaweedfs.kill()
        began = len(turns)

        async def some_turns() -> bool:
            return len(turns) >= began + 3

        await until(some_turns, seconds=30, what="turns during the outage")
        servers.heal()

        async def stored() -> bool:
            with contextlib.suppress(Exception):
                await put(site, "later.jpg")
                return True
            return False

        await until(stored, seconds=30, what="the storage is back")

        async def recorded() -> bool:
            return bool(await value(site.database, "select count(*) from object where key = 'later.jpg'"))

        await until(recorded, seconds=30, what="the photo that came after the outage")
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await photo(site.database, photo_id))["deleted_at"] is None


@pytest.fixture
async def token(database: Database) -> str:
    credential = credentials.generate()

    async def create(conn: Connection) -> None:
        await credentials.create(conn, credential, name="prometheus", scopes=["read"])

    await in_transaction(database, create)
    return credential.token


async def test_a_gateway_reconciles_by_itself_and_shows_it_in_its_metrics(site: Site, stage: Stage, token: str) -> None:
    """A photo put into the storage is found by a running gateway; /metrics tells, and only to who has a key."""
    await put(site, "a.jpg")
    more = {"reconcile_interval_seconds": "0.05", "reconcile_grace_seconds": "0", "http_port": "0", "s3_port": "0"}
    ports = stage._folder / "gateway.json"
    stage.start("gateway", ports_file=str(ports), **more)

    async def listening() -> str | None:
        return json.loads(ports.read_text())["http_url"] if ports.exists() else None

    url = await until(listening, seconds=20, what="the gateway listens")
    async with aiohttp.ClientSession(trust_env=False) as client:

        async def scrape() -> dict[str, float]:
            async with client.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status == 200
                assert answer.content_type == "text/plain"
                lines = (await answer.text()).splitlines()
            return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

        async def told() -> dict[str, float] | None:
            metrics = await scrape()
            passed = metrics["safelight_reconcile_last_pass_timestamp_seconds"] > 0
            return metrics if passed and metrics['safelight_jobs{processor="preview",state="ready"}'] else None

        metrics = await until(told, seconds=30, what="a whole pass, and the photo's job")
        async with client.get(f"{url}/metrics") as answer:
            assert answer.status == 401
    assert metrics['safelight_reconcile_findings_total{action="repaired",finding="unrecorded_object"}'] == 1
    for name in ("postgres", "s3", "redis"):
        assert metrics[f'safelight_dependency_up{{dependency="{name}"}}'] == 1
    assert metrics['safelight_dependency_down_since_timestamp_seconds{dependency="s3"}'] == 0
    assert metrics['safelight_oldest_ready_job_age_seconds{processor="preview"}'] > 0
    assert metrics["safelight_dispatch_last_success_timestamp_seconds"] > 1e9
    assert metrics["safelight_redis_stream_depth"] >= 1
    assert metrics["safelight_uploads_waiting"] == 0


class Command:
    """`safelight reconcile` as a user runs it."""

    def __init__(self, site: Site) -> None:
        storage = site.storage
        self._environment = {
            "PATH": os.defpath,
            "SAFELIGHT_POSTGRES_DSN": storage.postgres_dsn,
            "SAFELIGHT_REDIS_URL": site.jobs.redis_url,
            "SAFELIGHT_S3_ENDPOINT": str(storage.s3_endpoint),
            "SAFELIGHT_S3_ACCESS_KEY": storage.s3_access_key,
            "SAFELIGHT_S3_SECRET_KEY": storage.s3_secret_key,
            "SAFELIGHT_DEFAULT_BUCKET": storage.default_bucket,
            "SAFELIGHT_DERIVED_BUCKET": storage.derived_bucket,
            "SAFELIGHT_RECONCILE_GRACE_SECONDS": "0",
            "SAFELIGHT_LOG_LEVEL": "error",
        }

    async def run(self, *options: str, **more: str) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "safelight", "reconcile", *options,
            env=self._environment | more, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()


@pytest.fixture
def command(site: Site) -> Command:
    return Command(site)


async def test_the_command_reports_repairs_and_says_so_by_its_exit_code(site: Site, command: Command) -> None:
    """Dry run with findings 1, repair 0, clean 0, something left 1; as a table for people and as JSON for programs."""
    await put(site, "a.jpg")
    code, output, errors = await command.run("--dry-run")
    assert (code, errors) == (1, "")
    assert "unrecorded_object" in output
    assert "Nothing was changed." in output
    code, output, errors = await command.run("--json")
    report = json.loads(output)
    assert (code, errors, report["complete"], report["dry_run"]) == (0, "", True, False)
    assert report["findings"] == {"unrecorded_object": {"found": 1, "repaired": 1, "left": 0}}
    code, output, _ = await command.run()
    assert (code, "Postgres and the storage agree." in output) == (0, True)
    await site.blobs.put(site.storage.derived_bucket, "readme.txt", b"theirs", content_type="text/plain")
    code, output, _ = await command.run()
    assert (code, "unknown_derived" in output, "left alone" in output) == (1, True, True)
    async with reconciliation.hold(site.database, site.storage.default_bucket):
        code, output, _ = await command.run()
    assert (code, f"Running elsewhere: {site.storage.default_bucket}." in output) == (1, True)


async def test_a_killed_command_goes_on_where_it_stopped(site: Site, command: Command, tmp_path: Path) -> None:
    """kill -9 after the first window keeps that window; the next run goes on there, and sums up both."""
    for n in range(25):
        await put(site, f"{n:03}.jpg")
    armed = {
        "SAFELIGHT_FAILPOINT": "reconcile.window_saved:kill:1",
        "SAFELIGHT_FAILPOINT_DIR": str(tmp_path),
        "SAFELIGHT_RECONCILE_WINDOW_KEYS": "10",
        "SAFELIGHT_RECONCILE_INTERVAL_SECONDS": "0",
    }
    assert (await command.run(**armed))[0] == -signal.SIGKILL
    assert await value(site.database, "select count(*) from object") == 10

    async def free() -> bool:
        async with reconciliation.hold(site.database, site.storage.default_bucket) as conn:
            return conn is not None

    await until(free, seconds=10, what="Postgres notices that the holder is gone")
    code, output, _ = await command.run("--json", **armed)
    assert code == 0
    assert json.loads(output)["findings"] == {"unrecorded_object": {"found": 25, "repaired": 25, "left": 0}}
    assert await value(site.database, "select count(*) from object") == 25


async def test_the_command_refuses_what_makes_no_sense_and_explains_an_outage(site: Site, command: Command) -> None:
    """A prefix without a bucket and the bucket of previews are wrong usage; a storage that is away is one sentence."""
    assert (await command.run("--prefix", "a/"))[0] == 2
    assert (await command.run("--bucket", site.storage.derived_bucket))[0] == 2
    assert (await command.run("--no-such-option"))[0] == 2
    code, output, errors = await command.run(SAFELIGHT_S3_ENDPOINT="http://127.0.0.1:9")
    assert (code, "Stopped early: BlobsUnavailable." in output, "Traceback" in errors) == (1, True, False)


def test_every_finding_is_explained() -> None:
    """docs/reconcile.md says of each finding what it means and what to do."""
    text = (Path(__file__).parents[2] / "docs" / "reconcile.md").read_text("utf-8")
    assert [name for name in FINDINGS if f"`{name}`" not in text] == []
