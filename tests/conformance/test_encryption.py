"""Encryption that a client asks the storage for: with its own key, or with a key of a service."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from tests.conformance.conftest import compared
from tests.conformance.site import S3

PART = bytes(range(256)) * (5 << 12)


def _key(seed: int) -> dict[str, Any]:
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": bytes([seed]) * 32}


@compared
def test_own_key(s3: S3) -> None:
    """Put, read and described with the client's key; not without it, nor with another one."""
    bucket = s3.make_bucket()
    for size in (1, 1000, 1 << 20):
        bucket.put_object(Key="foo", Body=bytes(size), **_key(1))
        bucket.get_object(Key="foo", **_key(1))
        bucket.get_object(Key="foo", Range="bytes=0-4", **_key(1))
        bucket.head_object(Key="foo", **_key(1))
        bucket.get_object(Key="foo")
        bucket.head_object(Key="foo")
        bucket.get_object(Key="foo", **_key(2))
    bucket.put("plain")
    bucket.get_object(Key="plain", **_key(1))


@compared
def test_wrong_headers(s3: S3) -> None:
    """A key without its MD5, with a wrong one, too short, of an unknown algorithm."""
    bucket = s3.make_bucket()
    key = base64.b64encode(b"k" * 32).decode()
    md5 = base64.b64encode(hashlib.md5(b"k" * 32).digest()).decode()
    name = "x-amz-server-side-encryption-customer-"
    for number, headers in enumerate(
        (
            [("algorithm", "AES256"), ("key", key), ("key-md5", md5)],
            [("algorithm", "AES256"), ("key", key)],
            [("algorithm", "AES256"), ("key", key), ("key-md5", "AAAAAAAAAAAAAAAAAAAAAA==")],
            [("algorithm", "AES256")],
            [("key", key), ("key-md5", md5)],
            [("algorithm", "DES"), ("key", key), ("key-md5", md5)],
            [("algorithm", "AES256"), ("key", "c2hvcnQ="), ("key-md5", md5)],
        )
    ):
        bucket.send("PUT", f"foo{number}", headers=[(name + kind, value) for kind, value in headers], body=b"bar")


@compared
def test_own_key_in_parts(s3: S3) -> None:
    """An upload in parts with the client's key."""
    bucket = s3.make_bucket()
    upload = {"Key": "foo", "UploadId": bucket.create_multipart_upload(Key="foo", **_key(1))["UploadId"]}
    bucket.upload_part(**upload, PartNumber=1, Body=PART)
    bucket.upload_part(**upload, PartNumber=1, Body=PART, **_key(2))
    parts = [
        {
            "PartNumber": number,
            "ETag": bucket.upload_part(**upload, PartNumber=number, Body=body, **_key(1)).get("ETag", ""),
        }
        for number, body in ((1, PART), (2, b"end"))
    ]
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    bucket.get_object(Key="foo", **_key(1))
    bucket.get_object(Key="foo", Range=f"bytes={len(PART) - 3}-{len(PART) + 1}", **_key(1))
    bucket.get_object(Key="foo")


@compared
def test_own_key_of_copies(s3: S3) -> None:
    """Copies of what is encrypted, to what is and what is not."""
    bucket = s3.make_bucket()
    bucket.put_object(Key="foo", Body=b"secret", **_key(1))
    bucket.put("plain")
    of = {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": bytes([1]) * 32}
    bucket.copy_object(Key="open", CopySource={"Bucket": bucket.name, "Key": "foo"}, **of)
    bucket.get_object(Key="open")
    bucket.copy_object(Key="again", CopySource={"Bucket": bucket.name, "Key": "foo"}, **of, **_key(2))
    bucket.get_object(Key="again", **_key(2))
    bucket.copy_object(Key="closed", CopySource={"Bucket": bucket.name, "Key": "plain"}, **_key(1))
    bucket.get_object(Key="closed", **_key(1))
    bucket.copy_object(Key="without", CopySource={"Bucket": bucket.name, "Key": "foo"})


@compared
def test_key_of_a_service(s3: S3) -> None:
    """Keys by name: known, unknown, none, in a copy and in parts."""
    bucket = s3.make_bucket()
    for number, more in enumerate(
        (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "testkey-1"},
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "testkey-2"},
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "unknown"},
            {"ServerSideEncryption": "aws:kms"},
            {"ServerSideEncryption": "AES256"},
            {"ServerSideEncryption": "nonsense"},
            {"SSEKMSKeyId": "testkey-1"},
        )
    ):
        bucket.put_object(Key=f"foo{number}", Body=b"secret", **more)
        bucket.get_object(Key=f"foo{number}")
        bucket.head_object(Key=f"foo{number}")
    known = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "testkey-1"}
    upload = {"Key": "parts", "UploadId": bucket.create_multipart_upload(Key="parts", **known).get("UploadId", "none")}
    etag = bucket.upload_part(**upload, PartNumber=1, Body=b"part").get("ETag", "")
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    bucket.get_object(Key="parts")
    bucket.copy_object(Key="copy", CopySource={"Bucket": bucket.name, "Key": "foo0"})
    bucket.get_object(Key="copy")
