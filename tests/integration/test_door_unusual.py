"""What passes the S3 door rarely: bodies without a length, objects that only their client can read, more than a key may
reach."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests import photos
from tests.integration.door_site import Site, open_site
from tests.servers import S3Backend

OWN_KEY = {
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": base64.b64encode(b"k" * 32).decode(),
    "x-amz-server-side-encryption-customer-key-MD5": base64.b64encode(hashlib.md5(b"k" * 32).digest()).decode(),
}


@pytest.fixture
async def site(
    database: Any, blobs: Any, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix) as opened:
        yield opened


def photo(seed: int = 1) -> bytes:
    return photos.make_jpeg(64, 48, noise=20, seed=seed)


async def _pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_photo_without_a_length_is_recorded(site: Site) -> None:
    """A body in HTTP's chunks is stored whole, and its size is what was counted."""
    data = photo()
    reply = await site.client.put(f"/{site.bucket}/a.jpg", _pieces(data[:100], data[100:]), payload="UNSIGNED-PAYLOAD")
    assert reply.status == 200
    assert await site.value("select size_bytes from object where key = 'a.jpg'") == len(data)
    assert (await site.client.send("GET", f"/{site.bucket}/a.jpg")).body == data


async def test_a_false_body_without_a_length_stores_nothing(site: Site) -> None:
    """Its hash is checked before the storage has its end."""
    reply = await site.client.put(f"/{site.bucket}/a.jpg", _pieces(photo(), photo(2)), payload="0" * 64)
    assert reply.code == "XAmzContentSHA256Mismatch"
    assert not await site.has("a.jpg")


async def test_a_photo_that_only_its_client_can_read_is_left_alone(site: Site) -> None:
    """With the client's own key, put, copied or in parts, it is stored and not recorded; what it replaces is gone."""
    await site.client.put(f"/{site.bucket}/a.jpg", photo())
    await site.client.put(f"/{site.bucket}/b.jpg", photo())
    assert (await site.client.put(f"/{site.bucket}/a.jpg", photo(2), headers=OWN_KEY)).status == 200
    source = {"x-amz-copy-source": f"{site.bucket}/b.jpg"}
    await site.client.put(f"/{site.bucket}/c.jpg", photo(3))
    for key in ("c.jpg", "new.jpg"):
        copied = await site.client.send("PUT", f"/{site.bucket}/{key}", headers={**source, **OWN_KEY})
        assert (copied.status, copied.code) == (200, "")
    begun = await site.client.send("POST", f"/{site.bucket}/d.jpg", query=[("uploads", None)], headers=OWN_KEY)
    upload = begun.body.partition(b"<UploadId>")[2].partition(b"</UploadId>")[0].decode()
    query = [("partNumber", "1"), ("uploadId", upload)]
    part = await site.client.put(f"/{site.bucket}/d.jpg", photo(), query=query, headers=OWN_KEY)
    listed = f"<Part><PartNumber>1</PartNumber><ETag>{part.headers['ETag']}</ETag></Part>"
    body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    done = await site.client.send("POST", f"/{site.bucket}/d.jpg", query=[("uploadId", upload)], body=body)
    assert (done.status, done.code) == (200, "")
    assert sorted(await site.photos()) == [("a.jpg", False), ("b.jpg", True), ("c.jpg", False)]
    assert (await site.client.send("GET", f"/{site.bucket}/a.jpg", headers=OWN_KEY)).body == photo(2)


async def test_what_reaches_beyond_a_key_needs_more(site: Site) -> None:
    """Bypassing a retention needs the scope admin; a limited key sets nothing that names other buckets."""
    await site.client.put(f"/{site.bucket}/a.jpg", photo())
    bypass = {"x-amz-bypass-governance-retention": "true"}
    writer = await site.key_for(scopes=["read", "write"])
    assert (await writer.send("DELETE", f"/{site.bucket}/a.jpg", headers=bypass)).code == "AccessDenied"
    limited = await site.key_for(places=[site.bucket])
    for name in ("replication", "logging", "inventory", "analytics", "notification"):
        assert (await limited.send("PUT", f"/{site.bucket}", query=[(name, None)])).code == "AccessDenied"
    assert (await limited.send("GET", "/", query=[("usage", None)])).code == "AccessDenied"
    assert (await limited.send("GET", f"/{site.bucket}", query=[("cors", None)])).code == "NoSuchCORSConfiguration"
    assert await site.photos() == [("a.jpg", True)]
