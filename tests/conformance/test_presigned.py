"""Presigned URLs through the door, V4 and V2: right ones, expired ones, altered ones."""

from __future__ import annotations

import re
import time

import pytest

from tests.conformance.conftest import compared
from tests.conformance.site import S3

VERSIONS = ["s3v4", "s3"]


@pytest.mark.parametrize("version", VERSIONS)
@compared
def test_right_ones(s3: S3, version: str) -> None:
    """Get, head, put, delete and list by presigned URL."""
    bucket = s3.make_bucket()
    bucket.put("foo", "two words+\u00e9")
    for key in ("foo", "two words+\u00e9", "absent"):
        s3.exchange("GET", bucket.presign("get_object", version=version, Key=key))
        s3.exchange("HEAD", bucket.presign("head_object", version=version, Key=key))
    s3.exchange("PUT", bucket.presign("put_object", version=version, Key="new"), body=b"x")
    s3.exchange("GET", bucket.presign("get_object", version=version, Key="new"), [("Range", "bytes=0-0")])
    s3.exchange("DELETE", bucket.presign("delete_object", version=version, Key="new"))
    s3.exchange("GET", bucket.presign("list_objects", version=version))
    s3.exchange("GET", bucket.presign("list_objects_v2", version=version, Prefix="f", Delimiter="/"))
    s3.exchange("GET", bucket.presign("get_bucket_acl", version=version))
    named = {"ResponseContentType": "a/b", "ResponseContentDisposition": 'attachment; filename="a b"'}
    typed = bucket.presign("put_object", version=version, Key="typed", ContentType="text/x", Metadata={"a": "1"})
    with s3.taken_at_least_by_the_door(version == "s3"):  # each storage has its own idea of what V2 signs
        s3.exchange("GET", bucket.presign("get_object", version=version, Key="foo", **named))
        s3.exchange("PUT", typed, [("Content-Type", "text/x"), ("x-amz-meta-a", "1")], b"x")
        s3.exchange("GET", bucket.presign("get_object", version=version, Key="typed"))
    s3.exchange(
        "PUT",
        bucket.presign("put_object", version=version, Key="acl", ACL="public-read"),
        [("x-amz-acl", "public-read")],
        b"x",
    )
    bucket.stranger.get_object(Key="acl")


@pytest.mark.parametrize("version", VERSIONS)
@compared
def test_altered_ones(s3: S3, version: str) -> None:
    """Another method, key, query, type or signature than was signed is refused."""
    bucket = s3.make_bucket()
    bucket.put("foo", "bar")
    url = bucket.presign("get_object", version=version, Key="foo")
    s3.exchange("GET", url)
    with s3.refused_by_both():
        s3.exchange("PUT", url, body=b"x")
        s3.exchange("DELETE", url)
        s3.exchange("GET", url.replace("/foo?", "/bar?"))
        s3.exchange("GET", url.replace("Signature=", "Signature=0"))
        s3.exchange("GET", re.sub("(AWSAccessKeyId|Credential)=", r"\1=NOBODY", url))
        s3.exchange("GET", bucket.by("bad").presign("get_object", version=version, Key="foo"))
        s3.exchange(
            "PUT",
            bucket.presign("put_object", version=version, Key="x", ContentType="text/x"),
            [("Content-Type", "text/y")],
            b"x",
        )
    with s3.refused_alike_or_more_strictly():
        s3.exchange("GET", url + "&acl")
        s3.exchange("GET", url + "&versionId=1")
        s3.exchange("GET", url + "&response-content-type=a/b")


@pytest.mark.parametrize("seconds", [1000, 604_800, 0, -1, -1000, 604_801, 609_901])
@compared
def test_lives_of_v4(s3: S3, seconds: int) -> None:
    """Lives within the week, without it, none, and negative: a refusal has the status that Ceph gives it."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    is_ceph = s3.site.storage == "rgw"
    with s3.answered_with_the_same_status() if is_ceph or 0 < seconds <= 604_800 else s3.refused_by_both():
        s3.exchange("GET", s3.presign_v4("GET", f"/{bucket.name}/foo", seconds))
        s3.exchange("PUT", s3.presign_v4("PUT", f"/{bucket.name}/bar", seconds), body=b"x")
    bucket.get_object(Key="bar")


@pytest.mark.parametrize("seconds", [1000, 0, -1, -1000])
@compared
def test_lives_of_v2(s3: S3, seconds: int) -> None:
    """Times to come and times past."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    with s3.answered_with_the_same_status():
        s3.exchange("GET", bucket.presign("get_object", version="s3", Key="foo", expires=seconds))
        s3.exchange("PUT", bucket.presign("put_object", version="s3", Key="bar", expires=seconds), body=b"x")


@compared
def test_broken_v4(s3: S3) -> None:
    """Parameters that are missing, repeated or malformed."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    url = bucket.presign("get_object", Key="foo")
    path, _, query = url.partition("?")
    pairs = query.split("&")
    with s3.refused_by_both():
        for pair in pairs:
            name = pair.partition("=")[0]
            s3.exchange("GET", f"{path}?{'&'.join(p for p in pairs if p != pair)}")
            s3.exchange("GET", f"{path}?{'&'.join(p if p != pair else f'{name}=' for p in pairs)}")
            s3.exchange("GET", f"{path}?{'&'.join(p if p != pair else f'{name}=nonsense' for p in pairs)}")
        s3.exchange("GET", url.replace("%2Fs3%2F", "%2Fiam%2F"))
        s3.exchange("GET", url.replace("aws4_request", "aws5_request"))
        s3.exchange("GET", url.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"))


@compared
def test_broken_v2(s3: S3) -> None:
    """Parameters that are missing or malformed."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    url = bucket.presign("get_object", version="s3", Key="foo")
    path, _, query = url.partition("?")
    pairs = query.split("&")
    with s3.refused_by_both():
        for pair in pairs:
            name = pair.partition("=")[0]
            s3.exchange("GET", f"{path}?{'&'.join(p for p in pairs if p != pair)}")
            s3.exchange("GET", f"{path}?{'&'.join(p if p != pair else f'{name}=' for p in pairs)}")
            s3.exchange("GET", f"{path}?{'&'.join(p if p != pair else f'{name}=nonsense' for p in pairs)}")


@compared
def test_an_expired_one(s3: S3) -> None:
    """A URL whose life of one second has passed."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    url, made_at = bucket.presign("get_object", Key="foo", expires=1), time.time()
    s3.wait_until(lambda: time.time() > made_at + 2.1)
    s3.exchange("GET", url)
