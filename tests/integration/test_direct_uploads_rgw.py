"""Direct uploads into Ceph's S3 server: what it holds clients to, and what `complete` makes of the rest."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.direct.sweeping import sweep
from storage.database import Database
from tests.integration.direct import PHOTO, StartApp, opening_apps
from tests.photos import make_jpeg, padded
from tests.rgw import Rgw

pytestmark = pytest.mark.needs_ceph
MIB = 1 << 20


@pytest.fixture
async def start_app(
    rgw: Rgw, aiohttp_client: Any, database: Database, postgres_dsn: str, redis_url: str
) -> AsyncIterator[StartApp]:
    """Opens gateways on the session's RGW."""
    prefix = f"t{uuid.uuid4().hex[:10]}"
    async with opening_apps(aiohttp_client, database, postgres_dsn, redis_url, rgw.backend, prefix) as start:
        yield start


async def test_ceph_takes_what_was_agreed_and_nothing_else(start_app: StartApp) -> None:
    """Photos by PUT, form and parts become photos; other sizes, kinds, metadata, keys and a second PUT are refused."""
    app = await start_app()
    await app.context.blobs.ensure_bucket(app.bucket)
    upload = await app.open(key="a b+ü.jpg", content_type="image/jpeg", size_bytes=len(PHOTO))
    for body, changed in (
        (PHOTO + b"x", {}),
        (PHOTO, {"Content-Type": "text/html"}),
        (PHOTO, {"x-amz-meta-safelight-upload": str(uuid.uuid4())}),
    ):
        assert await app.put(upload, body, **changed) == (403, "SignatureDoesNotMatch")
    assert await app.put(upload) == (200, "")
    assert await app.put(upload, make_jpeg(48, 64)[:1].ljust(len(PHOTO))) == (412, "PreconditionFailed")
    assert (await app.complete(upload))[0] == 201

    form = await app.open(method="post", size_bytes=len(PHOTO))
    assert (await app.post(form, PHOTO + b"x"))[1] == "EntityTooLarge"
    assert (await app.post(form, PHOTO, **{"Content-Type": "text/html"}))[0] == 403
    assert await app.post(form) == (201, "")
    assert (await app.complete(form))[0] == 201

    body = padded(PHOTO, 6 * MIB)
    big = await app.open(method="multipart", key="big.jpg", size_bytes=len(body), part_bytes=5 * MIB)
    for part, piece in zip(big["parts"], (body[: 5 * MIB], body[5 * MIB :]), strict=True):
        assert (await app.send(part["url"], piece + b"x"))[0] == 403
        assert await app.send(part["url"], piece) == (200, "")
    assert [part["number"] for part in (await app.look(big))["arrived_parts"]] == [1, 2]
    status, photo = await app.complete(big)
    assert (status, photo["size_bytes"]) == (201, len(body))
    assert (await app.complete(big))[1]["id"] == photo["id"]


async def test_ceph_would_replace_by_parts_but_is_not_asked_to(start_app: StartApp) -> None:
    """It ignores If-None-Match when parts are put together, so what lies under the key is looked at first."""
    app = await start_app()
    await app.context.blobs.ensure_bucket(app.bucket)
    upload = await app.open(method="multipart", key="big.jpg", size_bytes=6 * MIB, part_bytes=6 * MIB)
    assert await app.send(upload["parts"][0]["url"], padded(PHOTO, 6 * MIB)) == (200, "")
    await app.context.blobs.put(app.bucket, "big.jpg", PHOTO, content_type="image/jpeg")
    assert (await app.complete(upload))[1]["code"] == "key_taken"
    assert (await app.context.blobs.head(app.bucket, "big.jpg")).size_bytes == len(PHOTO)


async def test_ceph_lets_rejected_photos_be_moved(start_app: StartApp) -> None:
    """Copied, compared, and deleted where it was; the original is read from its new place."""
    app = await start_app(quarantine=True)
    for bucket in (app.bucket, app.context.storage.quarantine_bucket):
        await app.context.blobs.ensure_bucket(bucket)
    upload = await app.open(key="odd.jpg", size_bytes=6 * 99)
    assert await app.put(upload, b"words " * 99) == (200, "")
    assert (await app.complete(upload))[1]["status"] == "rejected"
    await sweep(app.context)
    place = (await app.look(upload))["quarantine"]
    assert (await app.context.blobs.head(place["bucket"], place["key"])).size_bytes == 6 * 99
    found, _ = await app.context.blobs.list_page(app.bucket)
    assert found == []
