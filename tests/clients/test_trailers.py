"""boto3 over TLS with its own defaults: it sends a checksum behind every body. With SAFELIGHT_S3_TRAILERS=pass the
storage gets it, too.
"""

from __future__ import annotations

import base64
import http.client
import os
import ssl
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from gateway.s3.request import RawRequest
from gateway.s3.scope import Signer
from gateway.s3.signing import sign_request
from tests.clients.conftest import BUCKET
from tests.clients.door import Certificates, Door, Surroundings
from tests.clients.endpoints import REGION
from tests.photos import make_jpeg

LARGE_BYTES = 20 << 20
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
PHOTO = make_jpeg(640, 480, noise=20)


@pytest.fixture(scope="module")
def door(
    tmp_path_factory: pytest.TempPathFactory, around: Surroundings, certificates: Certificates, storage: Any
) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("trailers") / "door"
    opened = Door(folder, around, certificates, {"SAFELIGHT_S3_TRAILERS": "pass"})
    yield opened
    opened.stop()


@pytest.fixture
def s3(door: Door) -> Any:
    at = door.endpoint
    return boto3.client(
        "s3",
        endpoint_url=at.url,
        verify=at.ca_file,
        aws_access_key_id=at.access_key,
        aws_secret_access_key=at.secret_key,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def test_the_storage_keeps_the_checksum_of_a_body(door: Door, s3: Any, storage: Any) -> None:
    """Told with the answer, by the door and by the storage; the object's encoding is as it was; a photo is recorded."""
    answer = s3.put_object(Bucket=BUCKET, Key="trailers/one.jpg", Body=PHOTO, ContentEncoding="identity")
    assert answer["ChecksumCRC32"] == crc32(PHOTO)
    for side in (s3, storage):
        head = side.head_object(Bucket=BUCKET, Key="trailers/one.jpg", ChecksumMode="ENABLED")
        assert (head["ChecksumCRC32"], head["ContentEncoding"]) == (crc32(PHOTO), "identity")
    assert storage.get_object(Bucket=BUCKET, Key="trailers/one.jpg")["Body"].read() == PHOTO
    assert door.recorded(BUCKET, "trailers/one.jpg") is not None


def test_the_storage_keeps_the_checksums_of_parts(s3: Any, storage: Any, tmp_path: Path) -> None:
    """An upload in parts: each part's checksum is the storage's, and the whole has one that names its parts."""
    data = os.urandom(LARGE_BYTES)
    (tmp_path / "large").write_bytes(data)
    s3.upload_file(
        str(tmp_path / "large"), BUCKET, "trailers/large", Config=TransferConfig(multipart_chunksize=8 << 20)
    )
    parts = [data[start : start + (8 << 20)] for start in range(0, LARGE_BYTES, 8 << 20)]
    sums = b"".join(zlib.crc32(part).to_bytes(4, "big") for part in parts)
    head = s3.head_object(Bucket=BUCKET, Key="trailers/large", ChecksumMode="ENABLED")
    assert head["ChecksumCRC32"].partition("-")[0] in {crc32(sums), crc32(data)}
    assert "ContentEncoding" not in head
    assert storage.get_object(Bucket=BUCKET, Key="trailers/large")["Body"].read() == data


@pytest.mark.parametrize(
    ("spoilt", "code"), [("checksum", "BadDigest"), ("length", "IncompleteBody"), ("end", "IncompleteBody")]
)
def test_a_false_body_leaves_nothing(door: Door, storage: Any, spoilt: str, code: str) -> None:
    """A wrong checksum, a chunk too few, and a body that is cut before its trailer are refused before the storage has
    heard of any end."""
    key, kept = f"trailers/false-{spoilt}", os.urandom(1 << 20)
    chunk = b"%x\r\n" % len(kept) + kept + b"\r\n"
    trailer = f"x-amz-checksum-crc32:{crc32(b'else' if spoilt == 'checksum' else kept)}\r\n\r\n".encode()
    body = chunk + (b"" if spoilt == "end" else b"0\r\n" + trailer)
    headers = {
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-decoded-content-length": str(len(kept) + (1 if spoilt == "length" else 0)),
    }
    status, answer = send_signed(door, f"/{BUCKET}/{key}", headers, body)
    assert (status, f"<Code>{code}</Code>".encode() in answer) == (400, True), answer
    assert storage.list_objects_v2(Bucket=BUCKET, Prefix=key)["KeyCount"] == 0


def send_signed(door: Door, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """A PUT over TLS, signed by hand."""
    at = door.endpoint
    stated = tuple((name.encode(), value.encode()) for name, value in headers.items())
    raw = RawRequest(method="PUT", path=path.encode(), query=b"", headers=stated, host=at.host)
    by = Signer(access_key=at.access_key, secret_key=at.secret_key, region=REGION)
    signed = sign_request(raw, by, payload=UNSIGNED_TRAILER, now=datetime.now(UTC))
    name = urlsplit(at.url)
    context = ssl.create_default_context(cafile=at.ca_file)
    connection = http.client.HTTPSConnection(str(name.hostname), name.port, context=context, timeout=30)
    try:
        connection.request("PUT", path, body=body, headers={n.decode(): v.decode() for n, v in signed})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
