"""Copies through the door: keys, directives, conditions, users, errors."""

from __future__ import annotations

import hashlib
import itertools

from tests.conformance.conftest import compared
from tests.conformance.site import S3

LONG_AGO, FAR_AHEAD = "Tue, 29 Oct 1994 19:43:31 GMT", "Tue, 29 Oct 2050 19:43:31 GMT"
KEYS = ("foo", "two words", "a+b", "100%", "%2F", "\u00fc/\u5199", "a?b", "a&b=c", "a//b", "?versionId=x", "a=b;c")


@compared
def test_keys(s3: S3) -> None:
    """Sources and targets of every kind of key, within a bucket and to another one."""
    bucket, other = s3.make_bucket(), s3.make_bucket()
    for key in KEYS:
        bucket.put(key)
        bucket.copy_object(Key=f"{key} copied", CopySource={"Bucket": bucket.name, "Key": key})
        other.copy_object(Key=key, CopySource={"Bucket": bucket.name, "Key": key})
        other.get_object(Key=key)
    bucket.list_objects()
    other.list_objects()


@compared
def test_source_as_it_is_written(s3: S3) -> None:
    """The source encoded, not encoded, with and without a slash before it, malformed, absent."""
    bucket = s3.make_bucket()
    bucket.put("foo", "a b", "a+b", "\u00fc", "a?b")
    name = bucket.name
    for source in (
        f"{name}/foo",
        f"/{name}/foo",
        f"%2F{name}%2Ffoo",
        f"{name}%2Ffoo",
        f"{name}/a b",
        f"{name}/a%20b",
        f"{name}/a+b",
        f"{name}/a%2Bb",
        f"{name}/\u00fc".encode().decode("latin-1"),
        f"{name}/%C3%BC",
        f"{name}/%66oo",
        f"{name}/a%3Fb",
        f"{name}/absent",
        "absent-bucket/foo",
        f"{name}/foo?versionId=null",
        f"{name}/foo?versionId=",
        f"{name}/foo?versionId=absent",
        f"{name}/foo?other=1",
    ):
        bucket.send("PUT", "copy", headers=[("x-amz-copy-source", source)])
        bucket.send("GET", "copy")
        bucket.send("DELETE", "copy")


@compared
def test_sources_that_are_none(s3: S3) -> None:
    """What names no object is refused, also where a storage takes it for no copy at all."""
    bucket = s3.make_bucket()
    with s3.refused_alike_or_more_strictly():
        for source in (bucket.name, f"/{bucket.name}/", f"//{bucket.name}/foo", "/", "", "foo"):
            bucket.send("PUT", "copy", headers=[("x-amz-copy-source", source)])


@compared
def test_directives(s3: S3) -> None:
    """Metadata, types and tags copied or replaced; onto itself with and without a change."""
    bucket = s3.make_bucket()
    bucket.put_object(
        Key="foo", Body=b"x", ContentType="text/bla", Metadata={"a": "1"}, CacheControl="no-cache", Tagging="t=1"
    )
    source = {"Bucket": bucket.name, "Key": "foo"}
    for number, more in enumerate(
        (
            {},
            {"MetadataDirective": "COPY"},
            {"MetadataDirective": "COPY", "Metadata": {"b": "2"}, "ContentType": "other/type"},
            {"MetadataDirective": "REPLACE"},
            {"MetadataDirective": "REPLACE", "Metadata": {"b": "2"}, "ContentType": "other/type"},
            {"MetadataDirective": "NONSENSE"},
            {"TaggingDirective": "COPY"},
            {"TaggingDirective": "REPLACE", "Tagging": "t=2"},
            {"TaggingDirective": "REPLACE"},
            {"StorageClass": "REDUCED_REDUNDANCY"},
            {"StorageClass": "STANDARD"},
            {"ACL": "public-read"},
            {"WebsiteRedirectLocation": "/x"},
        )
    ):
        bucket.copy_object(Key=f"copy{number}", CopySource=source, **more)
        bucket.get_object(Key=f"copy{number}")
        bucket.get_object_tagging(Key=f"copy{number}")
    bucket.copy_object(Key="foo", CopySource=source)
    bucket.copy_object(Key="foo", CopySource=source, MetadataDirective="REPLACE", Metadata={"c": "3"})
    bucket.head_object(Key="foo")
    bucket.copy_object(Key="foo", CopySource=source, StorageClass="STANDARD")


@compared
def test_conditions(s3: S3) -> None:
    """Every pair of conditions on the source, met and not met."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    etag = f'"{hashlib.md5(b"foo").hexdigest()}"'
    source = ("x-amz-copy-source", f"/{bucket.name}/foo")
    conditions: list[tuple[str, str]] = [
        ("x-amz-copy-source-if-match", etag),
        ("x-amz-copy-source-if-match", '"other"'),
        ("x-amz-copy-source-if-none-match", etag),
        ("x-amz-copy-source-if-none-match", '"other"'),
        ("x-amz-copy-source-if-modified-since", LONG_AGO),
        ("x-amz-copy-source-if-modified-since", FAR_AHEAD),
        ("x-amz-copy-source-if-unmodified-since", LONG_AGO),
        ("x-amz-copy-source-if-unmodified-since", FAR_AHEAD),
    ]
    for condition in conditions:
        bucket.send("PUT", "copy", headers=[source, condition])
    for one, other in itertools.combinations(conditions, 2):
        if one[0] != other[0]:
            bucket.send("PUT", "copy", headers=[source, one, other])


@compared
def test_contents(s3: S3) -> None:
    """Empty objects and large ones."""
    bucket = s3.make_bucket()
    for size in (0, 16 << 20):
        bucket.put("foo", body=bytes(size))
        bucket.copy_object(Key="copy", CopySource={"Bucket": bucket.name, "Key": "foo"})
        bucket.get_object(Key="copy")


@compared
def test_by_others(s3: S3) -> None:
    """Copies from and to buckets of another user, with and without leave."""
    bucket = s3.make_bucket()
    bucket.put("private")
    bucket.put_object(Key="public", Body=b"x", ACL="public-read")
    other = s3.by("alt").make_bucket()
    for key in ("private", "public", "absent"):
        other.by("alt").copy_object(Key=key, CopySource={"Bucket": bucket.name, "Key": key})
        bucket.by("alt").copy_object(Key=f"{key} copy", CopySource={"Bucket": bucket.name, "Key": key})
        bucket.stranger.copy_object(Key=f"{key} copy", CopySource={"Bucket": bucket.name, "Key": key})
        other.by("alt").get_object(Key=key)
    bucket.list_objects()


@compared
def test_copies_with_odd_bodies(s3: S3) -> None:
    """A copy whose request states no length, or the MD5 of its empty body."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    source = ("x-amz-copy-source", f"/{bucket.name}/foo")
    bucket.send("PUT", "copy", headers=[source], length=None)
    bucket.send("PUT", "copy", headers=[source, ("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==")])
    bucket.send("GET", "copy")
