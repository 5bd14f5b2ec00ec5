"""Browser forms through the door: signed by V4 and by V2, unsigned, and with every kind of broken policy.

In turn, because RGW 16 dies of two policies that it reads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import compared_in_turn
from tests.conformance.forms import make_policy, post, sign_v2, sign_v4
from tests.conformance.site import S3, Bucket

PLAIN = [("key", "foo.txt"), ("acl", "private"), ("Content-Type", "text/plain")]
SIGNERS: dict[str, Callable[..., list[tuple[str, str]]]] = {"v4": sign_v4, "v2": sign_v2}
by_each_version = pytest.mark.parametrize("version", list(SIGNERS))


@by_each_version
@compared_in_turn
def test_right_ones(s3: S3, version: str) -> None:
    """A form stores its file: with metadata, tags, statuses, redirects, names taken from the file."""
    bucket = s3.make_bucket()
    sign = SIGNERS[version]
    _post(bucket, sign, PLAIN)
    bucket.get_object(Key="foo.txt")
    _post(bucket, sign, [("key", "foo-${filename}"), *PLAIN[1:]])
    for named in ("foo-upload.txt", "foo-${filename}", "foo-other.txt"):  # what the condition is held against
        _post(bucket, sign, [("key", "foo-${filename}"), *PLAIN[1:]], ["eq", "$key", named])
    bucket.list_objects()
    for status in ("200", "201", "204", "404", "nonsense", ""):
        condition = ["starts-with", "$success_action_status", ""]
        _post(bucket, sign, [*PLAIN, ("success_action_status", status)], condition)
    for address in (f"{s3.site.url}/{bucket.name}", "http://elsewhere.example/?a=b", "nonsense"):
        _post(
            bucket,
            sign,
            [*PLAIN, ("success_action_redirect", address)],
            ["starts-with", "$success_action_redirect", ""],
        )
    _post(bucket, sign, [*PLAIN, ("x-amz-meta-foo", "bar")], ["starts-with", "$x-amz-meta-foo", "b"])
    bucket.head_object(Key="foo.txt")
    tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"
    _post(bucket, sign, [*PLAIN, ("tagging", tags)], ["starts-with", "$tagging", ""])
    bucket.get_object_tagging(Key="foo.txt")
    _post(bucket, sign, [*PLAIN, ("x-ignore-foo", "bar")])
    _post(bucket, sign, PLAIN, file=b"")
    bucket.get_object(Key="foo.txt")
    _post(bucket, sign, PLAIN, file=bytes(1024))
    _post(bucket, sign, PLAIN, ["content-length-range", 0, 9 << 20], file=bytes(3 << 20))
    bucket.head_object(Key="foo.txt")
    _post(bucket, sign, [("key", "foo \u00fc+"), *PLAIN[1:]])
    bucket.list_objects()
    _post(bucket, sign, PLAIN, after=[("submit", "Upload")])


@by_each_version
@compared_in_turn
def test_conditions(s3: S3, version: str) -> None:
    """What the policy does not allow is refused: keys, buckets, sizes, fields that are not named."""
    bucket, other = s3.make_bucket(), s3.make_bucket()
    sign = SIGNERS[version]
    for fields, more, file in (
        ([("key", "other.txt"), *PLAIN[1:]], (), b"bar"),
        ([("key", "FOO.txt"), *PLAIN[1:]], (), b"bar"),
        ([PLAIN[0], ("acl", "public-read"), PLAIN[2]], (), b"bar"),
        ([*PLAIN[:2], ("Content-Type", "image/png")], (), b"bar"),
        ([PLAIN[0], PLAIN[2]], (), b"bar"),
        (PLAIN[:2], (), b"bar"),
        (PLAIN, (), bytes(1025)),
        (PLAIN, (["content-length-range", 512, 1024],), b"bar"),
        ([*PLAIN, ("x-amz-meta-foo", "bar")], (), b"bar"),
        ([*PLAIN, ("x-amz-meta-foo", "bar")], (["eq", "$x-amz-meta-foo", "other"],), b"bar"),
        (PLAIN, (["starts-with", "$x-amz-meta-foo", "bar"],), b"bar"),
        (PLAIN, ({"x-amz-meta-foo": "bar"},), b"bar"),
    ):
        _post(bucket, sign, fields, *more, file=file)
        bucket.list_objects()
    post(other, [*PLAIN, *sign(s3.login, make_policy(bucket.name))])
    other.list_objects()
    insensitive = [
        {"bUcKeT": bucket.name},
        ["StArTs-WiTh", "$KeY", "foo"],
        {"AcL": "private"},
        ["StArTs-WiTh", "$CoNtEnT-TyPe", "text/plain"],
        ["content-length-range", 0, 1024],
    ]
    post(bucket, [*PLAIN, *sign(s3.login, make_policy(bucket.name, conditions=insensitive))])
    upper_names = [("kEy", "foo.txt"), ("aCl", "private"), ("cOnTeNt-TyPe", "text/plain")]
    post(bucket, [*upper_names, *sign(s3.login, make_policy(bucket.name))])
    escaped = [
        {"bucket": bucket.name},
        ["starts-with", "$key", "\\$foo"],
        {"acl": "private"},
        ["starts-with", "$Content-Type", "text/plain"],
        ["content-length-range", 0, 1024],
    ]
    post(bucket, [("key", "\\$foo.txt"), *PLAIN[1:], *sign(s3.login, make_policy(bucket.name, conditions=escaped))])
    bucket.list_objects()


@by_each_version
@compared_in_turn
def test_policies_that_are_none(s3: S3, version: str) -> None:
    """Policies without conditions, without or with a wrong expiration, expired, of wrong types."""
    bucket = s3.make_bucket()
    sign = SIGNERS[version]
    name = bucket.name
    policies: list[dict[str, Any]] = [
        make_policy(name, minutes=-10),
        make_policy(name, expiration=None),
        make_policy(name, expiration="2050-01-01"),
        make_policy(name, expiration="nonsense"),
        make_policy(name, expiration=""),
        make_policy(name, expiration="2050-01-01T00:00:00.000Z"),
        {**make_policy(name, expiration=None), "EXPIRATION": "2050-01-01T00:00:00Z"},
        make_policy(name, ["content-length-range", 0]),
        make_policy(name, ["content-length-range", -1, 0]),
        make_policy(name, ["content-length-range", "a", "b"]),
        make_policy(name, ["content-length-range", 5, 1]),
        make_policy(name, ["nonsense", "$key", "foo"]),
        make_policy(name, {}),
        make_policy(name, []),
        make_policy(name, "text"),
        make_policy(name, conditions=[]),
        make_policy(name, ["content-length-range", "0", "1024"]),
    ]
    if version == "v2":  # V4 asks for conditions of its own
        policies += [
            make_policy(name, conditions=None),
            {**make_policy(name, conditions=None), "CONDITIONS": make_policy(name)["conditions"]},
        ]
    # SeaweedFS takes some of them, and refuses others with 403.
    with s3.answered_with_the_same_status() if s3.site.storage == "rgw" else s3.refused_alike_or_more_strictly():
        for policy in policies:
            post(bucket, [*PLAIN, *sign(s3.login, policy)])
        post(bucket, [*PLAIN, ("success_action_status", "201"), *sign(s3.login, make_policy(name))])
    with s3.refused_by_both():
        post(bucket, [*PLAIN, *sign(s3.login, make_policy(name, conditions="text"))])
        post(bucket, [*PLAIN, *sign_v2(s3.login, {})])


@compared_in_turn
def test_signatures(s3: S3) -> None:
    """Signatures that are wrong, missing, of unknown keys; policies that are missing or not encoded."""
    bucket = s3.make_bucket()
    v2 = dict(sign_v2(s3.login, make_policy(bucket.name)))
    v4 = dict(sign_v4(s3.login, make_policy(bucket.name)))
    with s3.answered_with_the_same_status() if s3.site.storage == "rgw" else s3.refused_by_both():
        for changed in (
            {"signature": v2["signature"][::-1]},
            {"signature": None},
            {"AWSAccessKeyId": "NOBODYATALLNOBODY"},
            {"AWSAccessKeyId": None},
            {"policy": v2["policy"][4:]},
        ):
            post(bucket, [*PLAIN, *_changed(v2, changed)])
        for changed in (
            {"x-amz-signature": "0" * 64},
            {"x-amz-signature": None},
            {"policy": v4["policy"][4:]},
        ):
            post(bucket, [*PLAIN, *_changed(v4, changed)])
    with s3.refused_by_both():
        for text in ("nonsense", "{", "[]", '{"expiration"}', ""):
            post(bucket, [*PLAIN, *sign_v2(s3.login, text)])
        for changed in ({"signature": ""}, {"policy": None}):
            post(bucket, [*PLAIN, *_changed(v2, changed)])
        for changed in (
            {"x-amz-credential": v4["x-amz-credential"].replace(s3.login.access_key, "NOBODYATALLNOBODY")},
            {"x-amz-credential": "nonsense"},
            {"x-amz-date": "nonsense"},
            {"x-amz-algorithm": "nonsense"},
            {"x-amz-credential": v4["x-amz-credential"].replace("/s3/", "/iam/")},
        ):
            post(bucket, [*PLAIN, *_changed(v4, changed)])
        post(bucket, [*PLAIN, *sign_v4(s3.by("bad").login, make_policy(bucket.name))])
        post(bucket, [*PLAIN, *sign_v2(s3.by("bad").login, make_policy(bucket.name))])
    bucket.list_objects()


@compared_in_turn
def test_malformed_forms(s3: S3) -> None:
    """Without a key, a file, a boundary, an end, a content type."""
    bucket = s3.make_bucket()
    signed = sign_v4(s3.login, make_policy(bucket.name))
    with s3.answered_with_the_same_status():
        post(bucket, [*PLAIN[1:], *signed])
        post(bucket, [("key", ""), *PLAIN[1:], *signed])
    with s3.refused_by_both():
        post(bucket, [*PLAIN, *signed], content_type="multipart/form-data")
        post(bucket, [*PLAIN, *signed], content_type="application/x-www-form-urlencoded")
        post(bucket, [*PLAIN, *signed], content_type="multipart/form-data; boundary=other")
    bucket.list_objects()
    with s3.refused_alike_or_more_strictly():
        post(bucket, [*PLAIN, *signed], file=None)
        post(bucket, [*PLAIN, *PLAIN, *signed])
        post(bucket, [*PLAIN, ("big", "x" * 30_000), *signed])


@compared_in_turn
def test_unsigned_forms(s3: S3) -> None:
    """Forms of strangers, into buckets that are closed and open to them."""
    for acl in ("private", "public-read-write"):
        bucket = s3.make_bucket(ACL=acl)
        post(bucket, [("key", "foo.txt"), ("acl", "public-read"), ("Content-Type", "text/plain")])
        post(bucket, [("key", "foo.txt")])
        post(bucket, [("key", "foo-${filename}"), ("success_action_status", "201")])
        tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"
        post(bucket, [("key", "tagged.txt"), ("acl", "public-read"), ("tagging", tags)])
        bucket.list_objects()
        bucket.get_object(Key="foo.txt")
        bucket.get_object_tagging(Key="tagged.txt")
    absent = s3.bucket("absent-bucket")
    post(absent, [("key", "foo.txt")])


@compared_in_turn
def test_forms_of_others(s3: S3) -> None:
    """Another user's form goes by that user's rights."""
    bucket = s3.make_bucket()
    for acl in ("private", "public-read-write"):
        bucket.put_bucket_acl(ACL=acl)
        for sign in SIGNERS.values():
            post(bucket, [*PLAIN, *sign(s3.by("alt").login, make_policy(bucket.name))])
        bucket.list_objects()


@compared_in_turn
def test_encrypted_forms(s3: S3) -> None:
    """A form whose file the storage shall encrypt, with the client's key or a service's."""
    bucket = s3.make_bucket()
    own = [
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-server-side-encryption-customer-key", "pO3upElrwuEXSoFwCfnZPdSsmt/xWeFa0N9KgDijwVs="),
        ("x-amz-server-side-encryption-customer-key-md5", "DWygnHRtgiJ77HCm+1rvHw=="),
    ]
    service = [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "testkey-1"),
    ]
    for fields in (own, service):
        _post(bucket, sign_v4, [*PLAIN, *fields], *(["starts-with", f"${name}", ""] for name, _ in fields))
        bucket.send("GET", "foo.txt", headers=own if fields is own else [])


def _post(
    bucket: Bucket, sign: Callable[..., list[tuple[str, str]]], fields: list[tuple[str, str]], *more: Any, **form: Any
) -> None:
    """With a policy of its own. A range of lengths among the conditions takes the place of the usual one."""
    policy = make_policy(bucket.name, *more)
    ranges = [item for item in policy["conditions"] if isinstance(item, list) and item[0] == "content-length-range"]
    if len(ranges) > 1:
        policy["conditions"].remove(ranges[0])
    post(bucket, [*fields, *sign(bucket.s3.login, policy)], **form)


def _changed(fields: dict[str, str], changed: dict[str, str | None]) -> list[tuple[str, str]]:
    merged: dict[str, str | None] = {**fields, **changed}
    return [(name, value) for name, value in merged.items() if value is not None]
