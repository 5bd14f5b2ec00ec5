"""Rejected photos of direct uploads are moved to a bucket for such, and nothing is lost on the way."""

from __future__ import annotations

import uuid
from typing import Any

from gateway.direct.sweeping import sweep
from gateway.reconcile import list_parts, run_pass
from gateway.repairs import Site
from storage import jobs, objects, quarantine
from storage.blobs import Blobs, NoSuchBlob
from storage.database import Database
from tests.integration.direct import PHOTO, App, StartApp
from tests.integration.hooked import TOKEN, minio_event
from tests.integration.stage import in_transaction, take, value
from tests.photos import make_jpeg, padded

MIB = 1 << 20
TEXT = b"A wedding, described in words. " * 40


async def upload(app: App, body: bytes = TEXT, key: str = "odd.jpg") -> dict[str, Any]:
    """The photo that a direct upload of these bytes becomes."""
    opened = await app.open(key=key, size_bytes=len(body))
    assert await app.put(opened, body) == (200, "")
    status, photo = await app.complete(opened)
    assert status == 201
    assert isinstance(photo, dict)
    return {**photo, "upload": opened}


async def read(blobs: Blobs, bucket: str, key: str) -> bytes | None:
    """The bytes of an object, None where there is none."""
    try:
        return await blobs.read(bucket, key, etag=(await blobs.head(bucket, key)).etag)
    except NoSuchBlob:
        return None


async def read_original(app: App, photo: dict[str, Any]) -> tuple[int, bytes]:
    bearer = {"Authorization": f"Bearer {app.credential.token}"}
    async with await app.client.get(f"/v1/photos/{photo['id']}/original", headers=bearer) as answer:
        return answer.status, await answer.read()


async def reconcile(app: App, *, accept_losses: bool = False) -> dict[str, Any]:
    context = app.context
    site = Site(
        database=context.database,
        blobs=context.blobs,
        settings=context.settings,
        jobs=context.jobs,
        storage=context.storage,
        accept_losses=accept_losses,
    )
    findings: dict[str, Any] = {}
    for part in await list_parts(site, bucket=app.bucket):
        place = await run_pass(site, part, restart=True, watch=lambda *_: None)
        assert place is not None
        findings |= {name: dict(actions) for name, actions in place.findings.items()}
    return findings


async def test_a_rejected_photo_is_moved(start_app: StartApp, blobs: Blobs, database: Database, bucket: str) -> None:
    """It leaves its bucket for the one of rejected photos, byte for byte; its row stays and says why and where; its
    original is read from there; reconcile finds nothing wrong, whatever losses it may accept."""
    app = await start_app(quarantine=True)
    photo = await upload(app)
    assert photo["rejection"]["code"] == "not_an_image"
    await sweep(app.context)
    seen = await app.look(photo["upload"])
    assert (seen["photo_status"], seen["rejection"]["code"]) == ("rejected", "not_an_image")
    place = seen["quarantine"]
    assert place == {"bucket": app.context.storage.quarantine_bucket, "key": f"{bucket}/{photo['id']}/odd.jpg"}
    assert await read(blobs, bucket, "odd.jpg") is None
    assert await read(blobs, place["bucket"], place["key"]) == TEXT
    assert await read_original(app, photo) == (200, TEXT)
    assert await reconcile(app, accept_losses=True) == {}
    assert (await app.ask("GET", f"/v1/photos/{photo['id']}"))[1]["status"] == "rejected"
    assert await value(database, "select count(*) from upload where closed_at is null") == 0
    await sweep(app.context)
    assert await read(blobs, place["bucket"], place["key"]) == TEXT


async def test_the_verdict_of_the_sandbox_moves_it_too(
    start_app: StartApp, blobs: Blobs, database: Database, bucket: str
) -> None:
    """A photo that a job rejects is moved once none of its jobs is left to do; a good one stays where it is."""
    app = await start_app(quarantine=True)
    bad, good = await upload(app, PHOTO, "bad.jpg"), await upload(app, make_jpeg(32, 32), "good.jpg")
    rows = await in_transaction(database, lambda conn: conn.fetch("select id, object_id, processor from job"))
    for row in rows:
        claim = await take(database, row["id"])
        if str(row["object_id"]) == bad["id"] and row["processor"] == "preview":
            async with database.transaction() as conn:
                await jobs.reject(conn, claim, code="malformed", detail="No.")
            await sweep(app.context)
            assert await read(blobs, bucket, "bad.jpg") == PHOTO  # its EXIF is still to be read
        else:
            async with database.transaction() as conn:
                await jobs.finish(conn, claim, version=1)
    await sweep(app.context)
    assert await read(blobs, bucket, "bad.jpg") is None
    assert await read_original(app, bad) == (200, PHOTO)
    assert await read(blobs, bucket, "good.jpg") == make_jpeg(32, 32)
    assert (await app.look(good["upload"]))["quarantine"] is None
    assert await value(database, "select count(*) from upload where closed_at is null") == 0


async def test_without_a_bucket_for_them_they_stay(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """Where no quarantine is configured a rejected photo is only reported; by other doors than direct uploads it stays
    where its client put it, in any case."""
    app = await start_app()
    photo = await upload(app)
    await sweep(app.context)
    assert await read(blobs, bucket, "odd.jpg") == TEXT
    assert await read_original(app, photo) == (200, TEXT)
    other = await start_app(quarantine=True)
    bearer = {"Authorization": f"Bearer {other.credential.token}"}
    async with await other.client.put(f"/v1/photos/{bucket}/rest.jpg", data=PHOTO, headers=bearer) as answer:
        rest = await answer.json()
    async with other.context.database.connection() as conn:
        await conn.execute(
            "update object set status = 'rejected', rejection = '{\"code\": \"x\"}', settled_at = now() where id = $1",
            uuid.UUID(rest["id"]),
        )
    await sweep(other.context)
    assert await read(blobs, bucket, "rest.jpg") == PHOTO


async def test_the_event_of_its_removal_is_no_news(
    start_app: StartApp, blobs: Blobs, database: Database, bucket: str
) -> None:
    """The storage's event of the move does not delete the photo, nor does whoever else finds its key empty. Only DELETE
    does: the copy goes with it, and what was put under its key meanwhile stays."""
    app = await start_app(quarantine=True, hook_token=TOKEN)
    photo = await upload(app)
    await sweep(app.context)
    place = (await app.look(photo["upload"]))["quarantine"]
    event, bearer = minio_event(bucket, "odd.jpg", "removed"), {"Authorization": f"Bearer {TOKEN}"}
    async with await app.client.post("/hooks/bucket-events", json=event, headers=bearer) as answer:
        assert answer.status == 200
    assert await in_transaction(database, lambda conn: objects.mark_deleted(conn, bucket, "odd.jpg")) is None
    assert (await app.ask("GET", f"/v1/photos/{photo['id']}"))[0] == 200
    await blobs.put(bucket, "odd.jpg", PHOTO, content_type="image/jpeg")
    assert (await app.ask("DELETE", f"/v1/photos/{photo['id']}"))[0] == 204
    assert await read(blobs, place["bucket"], place["key"]) is None
    assert await read(blobs, bucket, "odd.jpg") == PHOTO
    assert await reconcile(app) == {"unrecorded_object": {"repaired": 1}}


async def test_what_replaced_it_meanwhile_is_not_deleted(
    start_app: StartApp, blobs: Blobs, database: Database, bucket: str
) -> None:
    """Other bytes under the key of a photo that is on its way are left alone, copied or not, recorded or not."""
    app = await start_app(quarantine=True)
    early = await upload(app, TEXT, "early.jpg")
    await blobs.put(bucket, "early.jpg", PHOTO, content_type="image/jpeg")
    late = await upload(app, TEXT, "late.jpg")
    late_id = uuid.UUID(late["id"])
    target = (app.context.storage.quarantine_bucket, f"{bucket}/{late_id}/late.jpg")
    await blobs.ensure_bucket(target[0])
    async with database.connection() as conn:  # as it is after the copy
        await quarantine.plan(conn, late_id, *target)
        await quarantine.mark_copied(
            conn, late_id, await app.context.blobs.copy((bucket, "late.jpg"), target, etag=late["etag"])
        )
    await blobs.put(bucket, "late.jpg", PHOTO, content_type="image/jpeg")
    await sweep(app.context)
    assert await read(blobs, bucket, "early.jpg") == PHOTO
    assert await read(blobs, bucket, "late.jpg") == PHOTO
    assert await read(blobs, *target) == TEXT
    assert await reconcile(app) == {"unrecorded_generation": {"repaired": 2}}
    assert await read(blobs, *target) == TEXT
    assert (await app.look(early["upload"]))["quarantine"] is None


async def test_an_original_is_not_deleted_without_its_copy(
    start_app: StartApp, blobs: Blobs, database: Database, bucket: str
) -> None:
    """Where the copy is gone or is not what was copied, the original stays."""
    app = await start_app(quarantine=True)
    await blobs.ensure_bucket(app.context.storage.quarantine_bucket)
    for number, tampered in enumerate([b"something else", None]):
        key = f"{number}.jpg"
        photo = await upload(app, TEXT, key)
        target = (app.context.storage.quarantine_bucket, f"{bucket}/{photo['id']}/{key}")
        async with database.connection() as conn:
            await quarantine.plan(conn, uuid.UUID(photo["id"]), *target)
            await quarantine.mark_copied(conn, uuid.UUID(photo["id"]), photo["etag"])
        if tampered:
            await blobs.put(*target, tampered, content_type="image/jpeg")
        await sweep(app.context)
        assert await read(blobs, bucket, key) == TEXT


async def test_what_came_in_parts_is_moved_whole(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """The copy of an object that was put together of parts holds the same bytes, whatever ETag the storage gives it."""
    app = await start_app(quarantine=True)
    body = padded(PHOTO, 11 * MIB)
    opened = await app.open(
        method="multipart", key="big.png", size_bytes=len(body), part_bytes=5 * MIB, content_type="image/png"
    )
    for part in opened["parts"]:
        start = (part["number"] - 1) * 5 * MIB
        assert await app.send(part["url"], body[start : start + 5 * MIB]) == (200, "")
    _, photo = await app.complete(opened)
    assert (photo["status"], photo["rejection"]["code"]) == ("rejected", "wrong_type")
    await sweep(app.context)
    assert await read(blobs, bucket, "big.png") is None
    assert await read_original(app, photo) == (200, body)
