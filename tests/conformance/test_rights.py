"""Who may do what, as the storage says it: ACLs, grants, policies, other users, tenants, strangers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import compared
from tests.conformance.site import S3, Bucket

CANNED = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
    "public-ready",
)
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"


@pytest.mark.parametrize("acl", CANNED)
@compared
def test_canned_acls(s3: S3, acl: str) -> None:
    """A canned ACL of a bucket and of an object: how it is told, and what others may do then."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    bucket.put_bucket_acl(ACL=acl)
    bucket.get_bucket_acl()
    bucket.put_object_acl(Key="foo", ACL=acl)
    bucket.get_object_acl(Key="foo")
    bucket.put_object(Key="bar", Body=b"x", ACL=acl)
    bucket.get_object_acl(Key="bar")
    for other in (bucket.by("alt"), bucket.stranger):
        _try_all(other)
    s3.make_bucket(ACL=acl).get_bucket_acl()


@compared
def test_grants_in_headers(s3: S3) -> None:
    """Grants by id, by email and by group, in headers."""
    bucket = s3.make_bucket()
    alt = s3.site.logins["alt"]
    for grantee in (
        f"id={alt.canonical_id}",
        f'id="{alt.canonical_id}"',
        f"emailAddress={alt.email}",
        f"uri={ALL_USERS}",
        f"uri={AUTHENTICATED}",
        "uri=http://nonsense.example/",
        "id=nobody-at-all",
        "emailAddress=nobody@example.com",
        "nonsense",
    ):
        for name in ("read", "write", "read-acp", "write-acp", "full-control"):
            bucket.send("PUT", "foo", headers=[(f"x-amz-grant-{name}", grantee)], body=b"x")
        bucket.get_object_acl(Key="foo")
        bucket.by("alt").get_object(Key="foo")
        bucket.stranger.get_object(Key="foo")
        bucket.send("PUT", query="acl", headers=[("x-amz-grant-write", grantee)])
        bucket.get_bucket_acl()
        bucket.by("alt").put_object(Key="other", Body=b"x")
    bucket.send(
        "PUT",
        "foo",
        headers=[("x-amz-grant-read", f"id={alt.canonical_id}"), ("x-amz-acl", "public-read")],
        body=b"x",
    )


@compared
def test_grants_in_xml(s3: S3) -> None:
    """Access control policies as XML: each permission, other owners, malformed ones."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    told = bucket.get_object_acl(Key="foo")
    owner = {"ID": told["Owner"]["ID"], "DisplayName": told["Owner"].get("DisplayName", "")}
    alt = {"ID": s3.site.logins["alt"].canonical_id, "Type": "CanonicalUser"}
    grantees: list[dict[str, Any]] = [
        alt,
        {"Type": "Group", "URI": ALL_USERS},
        {"Type": "AmazonCustomerByEmail", "EmailAddress": s3.site.logins["alt"].email},
        {"Type": "CanonicalUser", "ID": "nobody-at-all"},
    ]
    for grantee in grantees:
        for permission in ("READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL", "NONSENSE"):
            policy = {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": permission}]}
            bucket.put_object_acl(Key="foo", AccessControlPolicy=policy)
            bucket.get_object_acl(Key="foo")
            _try_all(bucket.by("alt"))
    for grantee in grantees[:2]:
        for permission in ("READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL"):
            policy = {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": permission}]}
            bucket.put_bucket_acl(AccessControlPolicy=policy)
            bucket.get_bucket_acl()
            _try_all(bucket.by("alt"))
            _try_all(bucket.stranger)
    bucket.put_bucket_acl(AccessControlPolicy={"Owner": owner, "Grants": []})
    bucket.get_bucket_acl()
    bucket.put_bucket_acl(AccessControlPolicy={"Owner": {"ID": "nobody-at-all"}, "Grants": []})
    bucket.put_object_acl(Key="absent", ACL="public-read")
    bucket.send("PUT", query="acl", body=b"nonsense")
    bucket.send("PUT", "foo", query="acl", body=b"<AccessControlPolicy></AccessControlPolicy>")


@compared
def test_policies(s3: S3) -> None:
    """Bucket policies: told as they were set, applied to others, conditional, malformed, deleted."""
    bucket = s3.make_bucket()
    bucket.put("foo", "public/foo")
    bucket.get_bucket_policy()
    statements: list[dict[str, Any]] = [
        {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::{}"},
        {"Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::{}/public/*"},
        {"Action": "s3:*", "Resource": ["arn:aws:s3:::{}", "arn:aws:s3:::{}/*"]},
        {
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::{}/*",
            "Condition": {"StringLike": {"aws:Referer": "http://www.example.com/*"}},
        },
        {
            "Action": "s3:PutObject",
            "Resource": "arn:aws:s3:::{}/*",
            "Condition": {"StringEquals": {"s3:x-amz-acl": "public-read"}},
        },
        {
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::{}/*",
            "Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}},
        },
        {
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::{}/*",
            "Condition": {"StringEquals": {"s3:ExistingObjectTag/a": "1"}},
        },
        {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::{}/*"},
    ]
    for statement in statements:
        bucket.put_bucket_policy(Policy=_policy(bucket, statement))
        bucket.get_bucket_policy()
        bucket.get_bucket_policy_status()
        for other in (bucket.by("alt"), bucket.stranger):
            _try_all(other)
            other.get_object(Key="public/foo")
            referer = [("Referer", "http://www.example.com/index.html")]
            other.send("GET", "foo", headers=referer, is_signed=bool(other.s3.user))
            other.put_object(Key="with acl", Body=b"x", ACL="public-read")
        bucket.get_object(Key="foo")
    bucket.delete_bucket_policy()
    bucket.get_bucket_policy()
    for text in ("nonsense", "{}", '{"Version":"2012-10-17"}', ""):
        bucket.put_bucket_policy(Policy=text)
    bucket.by("alt").get_bucket_policy()
    bucket.by("alt").put_bucket_policy(Policy=_policy(bucket, statements[0]))


@compared
def test_policies_for_one_user(s3: S3) -> None:
    """A policy that names another user lets that one in, and nobody else."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    for principal in (
        {"AWS": f"arn:aws:iam:::user/{s3.site.logins['alt'].canonical_id}"},
        {"AWS": "arn:aws:iam:::user/nobody"},
        {"AWS": "*"},
    ):
        statement = {"Principal": principal, "Action": "s3:*", "Resource": ["arn:aws:s3:::{}", "arn:aws:s3:::{}/*"]}
        bucket.put_bucket_policy(Policy=_policy(bucket, statement))
        _try_all(bucket.by("alt"))
        _try_all(bucket.stranger)
        upload = bucket.by("alt").create_multipart_upload(Key="parts").get("UploadId", "none")
        part = bucket.by("alt").upload_part(Key="parts", UploadId=upload, PartNumber=1, Body=b"x").get("ETag", "")
        bucket.by("alt").complete_multipart_upload(
            Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
        )
        bucket.by("alt").copy_object(Key="copied", CopySource={"Bucket": bucket.name, "Key": "foo"})


@compared
def test_buckets_of_others(s3: S3) -> None:
    """Each user sees its own buckets, and nothing in those of others."""
    own, other = s3.make_bucket(), s3.by("alt").make_bucket()
    own.put("foo")
    other.by("alt").put("foo")
    for user in ("main", "alt", ""):
        with s3.hidden():  # what else there is differs
            names = [item["Name"] for item in s3.by(user).list_buckets().get("Buckets", [])]
        s3.note(f"{user} sees {own.name in names} {other.name in names}")
        _try_all(own.by(user))
        _try_all(other.by(user))
    s3.by("alt").create_bucket(Bucket=own.name)
    own.by("alt").delete_bucket()
    own.stranger.delete_bucket()


@compared
def test_tenants(s3: S3) -> None:
    """A user of a tenant has buckets of its own, which others name with the tenant."""
    if "tenant" not in s3.site.logins:
        s3.make_bucket()
        return
    tenant = s3.by("tenant")
    bucket = tenant.make_bucket().by("tenant")
    bucket.put_object(Key="foo", Body=b"x", ACL="public-read")
    bucket.list_objects()
    bucket.head_bucket()
    s3.bucket(bucket.name).list_objects()
    s3.send("GET", f"=/tenanted:{bucket.name}/foo")
    s3.send("GET", f"=/tenanted%3A{bucket.name}/foo")
    s3.send("GET", f"=/tenanted:{bucket.name}")
    own = s3.make_bucket()
    own.put_object(Key="bar", Body=b"y", ACL="public-read")
    tenant.send("GET", f"=/:{own.name}/bar")
    tenant.copy_object(Bucket=bucket.name, Key="copy", CopySource=f":{own.name}/bar")
    own.copy_object(Key="copy", CopySource=f"tenanted:{bucket.name}/foo")
    upload = bucket.create_multipart_upload(Key="parts")["UploadId"]
    part = bucket.upload_part(Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    with s3.answered_with_the_same_status():  # RGW names the tenant in the address, where nobody else does
        bucket.complete_multipart_upload(
            Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}
        )
    bucket.list_objects_v2()
    bucket.delete_objects(Delete={"Objects": [{"Key": "foo"}, {"Key": "parts"}]})
    bucket.list_objects()


@compared
def test_strangers(s3: S3) -> None:
    """Without a signature: lists, reads, writes and deletes, as the ACL says."""
    for acl in ("private", "public-read", "public-read-write"):
        bucket = s3.make_bucket(ACL=acl)
        bucket.put_object(Key="foo", Body=b"x", ACL="public-read")
        bucket.put("closed")
        stranger = bucket.stranger
        stranger.list_objects_v2()
        stranger.list_objects()
        stranger.list_object_versions()
        stranger.get_object(Key="closed")
        stranger.get_object(Key="absent")
        _try_all(stranger)
        stranger.create_multipart_upload(Key="parts")
        stranger.delete_objects(Delete={"Objects": [{"Key": "foo"}]})
        stranger.copy_object(Key="copy", CopySource={"Bucket": bucket.name, "Key": "closed"})
        stranger.delete_bucket()
    s3.stranger.create_bucket(Bucket=s3.new_name())
    s3.stranger.send("GET", "/", is_signed=False)


@compared
def test_expected_owners(s3: S3) -> None:
    """x-amz-expected-bucket-owner, right and wrong."""
    bucket = s3.make_bucket()
    for owner in (s3.login.canonical_id, "somebody"):
        bucket.list_objects(ExpectedBucketOwner=owner)
        bucket.put_object(Key="foo", Body=b"x", ExpectedBucketOwner=owner)
        bucket.get_object(Key="foo", ExpectedBucketOwner=owner)


def _try_all(bucket: Bucket) -> None:
    """What others may be allowed."""
    bucket.list_objects()
    bucket.get_bucket_acl()
    bucket.get_object(Key="foo")
    bucket.head_object(Key="foo")
    bucket.get_object_acl(Key="foo")
    bucket.put_object(Key="written", Body=b"x")
    bucket.put_object_acl(Key="written", ACL="public-read")
    bucket.delete_object(Key="written")
    bucket.get_bucket_location()
    bucket.head_bucket()


def _policy(bucket: Bucket, statement: dict[str, Any]) -> str:
    whole = {"Effect": "Allow", "Principal": "*", **statement}
    return json.dumps({"Version": "2012-10-17", "Statement": [whole]}).replace("{}", bucket.name)
