"""Unsigned requests at the S3 door where they are left to the storage (SAFELIGHT_S3_ANONYMOUS=storage)."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from storage.blobs import Blobs
from storage.database import Database
from tests import photos
from tests.clients.moto import Moto
from tests.integration.door_site import UNSIGNED_TRAILER, Reply, Site, open_site
from tests.servers import S3Backend, Servers

PHOTO = photos.make_jpeg(64, 48, noise=20)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Backend]:
    """A storage in which strangers may do everything."""
    started = Moto(tmp_path_factory.mktemp("moto"))
    yield started.backend
    started.stop()


@pytest.fixture
def s3_backend(request: pytest.FixtureRequest, servers: Servers) -> S3Backend:
    """moto; as "closed" the session's SeaweedFS, in which strangers may do nothing."""
    closed = getattr(request, "param", "") == "closed"
    chosen: S3Backend = servers.s3_backend if closed else request.getfixturevalue("moto")
    return chosen


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    more = {"s3_anonymous": "storage"}
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix, **more) as opened:
        yield opened


async def ask(site: Site, method: str, path: str, **more: Any) -> Reply:
    """As somebody without a key."""
    async with site.session.request(method, f"{site.client.url}/{path}", **more) as answer:
        return Reply(status=answer.status, body=await answer.read(), headers=answer.headers)


async def test_what_the_storage_lets_strangers_do_is_recorded(site: Site) -> None:
    """Their photos get rows and jobs like everybody's, with the hash that they stated; a false hash stores nothing."""
    digest = hashlib.sha256(PHOTO)
    headers = {"x-amz-content-sha256": digest.hexdigest()}
    assert (await ask(site, "PUT", f"{site.bucket}/a.jpg", data=PHOTO, headers=headers)).status == 200
    assert (await site.client.send("GET", f"/{site.bucket}/a.jpg")).body == PHOTO
    assert await site.photos() == [("a.jpg", True)]
    assert await site.value("select sha256 from object") == digest.digest()
    assert await site.value("select count(*) from job where state = 'ready'") == 2
    reply = await ask(site, "PUT", f"{site.bucket}/b.jpg", data=PHOTO + b"x", headers=headers)
    assert (reply.status, reply.code) == (400, "XAmzContentSHA256Mismatch")
    assert not await site.has("b.jpg")


@pytest.mark.parametrize("s3_backend", ["closed"], indirect=True)
async def test_what_the_storage_refuses_to_strangers_stays_refused(site: Site) -> None:
    """The storage's own AccessDenied comes through, and nothing is recorded."""
    reply = await ask(site, "PUT", f"{site.bucket}/a.jpg", data=PHOTO)
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert await site.photos() == []


async def test_strangers_never_write_previews(site: Site) -> None:
    """Whatever the storage would allow, the door refuses every write to the bucket of previews; reading it goes on."""
    preview = f"{site.bucket}/public/a.jpg/thumb.webp"
    await site.blobs.put(site.derived, preview, b"preview", content_type="image/webp")
    batch = f"<Delete><Object><Key>{preview}</Key></Object></Delete>".encode()
    form = aiohttp.FormData({"key": "b"})
    form.add_field("file", b"x", filename="b")
    writes = [
        ("PUT", f"{site.derived}/b", {"data": b"x"}),
        ("PUT", f"{site.derived}/b", {"headers": {"x-amz-copy-source": f"{site.derived}/{preview}"}}),
        ("DELETE", f"{site.derived}/{preview}", {}),
        ("POST", f"{site.derived}/b?uploads", {}),
        ("POST", f"{site.derived}?delete", {"data": batch}),
        ("POST", site.derived, {"data": form}),
        ("PUT", f"{site.derived}?cors", {"data": b"<CORSConfiguration/>"}),
        ("DELETE", site.derived, {}),
    ]
    for method, path, more in writes:
        reply = await ask(site, method, path, **more)
        assert (reply.status, reply.code) == (403, "AccessDenied"), (method, path)
        assert b"Only Safelight writes" in reply.body, (method, path)
    assert (await ask(site, "GET", f"{site.derived}/{preview}")).body == b"preview"
    assert b"<Key>" not in (await site.client.send("GET", f"/{site.derived}", query=[("prefix", "b")])).body


async def test_a_stranger_s_framed_body_is_unframed_and_proven(site: Site) -> None:
    """Unsigned SDKs frame their bodies too over TLS: the object is the payload, and a false checksum stores nothing."""
    framed = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n"
    right = base64.b64encode(zlib.crc32(PHOTO).to_bytes(4, "big"))
    headers = {
        "x-amz-content-sha256": UNSIGNED_TRAILER,
        "x-amz-decoded-content-length": str(len(PHOTO)),
        "x-amz-trailer": "x-amz-checksum-crc32",
        "content-encoding": "aws-chunked",
    }
    body = framed % (len(PHOTO), PHOTO, right)
    assert (await ask(site, "PUT", f"{site.bucket}/a.jpg", headers=headers, data=body)).status == 200
    assert (await site.client.send("GET", f"/{site.bucket}/a.jpg")).body == PHOTO
    body = framed % (len(PHOTO), PHOTO, b"AAAAAA==")
    reply = await ask(site, "PUT", f"{site.bucket}/b.jpg", headers=headers, data=body)
    assert (reply.status, reply.code) == (400, "BadDigest")
    headers["x-amz-content-sha256"] = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    reply = await ask(site, "PUT", f"{site.bucket}/b.jpg", headers=headers, data=body)
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert await site.photos() == [("a.jpg", True)]
    assert not await site.has("b.jpg")
