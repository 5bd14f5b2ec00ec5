"""Uploads in parts through the door: as they should be, and with every mistake."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from tests.conformance.conftest import compared
from tests.conformance.site import S3, Bucket

PART = bytes(range(256)) * (5 << 12)  # 5 MiB
XML = '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</CompleteMultipartUpload>'


@compared
def test_whole_life(s3: S3) -> None:
    """Begun with headers, put in parts, listed, completed, read by parts and ranges."""
    bucket = s3.make_bucket()
    begun = bucket.create_multipart_upload(
        Key="foo", ContentType="text/bla", Metadata={"foo": "bar"}, CacheControl="no-cache", Tagging="a=1"
    )
    upload = {"Key": "foo", "UploadId": begun["UploadId"]}
    bucket.list_multipart_uploads()
    parts = [_put(bucket, upload, number, body) for number, body in ((1, PART), (2, PART), (3, b"end"))]
    bucket.list_parts(**upload)
    bucket.list_parts(**upload, MaxParts=1)
    bucket.list_parts(**upload, PartNumberMarker=2)
    bucket.list_parts(**upload, PartNumberMarker=9)
    bucket.list_objects()
    bucket.get_object(Key="foo")
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    bucket.head_object(Key="foo")
    bucket.get_object(Key="foo")
    bucket.get_object(Key="foo", Range=f"bytes={len(PART) - 2}-{len(PART) + 2}")
    for number in (1, 3, 4):
        bucket.head_object(Key="foo", PartNumber=number)
        bucket.get_object(Key="foo", PartNumber=number)
    bucket.get_object_tagging(Key="foo")
    bucket.list_objects_v2()
    bucket.list_multipart_uploads()
    bucket.list_parts(**upload)
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


@compared
def test_parts_put_again(s3: S3) -> None:
    """The last put of a part counts, whatever the order, and numbers may have gaps."""
    bucket = s3.make_bucket()
    upload = _begin(bucket, "foo")
    third = _put(bucket, upload, 30, b"end")
    _put(bucket, upload, 7, b"first try")
    first = _put(bucket, upload, 7, PART)
    with s3.answered_with_the_same_status():  # SeaweedFS lists both tries, in an order of its own each time
        bucket.list_parts(**upload)
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": [first, third]})
    bucket.get_object(Key="foo")


@compared
def test_one_part(s3: S3) -> None:
    """One small part, and one empty one."""
    bucket = s3.make_bucket()
    for key, body in (("small", b"x"), ("empty", b"")):
        upload = _begin(bucket, key)
        part = _put(bucket, upload, 1, body)
        bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
        bucket.get_object(Key=key)


@compared
def test_wrong_lists_of_parts(s3: S3) -> None:
    """Completed without parts, with absent ones, wrong ETags, a wrong order, twice the same, or malformed."""
    bucket = s3.make_bucket()
    upload = _begin(bucket, "foo")
    one, two = _put(bucket, upload, 1, PART), _put(bucket, upload, 2, b"end")
    for parts in (
        [],
        [one, {"PartNumber": 3, "ETag": two["ETag"]}],
        [{"PartNumber": 1, "ETag": '"ffffffffffffffffffffffffffffffff"'}, two],
        [two, one],
        [one, one],
        [{"PartNumber": 0, "ETag": one["ETag"]}],
        [{"PartNumber": 10_001, "ETag": one["ETag"]}],
        [{"PartNumber": -1, "ETag": one["ETag"]}],
    ):
        bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    query = f"uploadId={upload['UploadId']}"
    for body in ("", "nonsense", XML.format(""), XML.format("<Part></Part>"), XML.format("<Part><PartNumber>1")):
        bucket.send("POST", "foo", query=query, body=body.encode())
    bucket.get_object(Key="foo")
    etag = one["ETag"].strip('"')
    unquoted = f"<Part><ETag>{etag}</ETag><PartNumber>1</PartNumber></Part>"
    bucket.send("POST", "foo", query=query, body=XML.format(unquoted).encode())
    bucket.head_object(Key="foo")


@compared
def test_small_parts(s3: S3) -> None:
    """Parts below the minimum, but for the last one."""
    bucket = s3.make_bucket()
    upload = _begin(bucket, "foo")
    parts = [_put(bucket, upload, number, b"small") for number in (1, 2, 3)]
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    bucket.get_object(Key="foo")


@compared
def test_absent_uploads(s3: S3) -> None:
    """Uploads that are not there, or no longer, or somebody else's key's."""
    bucket = s3.make_bucket()
    absent = {"Key": "foo", "UploadId": "56788"}
    _put(bucket, absent, 1, b"x")
    bucket.list_parts(**absent)
    bucket.abort_multipart_upload(**absent)
    bucket.complete_multipart_upload(**absent, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": '"0"'}]})
    upload = _begin(bucket, "foo")
    _put(bucket, {**upload, "Key": "other"}, 1, b"x")
    bucket.list_parts(**{**upload, "Key": "other"})
    _put(bucket, upload, 1, b"x")
    bucket.abort_multipart_upload(**upload)
    bucket.abort_multipart_upload(**upload)
    bucket.list_parts(**upload)
    _put(bucket, upload, 1, b"x")
    bucket.list_multipart_uploads()


@compared
def test_part_numbers(s3: S3) -> None:
    """Numbers out of bounds, and none."""
    bucket = s3.make_bucket()
    upload = _begin(bucket, "foo")
    with s3.refused_alike_or_more_strictly():  # RGW takes them for parts, or for objects
        for number in ("0", "-1", "10001", "blah", "", "1.5", "9999999999999999999999"):
            bucket.send("PUT", "foo", query=f"partNumber={number}&uploadId={upload['UploadId']}", body=b"x")
        bucket.send("PUT", "foo", query=f"uploadId={upload['UploadId']}", body=b"x")
        bucket.send("PUT", "foo", query="partNumber=1", body=b"x")
    bucket.send("PUT", "foo", query="partNumber=1&uploadId=", body=b"x")
    bucket.send("PUT", "foo", query=f"partNumber=10000&uploadId={upload['UploadId']}", body=b"x")
    bucket.send("GET", "foo", query="uploadId=")


@compared
def test_listing_uploads(s3: S3) -> None:
    """Uploads under way: by prefix, delimiter, in pages, by markers."""
    bucket = s3.make_bucket()
    for key in ("a/1", "a/2", "b", "\u00fc b"):
        _begin(bucket, key)
    bucket.list_multipart_uploads()
    bucket.list_multipart_uploads(Prefix="a/")
    bucket.list_multipart_uploads(Delimiter="/")
    page = bucket.list_multipart_uploads(MaxUploads=1)
    bucket.list_multipart_uploads(
        MaxUploads=1, KeyMarker=page.get("NextKeyMarker", ""), UploadIdMarker=page.get("NextUploadIdMarker", "")
    )
    bucket.list_multipart_uploads(EncodingType="url")


@compared
def test_copied_parts(s3: S3) -> None:
    """Parts copied whole, by ranges, from keys of every kind, and from ranges that are wrong."""
    bucket = s3.make_bucket()
    sources = ("source", "two words", "a+b", "\u00fc/%")  # of `?versionId=x` RGW 16 dies
    for key in sources:
        bucket.put(key, body=PART + b"0123456789")
    upload = _begin(bucket, "foo")
    for key in sources:
        bucket.upload_part_copy(**upload, PartNumber=1, CopySource={"Bucket": bucket.name, "Key": key})
    source = {"Bucket": bucket.name, "Key": "source"}
    for asked in (
        "bytes=0-3",
        f"bytes=0-{len(PART) - 1}",
        "bytes=0-99999999",
        "bytes=5-2",
        "bytes=-3",
        "bytes=0",
        "bytes=hello-world",
        "bytes=0-bar",
        "bytes=,0-3",
        "hello-world",
        "bytes=0-3,5-6",
        "",
    ):
        bucket.upload_part_copy(**upload, PartNumber=2, CopySource=source, CopySourceRange=asked)
    bucket.upload_part_copy(**upload, PartNumber=2, CopySource={"Bucket": bucket.name, "Key": "absent"})
    bucket.upload_part_copy(**upload, PartNumber=2, CopySource={"Bucket": "absent-bucket", "Key": "absent"})
    bucket.upload_part_copy(**{**upload, "UploadId": "absent"}, PartNumber=2, CopySource=source)
    bucket.upload_part_copy(**upload, PartNumber=2, CopySource=source, CopySourceIfMatch='"other"')
    bucket.upload_part_copy(**upload, PartNumber=2, CopySource=source, CopySourceRange="bytes=0-3")
    parts = bucket.list_parts(**upload)["Parts"]
    chosen = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": chosen})
    bucket.get_object(Key="foo")


@compared
def test_overwriting(s3: S3) -> None:
    """An upload completed over an object, and an object put while an upload goes on."""
    bucket = s3.make_bucket()
    bucket.put("foo", body=b"old")
    upload = _begin(bucket, "foo")
    part = _put(bucket, upload, 1, b"new")
    bucket.get_object(Key="foo")
    bucket.put("foo", body=b"meanwhile")
    bucket.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
    bucket.get_object(Key="foo")


@compared
def test_conditions_of_completing(s3: S3) -> None:
    """Completed only if nothing lies there."""
    bucket = s3.make_bucket()
    for key in ("there", "absent"):
        upload = _begin(bucket, key)
        part = _put(bucket, upload, 1, b"new")
        if key == "there":
            bucket.put(key, body=b"old")
        query = f"uploadId={upload['UploadId']}"
        listed = f"<Part><ETag>{part['ETag']}</ETag><PartNumber>1</PartNumber></Part>"
        bucket.send("POST", key, query=query, headers=[("If-None-Match", "*")], body=XML.format(listed).encode())
        bucket.get_object(Key=key)


@compared
def test_checks_of_parts(s3: S3) -> None:
    """A part whose MD5 is wrong or malformed is refused, a right one taken."""
    bucket = s3.make_bucket()
    upload = _begin(bucket, "foo")
    query = f"partNumber=1&uploadId={upload['UploadId']}"
    for md5 in ("rL0Y20xC+Fzt72VPzMSk2A==", "N7UdGUp1E+RbVvZSTy1R8g=="):
        bucket.send("PUT", "foo", query=query, headers=[("Content-MD5", md5)], body=b"bar")
        bucket.list_parts(**upload)
    with s3.refused_by_both():
        bucket.send("PUT", "foo", query=query, headers=[("Content-MD5", "bad")], body=b"bar")


@compared
def test_checksum_of_the_whole(s3: S3) -> None:
    """Completed with the checksum of the object, which is of its parts' checksums and not of the request's body: a
    right one, a wrong one, none at all."""
    bucket = s3.make_bucket()
    digest = hashlib.sha256(b"new").digest()
    of_part = base64.b64encode(digest).decode()
    of_parts = base64.b64encode(hashlib.sha256(digest).digest()).decode()
    for key, stated in (("right", f"{of_parts}-1"), ("wrong", f"{of_parts}-2"), ("whole", of_parts), ("none", "bad")):
        upload = bucket.create_multipart_upload(Key=key, ChecksumAlgorithm="SHA256")
        query = f"uploadId={upload['UploadId']}"
        promised = [("x-amz-checksum-sha256", of_part)]
        put = bucket.send("PUT", key, query=f"{query}&partNumber=1", headers=promised, body=b"new")
        etag = f"<ETag>{put.headers['etag']}</ETag>"
        listed = f"<Part>{etag}<PartNumber>1</PartNumber><ChecksumSHA256>{of_part}</ChecksumSHA256></Part>"
        stating = [("x-amz-checksum-sha256", stated)]
        bucket.send("POST", key, query=query, headers=stating, body=XML.format(listed).encode())
        bucket.get_object(Key=key)


@compared
def test_by_others(s3: S3) -> None:
    """Uploads of one user cannot be seen, continued or ended by another one, nor by strangers."""
    bucket = s3.make_bucket()
    upload = _begin(bucket, "foo")
    part = _put(bucket, upload, 1, b"new")
    for other in (bucket.by("alt"), bucket.stranger):
        other.list_multipart_uploads()
        other.list_parts(**upload)
        other.upload_part(**upload, PartNumber=1, Body=b"x")
        other.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
        other.abort_multipart_upload(**upload)
        other.create_multipart_upload(Key="bar")
    bucket.list_parts(**upload)


def _begin(bucket: Bucket, key: str) -> dict[str, Any]:
    return {"Key": key, "UploadId": bucket.create_multipart_upload(Key=key)["UploadId"]}


def _put(bucket: Bucket, upload: dict[str, Any], number: int, body: bytes) -> dict[str, Any]:
    return {"PartNumber": number, "ETag": bucket.upload_part(**upload, PartNumber=number, Body=body).get("ETag", "")}
