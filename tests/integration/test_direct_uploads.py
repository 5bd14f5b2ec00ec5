"""Direct uploads with real servers behind them: a client of plain HTTP puts bytes into the storage itself, and the
gateway makes a photo of what is there, however the client ends."""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from dataclasses import replace
from typing import Any

import pytest

from gateway import quarantine
from gateway.direct import sweeping
from gateway.direct.sweeping import Bookmark, sweep
from gateway.reconcile import list_parts, run_pass
from gateway.repairs import Site
from storage import objects
from storage.blobs import Blobs
from storage.database import Database
from tests.faults.harness.shim import Shim, Spoil
from tests.integration.direct import PHOTO, App, StartApp, opening_apps
from tests.integration.hooked import TOKEN, minio_event
from tests.integration.stage import fetch, value
from tests.photos import padded
from tests.servers import S3Backend, Servers

MIB = 1 << 20
BIG_PHOTO = padded(PHOTO, 11 * MIB)  # three parts of 5 MiB at most


async def stored_keys(blobs: Blobs, bucket: str) -> list[str]:
    return [item.key for item in (await blobs.list_page(bucket))[0]]


async def multiparts_in(blobs: Blobs, bucket: str) -> list[str]:
    return [item.key for item in (await blobs.list_uploads(bucket))[0]]


async def expire(database: Database) -> None:
    """As if the time of every address were over."""
    async with database.connection() as conn:
        await conn.execute("update upload set created_at = created_at - interval '1 d', expires_at = now()")


async def count(database: Database, table: str) -> int:
    return int(await value(database, f"select count(*) from {table}"))


async def tell(app: App, key: str) -> None:
    """What a storage would say of that key."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    event = minio_event(app.bucket, key)
    async with await app.client.post("/hooks/bucket-events", json=event, headers=bearer) as answer:
        assert answer.status == 200


async def reconcile(app: App, bucket: str) -> dict[str, Any]:
    """What a whole pass over the bucket of photos finds."""
    context = app.context
    site = Site(
        database=context.database,
        blobs=context.blobs,
        settings=context.settings,
        jobs=context.jobs,
        storage=context.storage,
    )
    (part, _) = await list_parts(site, bucket=bucket)
    place = await run_pass(site, part, restart=True, watch=lambda *_: None)
    assert place is not None
    return {name: dict(actions) for name, actions in place.findings.items()}


async def test_a_photo_is_put_into_the_storage_itself(
    start_app: StartApp, blobs: Blobs, database: Database, bucket: str
) -> None:
    """Open, PUT by plain HTTP, complete: one photo with its jobs, under a key of the server's; what the storage keeps
    is of the agreed kind; `complete` again answers the same photo, 200."""
    app = await start_app()
    upload = await app.open(filename="Übung 1.jpg", content_type="image/jpeg", size_bytes=len(PHOTO))
    assert upload["status"] == "open"
    assert re.fullmatch(rf"uploads/\d{{4}}/\d\d/\d\d/{upload['id']}/Übung 1\.jpg", upload["key"])
    assert await app.put(upload) == (200, "")
    status, photo = await app.complete(upload)
    assert (status, photo["bucket"], photo["key"]) == (201, bucket, upload["key"])
    assert (photo["status"], photo["content_type"], photo["size_bytes"]) == ("processing", "image/jpeg", len(PHOTO))
    assert photo["filename"] == "Übung 1.jpg"
    assert [job["processor"] for job in photo["jobs"]] == ["preview", "exif"]
    assert (await blobs.head(bucket, upload["key"])).content_type == "image/jpeg"
    again = await app.complete(upload)
    assert (again[0], again[1]["id"]) == (200, photo["id"])
    seen = await app.look(upload)
    assert (seen["status"], seen["photo_id"], seen["photo_status"]) == ("stored", photo["id"], "processing")
    assert (await count(database, "object"), await count(database, "job")) == (1, 2)


async def test_a_form_is_posted_to_the_storage_itself(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """The fields of the answer and a file make a form that the storage takes; completing it makes the photo, under the
    key that the client named."""
    app = await start_app()
    upload = await app.open(method="post", key="albums/größe & mehr.jpg", size_bytes=len(PHOTO))
    assert await app.post(upload) == (201, "")
    status, photo = await app.complete(upload)
    assert (status, photo["key"], photo["content_type"]) == (201, "albums/größe & mehr.jpg", "image/jpeg")
    assert (await blobs.head(bucket, photo["key"])).metadata["safelight-upload"] == upload["id"]


async def test_a_form_never_replaces_a_part_of_our_key(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """A file may be called ${filename}, which forms replace within a key: it lies under the key that was told, and has
    its name."""
    app = await start_app()
    upload = await app.open(method="post", filename="my ${filename}.jpg")
    assert await app.post(upload) == (201, "")
    assert await stored_keys(blobs, bucket) == [upload["key"]]
    status, photo = await app.complete(upload)
    assert (status, photo["key"], photo["filename"]) == (201, upload["key"], "my ${filename}.jpg")


async def test_a_large_photo_comes_in_parts(start_app: StartApp, blobs: Blobs, database: Database, bucket: str) -> None:
    """Parts in any order, addresses page by page or by number; what arrived is told, what is missing or not the part
    that was named is refused by its number; completed again, with a list of parts or without, it is the same photo."""
    app = await start_app()
    upload = await app.open(method="multipart", key="big.jpg", size_bytes=len(BIG_PHOTO), part_bytes=5 * MIB)
    assert [part["size_bytes"] for part in upload["parts"]] == [5 * MIB, 5 * MIB, MIB]
    pieces = [BIG_PHOTO[:5_242_880], BIG_PHOTO[5_242_880:10_485_760], BIG_PHOTO[10_485_760:]]
    path = f"/v1/uploads/{upload['id']}/parts"
    assert (await app.ask("POST", path, {"limit": 2}))[1]["next_after"] == 2
    status, page = await app.ask("POST", path, {"after": 2})
    assert (status, [part["number"] for part in page["parts"]], page["next_after"]) == (200, [3], None)
    assert await app.send(page["parts"][0]["url"], pieces[2]) == (200, "")
    assert await app.send(upload["parts"][0]["url"], pieces[0]) == (200, "")

    status, problem = await app.complete(upload)
    assert (status, problem["code"], problem["missing"]) == (409, "upload_incomplete", [2])
    seen = await app.look(upload)
    assert [(part["number"], part["size_bytes"]) for part in seen["arrived_parts"]] == [(1, 5 * MIB), (3, MIB)]
    _, page = await app.ask("POST", path, {"numbers": [2]})
    assert await app.send(page["parts"][0]["url"], pieces[1]) == (200, "")

    etags = [{"number": n, "etag": f'"{hashlib.md5(piece).hexdigest()}"'} for n, piece in enumerate(pieces, 1)]
    wrong = [{**etags[0], "etag": etags[1]["etag"]}, *etags[1:]]
    status, problem = await app.complete(upload, {"parts": wrong})
    assert (status, problem["code"], problem["missing"]) == (409, "upload_incomplete", [1])
    status, photo = await app.complete(upload, {"parts": etags})
    assert (status, photo["size_bytes"]) == (201, len(BIG_PHOTO))
    assert await blobs.read(bucket, "big.jpg", etag=photo["etag"]) == BIG_PHOTO
    assert (await app.complete(upload))[1]["id"] == photo["id"]
    assert await multiparts_in(blobs, bucket) == []
    assert await count(database, "multipart") == 0


async def test_parts_are_bounded_as_s3_bounds_them(start_app: StartApp) -> None:
    """A multipart upload needs its size, takes parts of 5 MiB to 5 GiB, and so large ones that 10,000 are enough."""
    app = await start_app(max_upload_bytes=48 << 30)
    upload = await app.open(method="multipart", size_bytes=40 << 30)
    assert (upload["part_count"] <= 10_000, upload["part_bytes"] % MIB, len(upload["parts"])) == (True, 0, 100)
    assert (await app.open(method="multipart", size_bytes=20 * MIB))["part_count"] == 3
    for body in (
        {},
        {"size_bytes": 40 << 30, "part_bytes": 5 * MIB - 1},
        {"size_bytes": 48 << 30, "part_bytes": 5 * MIB - 1},
        {"size_bytes": 20 * MIB, "part_bytes": (5 << 30) + 1},
    ):
        assert (await app.ask("POST", "/v1/uploads", {"method": "multipart", **body}))[0] == 422, body
    status, problem = await app.ask("POST", f"/v1/uploads/{upload['id']}/parts", {"numbers": [9_999]})
    assert (status, problem["code"]) == (422, "invalid_request")


def as_changed(upload: dict[str, Any], what: str, other_bucket: str) -> tuple[str, bytes, dict[str, str], str]:
    """URL, body, headers and method of a PUT, one of which is not what was agreed."""
    url, body, headers, method = upload["url"], PHOTO, dict(upload["headers"]), "PUT"
    match what:
        case "key":
            url = url.replace("/a.jpg?", "/b.jpg?")
        case "bucket":
            url = url.replace(f"/{upload['bucket']}/", f"/{other_bucket}/")
        case "expiry":
            url = re.sub("X-Amz-Expires=[0-9]+", "X-Amz-Expires=604800", url)
        case "signature":
            url = url[:-1] + ("0" if url[-1] != "0" else "1")
        case "metadata":
            headers["x-amz-meta-safelight-upload"] = str(uuid.uuid4())
        case "condition":
            del headers["If-None-Match"]
        case "type":
            headers["Content-Type"] = "text/html"
        case "size":
            body += b"x"
        case "method":
            method = "DELETE"
    assert (url, body, headers, method) != (upload["url"], PHOTO, upload["headers"], "PUT")
    return url, body, headers, method


async def test_a_changed_address_is_refused_by_the_storage(
    start_app: StartApp, blobs: Blobs, bucket: str, bucket_prefix: str
) -> None:
    """Whoever changes anything of a PUT's address, its headers or its length stores nothing; unchanged it is taken."""
    await blobs.ensure_bucket(f"{bucket_prefix}-other")
    app = await start_app()
    upload = await app.open(key="a.jpg", content_type="image/jpeg")
    for what in ("key", "bucket", "expiry", "signature", "metadata", "condition", "type", "size", "method"):
        sent = as_changed(upload, what, f"{bucket_prefix}-other")
        assert await app.send(*sent) == (403, "SignatureDoesNotMatch"), what
    assert await stored_keys(blobs, bucket) == []
    assert await app.put(upload) == (200, "")


async def test_a_changed_form_is_refused_by_the_storage(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """Whoever changes a field of a form stores nothing; unchanged it is taken."""
    app = await start_app()
    upload = await app.open(method="post", key="a.jpg")
    for field, text, refusal in (
        ("key", "b.jpg", "AccessDenied"),
        ("Content-Type", "text/html", "AccessDenied"),
        ("x-amz-meta-safelight-upload", "none", "AccessDenied"),
        ("policy", "e30=", "SignatureDoesNotMatch"),
        ("x-amz-signature", "0" * 64, "SignatureDoesNotMatch"),
    ):
        assert await app.post(upload, **{field: text}) == (403, refusal), field
    assert await stored_keys(blobs, bucket) == []
    assert await app.post(upload) == (201, "")


async def test_a_form_holds_to_the_promised_size(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """One byte more or less than was promised, and more than may ever be sent, is refused by the storage."""
    app = await start_app(max_upload_bytes=2 * len(PHOTO))
    promised, open_ended = await app.open(method="post", size_bytes=len(PHOTO)), await app.open(method="post")
    assert (await app.post(promised, PHOTO + b"x"))[1] == "EntityTooLarge"
    assert (await app.post(promised, PHOTO[:-1]))[1] == "EntityTooSmall"
    assert (await app.post(open_ended, padded(PHOTO, 2 * len(PHOTO) + 1)))[1] == "EntityTooLarge"
    assert await stored_keys(blobs, bucket) == []


async def test_what_never_arrived_is_told_so(start_app: StartApp, database: Database) -> None:
    """`complete` before the bytes: 409 that says where to send them and until when; nothing is recorded, and it may be
    completed once they are there."""
    app = await start_app()
    for method, hint in (("put", "PUT the bytes"), ("post", "POST the form")):
        upload = await app.open(method=method, size_bytes=len(PHOTO))
        status, problem = await app.complete(upload)
        assert (status, problem["code"]) == (409, "upload_not_arrived")
        assert hint in problem["detail"]
        assert upload["expires_at"][:19] in problem["detail"]
    assert await count(database, "object") == 0
    assert await app.post(upload) == (201, "")
    assert (await app.complete(upload))[0] == 201


async def test_nothing_is_ever_replaced(start_app: StartApp, blobs: Blobs, bucket: str, database: Database) -> None:
    """A key that is taken is refused; of two uploads to one key the storage takes the first, the other is told that
    something else lies there, and the photo is the first one's."""
    app = await start_app()
    first, second = await app.open(key="a.jpg"), await app.open(key="a.jpg")
    other = PHOTO[:-3] + b"?" + PHOTO[-2:]
    assert await app.put(first) == (200, "")
    assert await app.put(first, other) == (412, "PreconditionFailed")
    assert await app.put(second, other) == (412, "PreconditionFailed")
    status, problem = await app.complete(second)
    assert (status, problem["code"]) == (409, "key_taken")
    assert (await app.complete(first))[0] == 201
    assert (await app.complete(second))[1]["code"] == "key_taken"
    assert (await app.look(second))["status"] == "open"
    await blobs.put(bucket, "b.jpg", PHOTO, content_type="image/jpeg")  # known to the storage alone
    for key in ("a.jpg", "b.jpg"):
        status, problem = await app.ask("POST", "/v1/uploads", {"key": key, "size_bytes": 9})
        assert (status, problem["code"]) == (409, "key_taken")
    assert await blobs.read(bucket, "a.jpg", etag=hashlib.md5(PHOTO).hexdigest()) == PHOTO
    assert await count(database, "object") == 1


async def test_parts_never_replace_what_came_meanwhile(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """An object that somebody put under the key while the parts arrived stays: they are not put together over it."""
    app = await start_app()
    upload = await app.open(method="multipart", key="big.jpg", size_bytes=6 * MIB, part_bytes=6 * MIB)
    assert await app.send(upload["parts"][0]["url"], padded(PHOTO, 6 * MIB)) == (200, "")
    await blobs.put(bucket, "big.jpg", PHOTO, content_type="image/jpeg")
    assert (await app.complete(upload))[1]["code"] == "key_taken"
    assert (await blobs.head(bucket, "big.jpg")).size_bytes == len(PHOTO)


@pytest.mark.parametrize(
    ("body", "opened", "code"),
    [
        (b"<html><script>alert(1)</script>" * 9, {}, "not_an_image"),
        (b"BM" + bytes(99), {}, "unsupported_format"),
        (PHOTO, {"content_type": "image/png"}, "wrong_type"),
    ],
)
async def test_what_is_not_the_promised_photo_is_recorded_as_rejected(
    start_app: StartApp, database: Database, body: bytes, opened: dict[str, Any], code: str
) -> None:
    """It is a photo with the status rejected and the reason, at once and without any job; completing it again says the
    same, it is told as an event, and it can be deleted."""
    app = await start_app()
    upload = await app.open(key="odd.jpg", size_bytes=len(body), **opened)
    assert await app.put(upload, body) == (200, "")
    status, photo = await app.complete(upload)
    assert (status, photo["status"], photo["rejection"]["code"]) == (201, "rejected", code)
    assert photo["jobs"] == []
    assert photo["settled_at"]
    assert (await app.complete(upload))[1]["rejection"]["code"] == code
    seen = await app.look(upload)
    assert (seen["status"], seen["photo_status"], seen["rejection"]["code"]) == ("stored", "rejected", code)
    told = await fetch(database, "select type, data from event order by id")
    assert [row["type"] for row in told] == ["photo.stored", "photo.rejected"]
    assert told[1]["data"]["rejection"]["code"] == code
    assert (await app.ask("DELETE", f"/v1/photos/{photo['id']}"))[0] == 204
    assert (await app.complete(upload))[1]["code"] == "no_such_photo"
    assert await count(database, "job") == 0


async def test_what_a_storage_lets_pass_is_noticed(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """Where other bytes arrived than were signed for, fewer, more, none, or more than may ever be, the photo is
    rejected with the reason."""
    app = await start_app(max_upload_bytes=4000)
    for size_bytes, body, code in (
        (len(PHOTO) + 1, PHOTO, "wrong_size"),
        (len(PHOTO), PHOTO + b"x", "wrong_size"),
        (None, padded(PHOTO, 4001), "too_large"),
        (None, b"", "empty"),
    ):
        promise = {"size_bytes": size_bytes} if size_bytes else {}
        upload = await app.open(method="post", **promise)
        # What is left by a storage that does not look at lengths.
        metadata = {"safelight-upload": upload["id"]}
        await blobs.put(bucket, upload["key"], body, content_type="image/jpeg", metadata=metadata)
        photo = (await app.complete(upload))[1]
        assert (photo["status"], photo["rejection"]["code"], photo["size_bytes"]) == ("rejected", code, len(body))


async def test_many_at_once_complete_one_photo(start_app: StartApp, database: Database) -> None:
    """Twenty `complete`s at a time: one photo with one set of jobs, the same for everybody, created once."""
    app = await start_app()
    upload = await app.open()
    await app.put(upload)
    answers = await asyncio.gather(*(app.complete(upload) for _ in range(20)))
    assert {photo["id"] for _, photo in answers} == {answers[0][1]["id"]}
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert (await count(database, "object"), await count(database, "job")) == (1, 2)


async def test_a_lost_answer_of_the_storage_costs_nothing(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """Parts that were put together by a `complete` whose answer never came are found by the next one; a PUT that is
    sent again is refused as done, and completes."""
    app = await start_app()
    big = await app.open(method="multipart", key="big.jpg", size_bytes=6 * MIB, part_bytes=5 * MIB)
    body = padded(PHOTO, 6 * MIB)
    for part, piece in zip(big["parts"], (body[: 5 * MIB], body[5 * MIB :]), strict=True):
        assert await app.send(part["url"], piece) == (200, "")
    (begun,), _ = await blobs.list_uploads(bucket)
    arrived = await blobs.list_parts(bucket, "big.jpg", begun.upload_id)
    await blobs.complete_upload(bucket, "big.jpg", begun.upload_id, arrived)
    assert (await app.complete(big))[0] == 201

    small = await app.open(key="small.jpg")
    assert (await app.put(small), await app.put(small)) == ((200, ""), (412, "PreconditionFailed"))
    assert (await app.complete(small))[0] == 201


async def test_the_storage_away_is_503_and_passes(start_app: StartApp, servers: Servers) -> None:
    """While the storage is down opening and `complete` are answered 503; the upload stays open, and completes after."""
    app = await start_app()
    upload = await app.open(key="a.jpg")
    await app.put(upload)
    servers.seaweedfs.kill()
    opening = await app.ask("POST", "/v1/uploads", {"key": "b.jpg", "size_bytes": 9})
    assert [(await app.complete(upload))[0], opening[0]] == [503, 503]
    assert (await app.look(upload))["status"] == "open"
    servers.seaweedfs.start()
    assert (await app.complete(upload))[0] == 201


async def test_reconcile_settles_what_nobody_completed(start_app: StartApp, database: Database, bucket: str) -> None:
    """An object that arrived without `complete` is recorded by a pass of reconcile, and with it, in one transaction,
    its upload: `complete` then answers that photo, and the next pass finds nothing."""
    app = await start_app()
    upload = await app.open()
    await app.put(upload)
    assert await reconcile(app, bucket) == {"unrecorded_object": {"repaired": 1}}
    seen = await app.look(upload)
    assert seen["status"] == "stored"
    assert (await app.complete(upload))[:1] == (200,)
    assert (await app.complete(upload))[1]["id"] == seen["photo_id"]
    assert await reconcile(app, bucket) == {}
    odd = await app.open(key="odd.jpg", size_bytes=135)
    assert await app.put(odd, b"no photo at all" * 9) == (200, "")
    assert (await app.complete(odd))[1]["status"] == "rejected"
    assert await reconcile(app, bucket) == {}


async def test_the_sweep_records_what_arrived_and_closes_the_rest(
    start_app: StartApp, blobs: Blobs, database: Database, bucket: str
) -> None:
    """Once the addresses have ended: what lies in the storage becomes a photo even where nobody watches, parts that are
    all there are put together, the others are aborted, and what never came is closed."""
    app = await start_app(hooks="*:none")
    came, never, half, whole = (
        await app.open(key="came.jpg"),
        await app.open(key="never.jpg"),
        await app.open(method="multipart", key="half.jpg", size_bytes=6 * MIB, part_bytes=5 * MIB),
        await app.open(method="multipart", key="whole.jpg", size_bytes=6 * MIB, part_bytes=5 * MIB),
    )
    body = padded(PHOTO, 6 * MIB)
    await app.put(came)
    await app.send(half["parts"][0]["url"], body[: 5 * MIB])
    for part, piece in zip(whole["parts"], (body[: 5 * MIB], body[5 * MIB :]), strict=True):
        await app.send(part["url"], piece)
    await sweep(app.context)
    assert await count(database, "object") == 0  # not before their time
    await expire(database)
    for _ in range(2):
        await sweep(app.context)
    rows = await fetch(database, "select key, status from object order by key")
    assert [(row["key"], row["status"]) for row in rows] == [("came.jpg", "processing"), ("whole.jpg", "processing")]
    assert await multiparts_in(blobs, bucket) == []
    assert [(await app.look(upload))["status"] for upload in (came, never, half, whole)] == [
        "stored", "expired", "expired", "stored",
    ]  # fmt: skip
    open_keys = await fetch(database, "select key from upload where closed_at is null order by key")
    assert [row["key"] for row in open_keys] == ["came.jpg", "whole.jpg"]  # until their photos have settled
    async with database.connection() as conn:
        await conn.execute("update object set status = 'ready', settled_at = now()")
    await sweep(app.context)
    assert await value(database, "select count(*) from upload where closed_at is null") == 0
    status, problem = await app.complete(never)
    assert (status, problem["code"]) == (409, "upload_not_arrived")
    assert "open a new upload" in problem["detail"]
    assert (await app.ask("POST", f"/v1/uploads/{half['id']}/parts", {}))[1]["code"] == "upload_not_open"


async def test_what_the_storage_denies_keeps_no_other_upload_from_its_turn(
    aiohttp_client: Any,
    database: Database,
    postgres_dsn: str,
    redis_url: str,
    s3_backend: S3Backend,
    bucket_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With two uploads to a page and the two oldest denied, turn after turn, the third is recorded by the second turn;
    and of the rejected photos, one to a page, the later one is moved although the first one may not be copied."""
    monkeypatch.setattr(sweeping, "PAGE_UPLOADS", 2)
    monkeypatch.setattr(quarantine, "PAGE_PHOTOS", 1)
    async with Shim(s3_backend.endpoint) as shim:
        backend = replace(s3_backend, endpoint=shim.url)
        async with opening_apps(aiohttp_client, database, postgres_dsn, redis_url, backend, bucket_prefix) as start:
            app, bookmark = await start(quarantine=True), Bookmark()
            for key in ("locked-1.jpg", "locked-2.jpg", "free.jpg"):
                assert await app.put(await app.open(key=key)) == (200, "")
            await expire(database)
            shim.set(Spoil(act="answer", status=403, code="AccessDenied", within="locked"))
            for _ in range(2):
                await sweep(app.context, bookmark)
            assert [row["key"] for row in await fetch(database, "select key from object")] == ["free.jpg"]
            for key in ("1.txt", "2.txt"):
                upload = await app.open(key=key, size_bytes=9)
                assert await app.put(upload, b"no photo!") == (200, "")
                assert (await app.complete(upload))[0] == 201
            shim.set(Spoil(act="answer", status=403, code="AccessDenied", within="1.txt"))
            for _ in range(2):
                await sweep(app.context, bookmark)
            moved = await fetch(
                database,
                "select object.key from quarantine join object on object.id = object_id where copied_at > '-infinity'",
            )
            assert [row["key"] for row in moved] == ["2.txt"]


async def test_an_aborted_upload_leaves_nothing(
    start_app: StartApp, blobs: Blobs, database: Database, bucket: str
) -> None:
    """DELETE takes back what arrived, parts too, and the upload is gone; a photo that is stored is not touched, and
    neither is what somebody else put under the key."""
    app = await start_app()
    arrived, parts, stored, taken = (
        await app.open(key="arrived.jpg"),
        await app.open(method="multipart", key="parts.jpg", size_bytes=6 * MIB, part_bytes=5 * MIB),
        await app.open(key="stored.jpg"),
        await app.open(key="taken.jpg"),
    )
    await app.put(arrived)
    await app.send(parts["parts"][0]["url"], padded(PHOTO, 5 * MIB))
    await app.put(stored)
    photo = (await app.complete(stored))[1]
    await blobs.put(bucket, "taken.jpg", PHOTO, content_type="image/jpeg")
    for upload in (arrived, parts, taken):
        path = f"/v1/uploads/{upload['id']}"
        assert (await app.ask("DELETE", path))[0] == 204
        assert [(await app.ask(method, path))[0] for method in ("GET", "DELETE")] == [404, 404]
        assert (await app.complete(upload))[1]["code"] == "no_such_upload"
    status, problem = await app.ask("DELETE", f"/v1/uploads/{stored['id']}")
    assert (status, problem["code"], problem["photo_id"]) == (409, "upload_stored", photo["id"])
    assert sorted(await stored_keys(blobs, bucket)) == ["stored.jpg", "taken.jpg"]
    assert await multiparts_in(blobs, bucket) == []
    await expire(database)
    await sweep(app.context)
    assert await count(database, "object") == 1


async def test_a_limited_key_uploads_within_its_places_alone(
    start_app: StartApp, blobs: Blobs, bucket: str, bucket_prefix: str
) -> None:
    """A key elsewhere, one that the server would choose elsewhere, and the closed buckets are refused before anything
    is signed; uploads of others elsewhere do not exist for it."""
    await blobs.ensure_bucket(f"{bucket_prefix}-rejected")
    host, guest = await start_app(quarantine=True), await start_app(places=(f"{bucket}/weddings/",), quarantine=True)
    assert (await guest.open(key="weddings/a.jpg"))["key"] == "weddings/a.jpg"
    for body, code in (
        ({"key": "parties/a.jpg"}, "forbidden"),
        ({}, "forbidden"),
        ({"bucket": "no-such-bucket", "key": "a.jpg"}, "forbidden"),
        ({"bucket": f"{bucket_prefix}-derived"}, "derived_bucket_is_read_only"),
        ({"bucket": f"{bucket_prefix}-rejected"}, "derived_bucket_is_read_only"),
        ({"key": "weddings/../a.jpg"}, "invalid_key"),
        ({"key": "weddings/${filename}", "method": "post"}, "invalid_key"),
    ):
        status, problem = await guest.ask("POST", "/v1/uploads", {"size_bytes": 9, **body})
        assert (problem["code"], status) == (code, 400 if code == "invalid_key" else 403), body
    outside = await host.open(key="parties/a.jpg")
    path = f"/v1/uploads/{outside['id']}"
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/complete"), ("POST", "/parts")):
        assert (await guest.ask(method, path + suffix))[1]["code"] == "no_such_upload"
    assert [item["key"] for item in (await guest.ask("GET", "/v1/uploads"))[1]["uploads"]] == ["weddings/a.jpg"]
    reader = await start_app(scopes=("read",))
    assert (await reader.ask("POST", "/v1/uploads", {"size_bytes": 9}))[0] == 403
    assert "url" not in (await reader.ask("GET", path))[1]


async def test_requests_that_promise_nonsense_are_told(start_app: StartApp) -> None:
    """Unknown kinds, too many bytes, parts without parts and a bucket that is not there are refused at once."""
    app = await start_app(max_upload_bytes=6 << 30)
    for body, status, code in (
        ({"content_type": "video/mp4"}, 415, "unsupported_format"),
        ({"size_bytes": 7 << 30}, 413, "too_large"),
        ({"size_bytes": 6 << 30}, 422, "invalid_request"),
        ({"part_bytes": 5 * MIB}, 422, "invalid_request"),
        ({"bucket": "no-such-bucket", "size_bytes": 9}, 404, "no_such_bucket"),
        ({}, 422, "invalid_request"),
        ({"method": "get"}, 422, "invalid_request"),
    ):
        answered, problem = await app.ask("POST", "/v1/uploads", body)
        assert (answered, problem["code"]) == (status, code), body
    assert (await app.open(content_type="image/jpg"))["content_type"] == "image/jpeg"


async def test_an_idempotency_key_opens_one_upload(
    start_app: StartApp, blobs: Blobs, database: Database, bucket: str
) -> None:
    """A retry is answered with the first upload and good addresses; another body under the same key is refused."""
    app = await start_app()
    for method in ("put", "multipart"):
        body, key = {"method": method, "size_bytes": 20 * MIB}, {"Idempotency-Key": method}
        _, first = await app.ask("POST", "/v1/uploads", body, **key)
        status, again = await app.ask("POST", "/v1/uploads", body, **key)
        assert (status, again["id"], again["key"]) == (201, first["id"], first["key"])
        _, problem = await app.ask("POST", "/v1/uploads", {**body, "filename": "b.jpg"}, **key)
        assert problem["code"] == "idempotency_key_reused"
    assert await app.send(again["parts"][0]["url"], padded(PHOTO, 8 * MIB)) == (200, "")
    assert await count(database, "upload") == 2
    assert len(await multiparts_in(blobs, bucket)) == 1


async def test_a_key_may_have_so_many_open(start_app: StartApp, blobs: Blobs, bucket: str) -> None:
    """More than the limit get 429, of whatever method, and leave nothing behind; completed and aborted ones count no
    more; another key has its own."""
    app = await start_app(max_open_uploads=2)
    first, second = await app.open(), await app.open()
    for method in ("put", "multipart"):
        status, problem = await app.ask("POST", "/v1/uploads", {"method": method, "size_bytes": 20 * MIB})
        assert (status, problem["code"]) == (429, "too_many_open_uploads")
    other = await start_app(max_open_uploads=2)
    assert (await other.open())["status"] == "open"
    await app.put(first)
    assert (await app.complete(first))[0] == 201
    assert (await app.ask("DELETE", f"/v1/uploads/{second['id']}"))[0] == 204
    race = await asyncio.gather(
        *(app.ask("POST", "/v1/uploads", {"method": "multipart", "size_bytes": 20 * MIB}) for _ in range(6))
    )
    assert sorted(status for status, _ in race) == [201, 201, 429, 429, 429, 429]
    assert len(await multiparts_in(blobs, bucket)) == 2


async def test_uploads_are_listed_page_by_page(start_app: StartApp) -> None:
    """Newest first, by status, bucket and beginning of the key, each once."""
    app = await start_app()
    opened = [await app.open(key=f"{'ab'[n % 2]}/{n}.jpg") for n in range(5)]
    await app.put(opened[0])
    await app.complete(opened[0])
    seen, cursor = [], ""
    while True:
        _, page = await app.ask("GET", f"/v1/uploads?limit=2{cursor}")
        seen += [item["key"] for item in page["uploads"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["a/4.jpg", "b/3.jpg", "a/2.jpg", "b/1.jpg", "a/0.jpg"]
    for query, keys in (("status=stored", ["a/0.jpg"]), ("prefix=b/", ["b/3.jpg", "b/1.jpg"]), ("bucket=x", [])):
        assert [item["key"] for item in (await app.ask("GET", f"/v1/uploads?{query}"))[1]["uploads"]] == keys


async def test_addresses_name_the_storage_as_clients_see_it(start_app: StartApp, s3_backend: S3Backend) -> None:
    """With SAFELIGHT_S3_PUBLIC_ENDPOINT the signed host is that one, for all three methods."""
    app = await start_app()
    object.__setattr__(app.context.storage, "s3_public_endpoint", "https://photos.example.org/")
    put, form, parts = (
        await app.open(key="a b.jpg"),
        await app.open(method="post"),
        await app.open(method="multipart", size_bytes=20 * MIB),
    )
    assert put["url"].startswith(f"https://photos.example.org/{app.bucket}/a%20b.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256")
    assert form["url"] == f"https://photos.example.org/{app.bucket}"
    assert all(part["url"].startswith("https://photos.example.org/") for part in parts["parts"])


async def test_the_bucket_event_settles_what_nobody_completed(start_app: StartApp, database: Database) -> None:
    """The storage's event records the photo and, in the same transaction, settles the upload that its metadata name;
    `complete` after it, and the event once more, change nothing. What is no photo is left to `complete`."""
    app = await start_app(hook_token=TOKEN)
    upload, odd = await app.open(), await app.open(size_bytes=90)
    await app.put(upload)
    await app.put(odd, b"no photo " * 10)
    for told in (upload, odd, upload):
        await tell(app, told["key"])
    seen = await app.look(upload)
    assert (seen["status"], (await app.look(odd))["status"]) == ("stored", "open")
    status, photo = await app.complete(upload)
    assert (status, photo["id"]) == (200, seen["photo_id"])
    assert (await app.complete(odd))[1]["status"] == "rejected"
    assert (await count(database, "object"), await count(database, "job")) == (2, 2)


@pytest.mark.parametrize("way", ["event", "reconcile"])
@pytest.mark.parametrize(
    ("opened", "code"),
    [
        ({"content_type": "image/png"}, "wrong_type"),
        ({"method": "post", "filename": "Sunset at sea.jpg"}, None),
    ],
)
async def test_whoever_comes_first_holds_the_upload_to_its_promise(
    start_app: StartApp, database: Database, bucket: str, way: str, opened: dict[str, Any], code: str | None
) -> None:
    """Where the storage's event or reconciling records the photo before `complete` does, it is rejected for the same
    reasons, without any job, and has the name that was promised; `complete` after it answers that photo."""
    app = await start_app(hook_token=TOKEN)
    upload = await app.open(key="odd.jpg", **{"filename": "promised.jpg", **opened})
    sent = await (app.post(upload) if upload["method"] == "post" else app.put(upload))
    assert sent in ((200, ""), (201, ""))
    if way == "event":
        await tell(app, "odd.jpg")
    else:
        assert await reconcile(app, bucket) == {"unrecorded_object": {"repaired": 1}}
    seen = await app.look(upload)
    status, photo = await app.complete(upload)
    assert (status, photo["id"]) == (200, seen["photo_id"])
    assert photo["filename"] == opened.get("filename", "promised.jpg")
    assert (photo["rejection"] or {"code": None})["code"] == code
    assert await count(database, "job") == (0 if code else 2)


async def test_promises_are_of_one_key_alone(start_app: StartApp, database: Database, bucket: str) -> None:
    """A copy takes an upload's metadata along, and is none of its business: it is a photo like any other."""
    app = await start_app(hook_token=TOKEN)
    upload = await app.open(key="odd.jpg", content_type="image/png")
    await app.put(upload)
    etag = (await app.context.blobs.head(bucket, "odd.jpg")).etag
    await app.context.blobs.copy((bucket, "odd.jpg"), (bucket, "copy.jpg"), etag=etag)
    await tell(app, "copy.jpg")
    assert [dict(row) for row in await fetch(database, "select key, rejection, filename from object")] == [
        {"key": "copy.jpg", "rejection": None, "filename": "copy.jpg"}
    ]


async def test_an_event_without_proof_is_settled_by_complete(
    start_app: StartApp, database: Database, bucket: str
) -> None:
    """A photo that a door recorded without naming the upload gets its upload by `complete`, and no second row."""
    app = await start_app()
    upload = await app.open(key="a.jpg")
    await app.put(upload)
    head = await app.context.blobs.head(bucket, "a.jpg")
    async with database.transaction() as conn:
        recorded = await objects.record(
            conn,
            objects.StoredObject(
                id=uuid.uuid4(),
                bucket=bucket,
                key="a.jpg",
                etag=head.etag,
                size_bytes=head.size_bytes,
                content_type="image/jpeg",
            ),
            (),
        )
    assert (await app.look(upload))["status"] == "open"
    status, photo = await app.complete(upload)
    assert (status, photo["id"]) == (200, str(recorded.id))
    assert (await app.look(upload))["photo_id"] == str(recorded.id)
    assert await count(database, "object") == 1
