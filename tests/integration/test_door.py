"""The S3 door between real requests and a real storage: what is refused leaves nothing, what is stored is recorded.

The door runs in this process, on a socket; requests are signed by hand, so that they can be wrong in every way.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from gateway.s3.request import RawRequest
from gateway.s3.scope import Scope, Signer, signing_key
from gateway.s3.signing import sign_request
from storage import credentials
from storage.blobs import Blobs
from storage.database import Database
from tests import photos
from tests.integration.door_site import (
    EMPTY,
    REGION,
    SIGNED,
    SIGNED_TRAILER,
    UNSIGNED_TRAILER,
    Client,
    Reply,
    Site,
    open_site,
)
from tests.servers import S3Backend


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix) as opened:
        yield opened


def photo(seed: int = 1) -> bytes:
    return photos.make_jpeg(64, 48, noise=20, seed=seed)


def crc32(data: bytes) -> bytes:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big"))


# What is stored is recorded


async def test_a_put_photo_is_recorded_with_its_jobs_before_the_answer(site: Site) -> None:
    """One object, one job per processor, the hash that the client signed; bytes come back as they went in."""
    data = photo()
    reply = await site.client.put(f"/{site.bucket}/a b+ü.jpg", data, headers={"Content-Type": "image/jpeg"})
    assert reply.status == 200
    assert await site.photos() == [("a b+ü.jpg", True)]
    assert await site.value("select count(*) from job where state = 'ready'") == 2
    assert await site.value("select sha256 from object") == hashlib.sha256(data).digest()
    assert f'"{await site.value("select etag from object")}"' == reply.headers["ETag"]
    assert (await site.client.send("GET", f"/{site.bucket}/a b+ü.jpg")).body == data


async def test_the_same_bytes_again_make_no_second_photo(site: Site) -> None:
    """A repeated PUT is the same generation; other bytes are the next one."""
    for _ in range(3):
        assert (await site.client.put(f"/{site.bucket}/a.jpg", photo())).status == 200
    assert await site.photos() == [("a.jpg", True)]
    await site.client.put(f"/{site.bucket}/a.jpg", photo(2))
    assert await site.photos() == [("a.jpg", False), ("a.jpg", True)]


async def test_what_is_no_photo_is_stored_and_left_alone(site: Site) -> None:
    """Text, nothing at all, and places that nobody watches make no rows; a photo that text replaces is gone."""
    assert (await site.client.put(f"/{site.bucket}/a.txt", b"just text")).status == 200
    assert (await site.client.put(f"/{site.bucket}/empty.jpg", b"")).status == 200
    assert (await site.client.put(f"/{site.bucket}/unwatched/a.jpg", photo())).status == 200
    assert await site.photos() == []
    assert await site.has("a.txt")
    assert await site.has("empty.jpg")
    await site.client.put(f"/{site.bucket}/a.jpg", photo())
    await site.client.put(f"/{site.bucket}/a.jpg", b"text now")
    assert await site.photos() == [("a.jpg", False)]


async def test_copies_and_multipart_uploads_are_recorded(site: Site) -> None:
    """CopyObject and CompleteMultipartUpload end as photos; their parts do not."""
    data = photo()
    await site.client.put(f"/{site.bucket}/a.jpg", data)
    copied = await site.client.send(
        "PUT", f"/{site.bucket}/copy.jpg", headers={"x-amz-copy-source": f"/{site.bucket}/a.jpg"}
    )
    assert copied.status == 200
    begun = await site.client.send("POST", f"/{site.bucket}/parts.jpg", query=[("uploads", None)])
    upload_id = begun.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
    large = photos.padded(data, 6 << 20)
    tags = []
    for number, part in enumerate((large[: 5 << 20], large[5 << 20 :]), 1):
        query = [("partNumber", str(number)), ("uploadId", upload_id)]
        reply = await site.client.put(f"/{site.bucket}/parts.jpg", part, query=query)
        tags.append(reply.headers["ETag"])
    assert await site.photos() == [("a.jpg", True), ("copy.jpg", True)]
    parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>" for n, tag in enumerate(tags, 1))
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    done = await site.client.send("POST", f"/{site.bucket}/parts.jpg", query=[("uploadId", upload_id)], body=body)
    assert done.status == 200
    assert f"<Location>{site.client.url}/{site.bucket}/parts.jpg</Location>".encode() in done.body
    assert (await site.photos())[-1] == ("parts.jpg", True)
    assert await site.value("select size_bytes from object where key = 'parts.jpg'") == len(large)


async def test_a_multipart_upload_that_the_storage_refuses_is_not_recorded(site: Site) -> None:
    """A completion with a wrong part is the storage's error, unchanged, and no photo."""
    begun = await site.client.send("POST", f"/{site.bucket}/a.jpg", query=[("uploads", None)])
    upload_id = begun.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
    body = b"<CompleteMultipartUpload><Part><PartNumber>7</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"
    done = await site.client.send("POST", f"/{site.bucket}/a.jpg", query=[("uploadId", upload_id)], body=body)
    assert done.status >= 400
    assert await site.photos() == []


async def test_deletions_end_photos(site: Site) -> None:
    """DELETE and batch deletes mark the photos, end their jobs, and leave other keys alone."""
    for name in ("a.jpg", "b.jpg", "c.jpg", "d & e.jpg"):
        await site.client.put(f"/{site.bucket}/{name}", photo())
    assert (await site.client.send("DELETE", f"/{site.bucket}/a.jpg")).status == 204
    keys = "".join(f"<Object><Key>{key}</Key></Object>" for key in ("b.jpg", "d &amp; e.jpg", "never.jpg"))
    body = f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode()
    headers = {"Content-MD5": base64.b64encode(hashlib.md5(body).digest()).decode()}
    reply = await site.client.send("POST", f"/{site.bucket}", query=[("delete", None)], body=body, headers=headers)
    assert reply.status == 200
    assert [key for key, current in await site.photos() if current] == ["c.jpg"]
    assert await site.value("select count(*) from job where state = 'ready'") == 2


async def test_a_form_is_stored_under_its_policy(site: Site) -> None:
    """A browser's form with a signed policy stores and records its file; the storage judges the conditions."""
    conditions = [["starts-with", "$key", "posted/"]]
    reply = await post_form(site, photo(), {"key": "posted/${filename}"}, conditions=conditions)
    assert reply.status == 204, reply.body
    assert await site.photos() == [("posted/file.jpg", True)]
    reply = await post_form(site, photo(), {"key": "elsewhere.jpg"}, conditions=conditions)
    assert reply.status == 403
    reply = await post_form(site, photo(), {"key": "a.jpg"}, conditions=[["eq", "$key", "a.jpg"]], secret="x" * 40)
    assert (reply.status, reply.code) == (403, "SignatureDoesNotMatch")
    assert len(await site.photos()) == 1


async def post_form(
    site: Site, data: bytes, fields: dict[str, str], *, conditions: list[Any], secret: str | None = None
) -> Reply:
    now = datetime.now(UTC)
    amz_date, key = now.strftime("%Y%m%dT%H%M%SZ"), site.client.key
    scope = Scope(date=amz_date[:8], region=REGION)
    stated = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{key.access_key}/{scope}",
        "x-amz-date": amz_date,
    }
    document = {
        "expiration": (now + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "conditions": [{"bucket": site.bucket}, *conditions, *({name: value} for name, value in stated.items())],
    }
    policy = base64.b64encode(json.dumps(document).encode()).decode()
    signed_with = signing_key(secret or key.secret_key, scope.date, REGION)
    form = aiohttp.FormData()
    for name, value in {**fields, **stated, "policy": policy}.items():
        form.add_field(name, value)
    form.add_field("x-amz-signature", hmac.new(signed_with, policy.encode(), hashlib.sha256).hexdigest())
    form.add_field("file", data, filename="file.jpg", content_type="image/jpeg")
    async with site.session.post(f"{site.client.url}/{site.bucket}", data=form) as answer:
        return Reply(status=answer.status, body=await answer.read(), headers=answer.headers)


# What is refused leaves nothing


REFUSED_SIGNATURES: dict[str, tuple[dict[str, Any], str]] = {
    "tampered_header": ({"headers": {"x-amz-meta-a": "1"}, "late": {"x-amz-meta-a": "2"}}, "SignatureDoesNotMatch"),
    "header_added": ({"late": {"x-amz-acl": "public-read"}}, "AccessDenied"),
    "signed_header_dropped": ({"headers": {"x-amz-meta-a": "1"}, "drop": ["x-amz-meta-a"]}, "SignatureDoesNotMatch"),
    "no_content_sha256": ({"drop": ["x-amz-content-sha256"]}, "InvalidRequest"),
    "wrong_sha256": ({"payload": hashlib.sha256(b"other").hexdigest()}, "XAmzContentSHA256Mismatch"),
    "wrong_md5": ({"headers": {"Content-MD5": base64.b64encode(bytes(16)).decode()}}, "BadDigest"),
    "wrong_crc32": ({"headers": {"x-amz-checksum-crc32": "AAAAAA=="}}, "BadDigest"),
    "unknown_key": (
        {"signer": Signer(access_key="SLNOBODYNOBODYNOBODY", secret_key="x" * 40, region=REGION)},
        "InvalidAccessKeyId",
    ),
}


@pytest.mark.parametrize("name", REFUSED_SIGNATURES)
async def test_a_wrong_request_stores_nothing(site: Site, name: str) -> None:
    """Tampered, incomplete and mismatching requests get S3's code; neither object nor row is left."""
    wrong, code = REFUSED_SIGNATURES[name]
    reply = await site.client.put(f"/{site.bucket}/a.jpg", photo(), **wrong)
    assert reply.status in (400, 403)
    assert reply.code == code
    assert not await site.has("a.jpg")
    assert await site.photos() == []


@pytest.mark.parametrize(("minutes", "status"), [(-16, 403), (16, 403), (-14, 200), (14, 200)])
async def test_a_clock_may_be_off_by_a_quarter_of_an_hour(site: Site, minutes: int, status: int) -> None:
    """Beyond that: RequestTimeTooSkewed, and nothing is stored."""
    client = Client(url=site.client.url, key=site.client.key, session=site.session, shift=timedelta(minutes=minutes))
    reply = await client.put(f"/{site.bucket}/a.jpg", photo())
    assert reply.status == status
    assert reply.code == ("" if status == 200 else "RequestTimeTooSkewed")
    assert await site.has("a.jpg") == (status == 200)


FRAMED: dict[str, tuple[dict[str, Any], str]] = {
    "bad_first_chunk": ({"mode": SIGNED, "spoil": "first"}, "SignatureDoesNotMatch"),
    "bad_last_chunk": ({"mode": SIGNED, "spoil": "last"}, "SignatureDoesNotMatch"),
    "bad_trailer_signature": (
        {"mode": SIGNED_TRAILER, "trailer": b"x-amz-checksum-crc32:%s", "spoil": "trailer"},
        "SignatureDoesNotMatch",
    ),
    "bad_trailer_checksum": ({"mode": UNSIGNED_TRAILER, "trailer": b"x-amz-checksum-crc32:AAAAAA=="}, "BadDigest"),
    "no_trailer": (
        {"mode": UNSIGNED_TRAILER, "headers": {"x-amz-trailer": "x-amz-checksum-crc32"}},
        "MalformedTrailerError",
    ),
    "declared_too_much": ({"mode": SIGNED, "declared": 10_000_000}, "IncompleteBody"),
    "declared_too_little": ({"mode": SIGNED, "declared": 10}, "IncompleteBody"),
    "not_declared": ({"mode": SIGNED, "headers": {"x-amz-decoded-content-length": ""}}, "MissingContentLength"),
    "truncated_signed": ({"mode": SIGNED, "cut": 90}, "IncompleteBody"),
    "truncated_unsigned": (
        {"mode": UNSIGNED_TRAILER, "trailer": b"x-amz-checksum-crc32:%s", "cut": 40},
        "IncompleteBody",
    ),
}


@pytest.mark.parametrize("name", FRAMED)
async def test_a_false_chunked_body_stores_nothing(site: Site, name: str) -> None:
    """Whatever is wrong with the framing, its signatures, its trailer or its length: S3's code, and no object."""
    wrong, code = FRAMED[name]
    data = photo()
    if b"%s" in wrong.get("trailer", b""):
        wrong = {**wrong, "trailer": wrong["trailer"] % crc32(data)}
    reply = await site.client.put_framed(f"/{site.bucket}/a.jpg", [data[:700], data[700:]], **wrong)
    assert reply.status in (400, 403, 411)
    assert reply.code == code
    assert not await site.has("a.jpg")
    assert await site.photos() == []


@pytest.mark.parametrize("mode", [SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER])
async def test_a_right_chunked_body_is_stored_without_its_framing(site: Site, mode: str) -> None:
    """The object is the payload, and no trace of aws-chunked stays in its Content-Encoding."""
    data = photos.padded(photo(), 300_000)
    trailer = b"" if mode == SIGNED else b"x-amz-checksum-crc32:" + crc32(data)
    chunks = [data[:65536], data[65536:]]
    assert (await site.client.put_framed(f"/{site.bucket}/a.jpg", chunks, mode=mode, trailer=trailer)).status == 200
    stored = await site.client.send("GET", f"/{site.bucket}/a.jpg")
    assert stored.body == data
    assert "Content-Encoding" not in stored.headers
    assert await site.photos() == [("a.jpg", True)]


async def test_a_client_that_leaves_midway_stores_nothing(site: Site) -> None:
    """A body that breaks off never becomes an object."""

    async def broken() -> AsyncIterator[bytes]:
        yield photo()
        raise ConnectionError("the client has gone")

    request = RawRequest(
        method="PUT",
        path=f"/{site.bucket}/a.jpg".encode(),
        query=b"",
        headers=(),
        host=site.client.url.partition("://")[2],
    )
    key = site.client.key
    signer = Signer(access_key=key.access_key, secret_key=key.secret_key, region=REGION)
    signed = sign_request(request, signer, payload="UNSIGNED-PAYLOAD", now=datetime.now(UTC))
    headers = {name.decode(): value.decode() for name, value in signed} | {"Content-Length": "1000000"}
    with pytest.raises(aiohttp.ClientError):
        await site.session.put(f"{site.client.url}/{site.bucket}/a.jpg", headers=headers, data=broken())
    assert not await site.has("a.jpg")
    assert await site.photos() == []


async def test_a_silent_client_is_cut_off(site: Site) -> None:
    """RequestTimeout after the time that the settings allow, and nothing is stored."""
    host = site.client.url.partition("://")[2]
    raw = RawRequest(method="PUT", path=f"/{site.bucket}/a.jpg".encode(), query=b"", headers=(), host=host)
    key = site.client.key
    signer = Signer(access_key=key.access_key, secret_key=key.secret_key, region=REGION)
    signed = sign_request(raw, signer, payload="UNSIGNED-PAYLOAD", now=datetime.now(UTC))
    address, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    lines = b"".join(b"%s: %s\r\n" % header for header in signed)
    writer.write(b"PUT %s HTTP/1.1\r\n" % raw.path + lines + b"Content-Length: 100000\r\n\r\n" + photo()[:100])
    answer = await asyncio.wait_for(reader.read(), 15)
    writer.close()
    assert b"<Code>RequestTimeout</Code>" in answer
    assert not await site.has("a.jpg")


# Who may do what


async def test_scopes_are_held(site: Site) -> None:
    """Reading needs read, storing write, buckets admin."""
    await site.client.put(f"/{site.bucket}/a.jpg", photo())
    reader = await site.key_for(scopes=["read"])
    assert (await reader.send("GET", f"/{site.bucket}/a.jpg")).status == 200
    assert (await reader.put(f"/{site.bucket}/b.jpg", photo())).code == "AccessDenied"
    writer = await site.key_for(scopes=["write"])
    assert (await writer.put(f"/{site.bucket}/b.jpg", photo())).status == 200
    assert (await writer.send("GET", f"/{site.bucket}/b.jpg")).code == "AccessDenied"
    copy = await writer.send("PUT", f"/{site.bucket}/c.jpg", headers={"x-amz-copy-source": f"{site.bucket}/a.jpg"})
    assert copy.code == "AccessDenied"
    assert (await writer.send("DELETE", f"/{site.bucket}")).code == "AccessDenied"


async def test_places_are_held(site: Site) -> None:
    """A limited key sees and changes its own prefix alone: objects, lists, copies, batches, previews and buckets."""
    await site.client.put(f"/{site.bucket}/other/a.jpg", photo())
    limited = await site.key_for(places=[f"{site.bucket}/mine/"])
    assert (await limited.put(f"/{site.bucket}/mine/a.jpg", photo())).status == 200
    assert (await limited.put(f"/{site.bucket}/other/b.jpg", photo())).code == "AccessDenied"
    assert (await limited.send("GET", f"/{site.bucket}/other/a.jpg")).code == "AccessDenied"
    assert (await limited.send("GET", f"/{site.bucket}")).code == "AccessDenied"
    listed = await limited.send("GET", f"/{site.bucket}", query=[("prefix", "mine/")])
    assert listed.status == 200
    assert b"mine/a.jpg" in listed.body
    source = {"x-amz-copy-source": f"{site.bucket}/other/a.jpg"}
    assert (await limited.send("PUT", f"/{site.bucket}/mine/c.jpg", headers=source)).code == "AccessDenied"
    body = b"<Delete><Object><Key>mine/a.jpg</Key></Object><Object><Key>other/a.jpg</Key></Object></Delete>"
    assert (await limited.send("POST", f"/{site.bucket}", query=[("delete", None)], body=body)).code == "AccessDenied"
    assert (await limited.send("GET", f"/{site.derived}/{site.bucket}/other/a.jpg/thumb.webp")).code == "AccessDenied"
    assert (await limited.send("GET", f"/{site.derived}/{site.bucket}/mine/a.jpg/thumb.webp")).code == "NoSuchKey"
    buckets = (await limited.send("GET", "/")).body
    assert f"<Name>{site.bucket}</Name>".encode() in buckets
    assert buckets.count(b"<Bucket>") == 2, "its own, and that of the previews"
    assert sorted(key for key, current in await site.photos() if current) == ["mine/a.jpg", "other/a.jpg"]


async def test_the_derived_bucket_is_read_only(site: Site) -> None:
    """Not even a key of all scopes writes or deletes there."""
    for method, path in (("PUT", "x"), ("DELETE", "x"), ("POST", "x")):
        query = [("uploads", None)] if method == "POST" else []
        assert (await site.client.send(method, f"/{site.derived}/{path}", query=query)).code == "AccessDenied"
    assert (await site.client.send("DELETE", f"/{site.derived}")).code == "AccessDenied"


async def test_strangers_read_what_is_public_and_nothing_else(site: Site) -> None:
    """Unsigned requests get the public previews; everything else is AccessDenied."""
    await site.blobs.put(site.derived, f"{site.bucket}/public/a.jpg/thumb.webp", b"preview", content_type="image/webp")
    await site.client.put(f"/{site.bucket}/public/a.jpg", photo())
    statuses = []
    for path in (f"{site.derived}/{site.bucket}/public/a.jpg/thumb.webp", f"{site.bucket}/public/a.jpg", site.bucket):
        async with site.session.get(f"{site.client.url}/{path}") as answer:
            statuses.append(answer.status)
    assert statuses == [200, 403, 403]


async def test_a_revoked_key_opens_nothing_a_second_later(site: Site) -> None:
    """The key is remembered for a second at most; an expired one is refused at once."""
    await site.client.put(f"/{site.bucket}/a.jpg", photo())
    client = await site.key_for()
    assert (await client.send("GET", f"/{site.bucket}/a.jpg")).status == 200
    async with site.database.transaction() as conn:
        await credentials.revoke(conn, client.key.access_key)
    revoked_at = time.monotonic()
    while (await client.send("GET", f"/{site.bucket}/a.jpg")).code != "InvalidAccessKeyId":
        assert time.monotonic() - revoked_at < 1.5
    expired = await site.key_for(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await expired.send("GET", f"/{site.bucket}/a.jpg")).code == "InvalidAccessKeyId"


async def test_a_preview_is_found_from_its_photo(site: Site) -> None:
    """?preset= on the photo's own key gives the preview; an unknown preset says which there are."""
    await site.blobs.put(site.derived, f"{site.bucket}/a.jpg/thumb.webp", b"preview", content_type="image/webp")
    found = await site.client.send("GET", f"/{site.bucket}/a.jpg", query=[("preset", "thumb")])
    assert (found.status, found.body) == (200, b"preview")
    unknown = await site.client.send("GET", f"/{site.bucket}/a.jpg", query=[("preset", "poster")])
    assert unknown.code == "InvalidArgument"
    assert b"thumb, preview" in unknown.body


async def test_a_client_that_reads_slowly_gets_all_of_it(site: Site) -> None:
    """What a full client cannot take waits in the storage; afterwards the connections on both sides serve others."""
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(1 << 19))  # 16 MiB: no socket holds it
    assert (await site.client.put(f"/{site.bucket}/large", data)).status == 200
    async with _get_raw(site, "large") as (reader, _):
        for size_bytes in (1 << 16, 1 << 20):  # reads a little, and lets the door fill every buffer on the way
            got = await asyncio.wait_for(reader.readexactly(size_bytes), 10)
            assert got == data[:size_bytes]
            data = data[size_bytes:]
            assert (await site.client.send("HEAD", f"/{site.bucket}/large")).status == 200  # others are served
        assert await asyncio.wait_for(reader.readexactly(len(data)), 30) == data


async def test_a_slow_end_leaves_the_storages_connection_good(site: Site) -> None:
    """Whatever part of an object the client's buffers cannot take at first, the next request is answered."""
    data = bytes(6 << 20)
    assert (await site.client.put(f"/{site.bucket}/large", data)).status == 200
    for size_bytes in range(1 << 19, len(data), 192 << 10):  # one of them ends just beyond what the buffers hold
        async with _get_raw(site, "large", byte_range=f"bytes=0-{size_bytes - 1}") as (reader, _):
            await _until_full(site)
            assert len(await asyncio.wait_for(reader.readexactly(size_bytes), 10)) == size_bytes
        asked = site.client.send("HEAD", f"/{site.bucket}/large")
        assert (await asyncio.wait_for(asked, 10)).status == 200


async def _until_full(site: Site) -> None:
    """Some turns of the loop, in which the door sends what the client does not read."""
    for _ in range(3):
        assert (await site.client.send("HEAD", f"/{site.bucket}/nothing")).status == 404


async def test_a_client_that_leaves_while_it_reads_costs_nobody_anything(site: Site) -> None:
    """The rest of its object is not fetched, and the next client gets it whole."""
    data = bytes(16 << 20)
    assert (await site.client.put(f"/{site.bucket}/large", data)).status == 200
    for _ in range(5):
        async with _get_raw(site, "large") as (reader, writer):
            await asyncio.wait_for(reader.readexactly(1 << 16), 10)
            writer.transport.abort()
    assert (await site.client.send("GET", f"/{site.bucket}/large")).body == data


@contextlib.asynccontextmanager
async def _get_raw(
    site: Site, key: str, *, byte_range: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A GET whose answer is read by hand, its head already gone."""
    host = site.client.url.partition("://")[2]
    raw = RawRequest(method="GET", path=f"/{site.bucket}/{key}".encode(), query=b"", headers=(), host=host)
    signer = Signer(access_key=site.client.key.access_key, secret_key=site.client.key.secret_key, region=REGION)
    lines = b"".join(b"%s: %s\r\n" % item for item in sign_request(raw, signer, payload=EMPTY, now=datetime.now(UTC)))
    address, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(address, int(port), limit=1 << 16)
    try:
        wanted = f"Range: {byte_range}\r\n".encode() if byte_range else b""
        writer.write(b"GET %s HTTP/1.1\r\n" % raw.path + lines + wanted + b"\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 20")
        yield reader, writer
    finally:
        writer.close()


async def test_errors_of_the_storage_pass_unchanged(site: Site) -> None:
    """S3's own codes come through; HEAD has none, operations that the door does not know are NotImplemented."""
    assert (await site.client.send("GET", f"/{site.bucket}/nothing")).code == "NoSuchKey"
    head = await site.client.send("HEAD", f"/{site.bucket}/nothing")
    assert (head.status, head.body) == (404, b"")
    unknown = await site.client.send("GET", f"/{site.bucket}", query=[("torrent", None)])
    assert (unknown.status, unknown.code) == (501, "NotImplemented")


async def test_the_body_is_asked_for_only_after_the_signature(site: Site) -> None:
    """With Expect: 100-continue a refused request is answered without its body; a good one is asked for it."""
    for spoil, expected in ((True, b"HTTP/1.1 403"), (False, b"HTTP/1.1 100")):
        host = site.client.url.partition("://")[2]
        raw = RawRequest(method="PUT", path=f"/{site.bucket}/a.jpg".encode(), query=b"", headers=(), host=host)
        key = site.client.key
        secret = "x" * 40 if spoil else key.secret_key
        signer = Signer(access_key=key.access_key, secret_key=secret, region=REGION)
        signed = sign_request(raw, signer, payload="UNSIGNED-PAYLOAD", now=datetime.now(UTC))
        address, _, port = host.partition(":")
        reader, writer = await asyncio.open_connection(address, int(port))
        lines = b"".join(b"%s: %s\r\n" % header for header in signed)
        writer.write(b"PUT %s HTTP/1.1\r\n" % raw.path + lines + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(expected)
        writer.close()
