"""What is set for buckets and objects: every sub-resource of S3's, as far as the storage has it, errors included."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import compared, compared_in_turn
from tests.conformance.site import S3

ORIGIN = "http://photos.example"


@compared
def test_location(s3: S3) -> None:
    """Where a bucket is said to be."""
    bucket = s3.make_bucket()
    bucket.get_bucket_location()
    bucket.head_bucket()
    s3.make_bucket(CreateBucketConfiguration={"LocationConstraint": "us-east-1"}).get_bucket_location()
    s3.make_bucket(CreateBucketConfiguration={"LocationConstraint": "nowhere-at-all"}).get_bucket_location()


@compared_in_turn  # some of the names are the same on both sites, which are one storage
def test_making_buckets(s3: S3) -> None:
    """Names that are allowed and not, made again, with ACLs, by others; deleted when empty and when not."""
    bucket = s3.make_bucket()
    s3.create_bucket(Bucket=bucket.name)
    s3.by("alt").create_bucket(Bucket=bucket.name)
    s3.stranger.create_bucket(Bucket=s3.new_name())
    s3.make_bucket(ACL="public-read").get_bucket_acl()
    s3.make_bucket(ACL="nonsense")
    for name in (
        "a",
        "ab",
        "UPPER-case",
        "under_score",
        ".dot",
        "dot.",
        "do..ts",
        "-dash",
        "dash-",
        "a" * 64,
        "a" * 256,
        "192.168.5.123",
        "ex!claim",
        "dot.ted.name",
        "alpha._x",
        "alpha.-x",
    ):
        s3.send("PUT", f"/{name}")
        s3.send("DELETE", f"/{name}")
    bucket.put("foo")
    bucket.put_object(Key="bar", Body=b"x")
    other = s3.make_bucket()
    other.delete_bucket()
    other.delete_bucket()
    other.head_bucket()
    bucket.by("alt").delete_bucket()
    bucket.stranger.delete_bucket()
    s3.send("PUT", f"/{s3.new_name()}", body=b"nonsense")
    s3.send("PUT", f"/{s3.new_name()}/")


@compared
def test_cors(s3: S3) -> None:
    """CORS rules: set, told, applied to preflights and to requests, deleted."""
    bucket = s3.make_bucket(ACL="public-read")
    bucket.put_object(Key="foo", Body=b"x", ACL="public-read")
    bucket.get_bucket_cors()
    rules = [
        {
            "AllowedMethods": ["GET", "PUT"],
            "AllowedOrigins": ["*suffix", "start*end", ORIGIN],
            "AllowedHeaders": ["x-amz-*", "Content-Type"],
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": 300,
            "ID": "one",
        }
    ]
    bucket.put_bucket_cors(CORSConfiguration={"CORSRules": rules})
    bucket.get_bucket_cors()
    for origin in (ORIGIN, "foo.suffix", "foo.bar", "start12end", "0start12end", ""):
        given = [("Origin", origin)] if origin else []
        bucket.send("GET", "foo", headers=given, is_signed=False)
        bucket.send("GET", "foo", headers=given)
        bucket.send("GET", "absent", headers=given, is_signed=False)
        bucket.send("PUT", "foo", headers=given, is_signed=False, body=b"x")
        for method in ("GET", "PUT", "DELETE", "NONSENSE", ""):
            asked = [*given, *([("Access-Control-Request-Method", method)] if method else [])]
            bucket.send("OPTIONS", "foo", headers=asked, is_signed=False)
            bucket.send("OPTIONS", headers=asked, is_signed=False)
    asked = [("Origin", ORIGIN), ("Access-Control-Request-Method", "PUT")]
    for names in ("x-amz-acl", "content-type, x-amz-meta-a", "authorization", "x-other"):
        bucket.send("OPTIONS", "foo", headers=[*asked, ("Access-Control-Request-Headers", names)], is_signed=False)
    s3.exchange("OPTIONS", bucket.presign("put_object", Key="foo"), asked)
    bucket.delete_bucket_cors()
    bucket.get_bucket_cors()
    bucket.send("OPTIONS", "foo", headers=asked, is_signed=False)
    bucket.put_bucket_cors(CORSConfiguration={"CORSRules": []})
    bucket.send("PUT", query="cors", body=b"nonsense")
    s3.send("OPTIONS", "/", headers=asked, is_signed=False)


@pytest.mark.parametrize("version", ["s3v4", "s3"])
@pytest.mark.parametrize("user", ["main", "tenant"])
@compared
def test_preflights_of_presigned_urls(s3: S3, user: str, version: str) -> None:
    """The key of a presigned URL says in which tenant its preflight finds the bucket; its signature says nothing."""
    s3 = s3.by(user if user in s3.site.logins else "main")
    bucket = s3.make_bucket()
    bucket.put("foo")
    asked = [("Origin", ORIGIN), ("Access-Control-Request-Method", "PUT")]
    urls = [
        bucket.presign("put_object", version=version, Key="foo"),
        bucket.presign("get_object", version=version, Key="absent"),
    ]
    for url in urls:
        s3.exchange("OPTIONS", url, asked)
    bucket.put_bucket_cors(CORSConfiguration={"CORSRules": [{"AllowedMethods": ["PUT"], "AllowedOrigins": [ORIGIN]}]})
    for url in (*urls, urls[0].replace("Signature=", "Signature=0"), f"/{bucket.name}/foo"):
        s3.exchange("OPTIONS", url, asked)
        s3.exchange("OPTIONS", url, [asked[0], ("Access-Control-Request-Method", "DELETE")])
    s3.exchange("PUT", urls[0], asked[:1], b"x")


@compared
def test_tags(s3: S3) -> None:
    """Tags of buckets and objects: set, told, replaced, deleted, too many, too long, repeated."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    sets: list[list[dict[str, str]]] = [
        [],
        [{"Key": "a", "Value": "1"}],
        [{"Key": "a", "Value": ""}, {"Key": "b c", "Value": "\u00fc & <x>"}],
        [{"Key": str(number), "Value": str(number)} for number in range(10)],
        [{"Key": str(number), "Value": str(number)} for number in range(11)],
        [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}],
        [{"Key": "k" * 128, "Value": "v" * 256}],
        [{"Key": "k" * 129, "Value": "v"}],
        [{"Key": "k", "Value": "v" * 257}],
        [{"Key": "", "Value": "v"}],
    ]
    bucket.get_bucket_tagging()
    for tags in sets:
        bucket.put_bucket_tagging(Tagging={"TagSet": tags})
        bucket.get_bucket_tagging()
        bucket.put_object_tagging(Key="foo", Tagging={"TagSet": tags})
        bucket.get_object_tagging(Key="foo")
        bucket.head_object(Key="foo")
    bucket.delete_bucket_tagging()
    bucket.get_bucket_tagging()
    bucket.delete_object_tagging(Key="foo")
    bucket.get_object_tagging(Key="foo")
    bucket.get_object_tagging(Key="absent")
    bucket.put_object_tagging(Key="absent", Tagging={"TagSet": sets[1]})
    bucket.delete_object_tagging(Key="absent")
    bucket.send("PUT", "foo", query="tagging", body=b"nonsense")
    bucket.send("PUT", query="tagging", body=b"nonsense")
    bucket.by("alt").get_object_tagging(Key="foo")
    bucket.stranger.get_bucket_tagging()


@compared
def test_lifecycle(s3: S3) -> None:
    """Lifecycle rules: set, told, deleted, and refused where they are wrong."""
    bucket = s3.make_bucket()
    bucket.get_bucket_lifecycle_configuration()
    good: dict[str, Any] = {"ID": "one", "Status": "Enabled", "Filter": {"Prefix": "a/"}, "Expiration": {"Days": 1}}
    for rules in (
        [good],
        [good, {**good, "ID": "two", "Filter": {"Prefix": "b/"}, "Status": "Disabled"}],
        [{**good, "Filter": {"And": {"Prefix": "c/", "Tags": [{"Key": "a", "Value": "1"}]}}}],
        [{"ID": "old", "Status": "Enabled", "Prefix": "d/", "Expiration": {"Date": "2050-01-01T00:00:00Z"}}],
        [
            {
                "ID": "v",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 2},
            }
        ],
        [{"ID": "m", "Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}],
        [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"ExpiredObjectDeleteMarker": True}}],
        [{**good, "Status": "enabled"}],
        [{**good, "Status": "nonsense"}],
        [{**good, "ID": "x" * 256}],
        [good, good],
        [{**good, "Expiration": {"Days": 0}}],
        [{**good, "Expiration": {"Date": "20200101"}}],
        [{**good, "Expiration": {}}],
        [],
    ):
        bucket.put_bucket_lifecycle_configuration(LifecycleConfiguration={"Rules": rules})
        bucket.get_bucket_lifecycle_configuration()
    bucket.put("a/foo")
    bucket.head_object(Key="a/foo")
    bucket.delete_bucket_lifecycle()
    bucket.get_bucket_lifecycle_configuration()
    bucket.send("PUT", query="lifecycle", body=b"nonsense")


@compared
def test_website(s3: S3) -> None:
    """A bucket as a website."""
    bucket = s3.make_bucket()
    bucket.get_bucket_website()
    bucket.put_bucket_website(
        WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}, "ErrorDocument": {"Key": "error.html"}}
    )
    bucket.get_bucket_website()
    bucket.delete_bucket_website()
    bucket.get_bucket_website()


@compared
def test_public_access_block(s3: S3) -> None:
    """A block of public access: set, told, applied, deleted; and whether a policy is public."""
    bucket = s3.make_bucket()
    bucket.get_public_access_block()
    bucket.get_bucket_policy_status()
    block = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": False,
    }
    bucket.put_public_access_block(PublicAccessBlockConfiguration=block)
    bucket.get_public_access_block()
    bucket.put_bucket_acl(ACL="public-read")
    bucket.put_object(Key="foo", Body=b"x", ACL="public-read")
    bucket.put_bucket_policy(Policy=_policy(bucket.name, "s3:GetObject"))
    bucket.delete_public_access_block()
    bucket.get_public_access_block()
    bucket.put_bucket_policy(Policy=_policy(bucket.name, "s3:GetObject"))
    bucket.get_bucket_policy_status()
    bucket.send("PUT", query="publicAccessBlock", body=b"nonsense")


@compared
def test_object_lock(s3: S3) -> None:
    """Object lock: of a bucket, of an object, held, bypassed; and where it is not enabled."""
    plain = s3.make_bucket()
    plain.get_object_lock_configuration()
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    plain.put_object_lock_configuration(ObjectLockConfiguration=rule)
    plain.put("foo")
    plain.put_object_retention(Key="foo", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": "2050-01-01T00:00:00Z"})
    plain.get_object_retention(Key="foo")
    plain.put_object_legal_hold(Key="foo", LegalHold={"Status": "ON"})
    locked = s3.make_bucket(ObjectLockEnabledForBucket=True)
    locked.get_object_lock_configuration()
    locked.put_object_lock_configuration(ObjectLockConfiguration=rule)
    locked.get_object_lock_configuration()
    for wrong in (
        {**rule, "ObjectLockEnabled": "Disabled"},
        {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "nonsense", "Days": 1}}},
        {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 0}}},
        {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1, "Years": 1}}},
    ):
        locked.put_object_lock_configuration(ObjectLockConfiguration=wrong)
    version = locked.put_object(Key="foo", Body=b"x").get("VersionId", "null")
    locked.get_object_retention(Key="foo")
    locked.put_object_legal_hold(Key="foo", LegalHold={"Status": "ON"})
    locked.get_object_legal_hold(Key="foo")
    locked.head_object(Key="foo")
    locked.delete_object(Key="foo", VersionId=version)
    locked.put_object_legal_hold(Key="foo", LegalHold={"Status": "OFF"})
    locked.put_object_legal_hold(Key="foo", LegalHold={"Status": "nonsense"})
    locked.delete_object(Key="foo", VersionId=version)
    locked.put_object_retention(
        Key="foo", VersionId=version, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": "2040-01-01T00:00:00Z"}
    )
    locked.put_object_retention(
        Key="foo",
        VersionId=version,
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": "2040-01-01T00:00:00Z"},
        BypassGovernanceRetention=True,
    )
    locked.delete_objects(Delete={"Objects": [{"Key": "foo", "VersionId": version}]})
    locked.delete_object(Key="foo", VersionId=version, BypassGovernanceRetention=True)
    locked.put_object(
        Key="bar",
        Body=b"x",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate="2050-01-01T00:00:00Z",
        ObjectLockLegalHoldStatus="ON",
        ContentMD5="nd0hwXc6ThE6QCZ0PLJO3Q==",
    )
    locked.put_object(
        Key="baz", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate="2050-01-01T00:00:00Z"
    )
    locked.head_object(Key="baz")
    locked.put_bucket_versioning(VersioningConfiguration={"Status": "Suspended"})


@pytest.mark.parametrize(
    "noun",
    [
        "accelerate",
        "analytics",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "requestPayment",
        "website",
        "acl",
        "cors",
        "lifecycle",
        "policy",
        "tagging",
        "versioning",
        "location",
        "versions",
        "uploads",
    ],
)
@compared
def test_every_noun(s3: S3, noun: str) -> None:
    """Each sub-resource of a bucket: told, set to nonsense, deleted, asked for by others and of absent buckets."""
    bucket = s3.make_bucket()
    bucket.send("GET", query=noun)
    bucket.by("alt").send("GET", query=noun)
    bucket.stranger.send("GET", query=noun, is_signed=False)
    s3.bucket("absent-bucket").send("GET", query=noun)
    with s3.refused_alike_or_more_strictly():
        bucket.send("PUT", query=noun, body=b"nonsense")
        bucket.send("PUT", query=noun)
        bucket.send("DELETE", query=noun)


@pytest.mark.parametrize("noun", ["acl", "attributes", "legal-hold", "retention", "tagging", "torrent", "uploadId"])
@compared
def test_every_noun_of_an_object(s3: S3, noun: str) -> None:
    """Each sub-resource of an object: told, set to nonsense, asked for by others and of absent objects."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    bucket.send("GET", "foo", query=noun)
    bucket.send("GET", "absent", query=noun)
    bucket.by("alt").send("GET", "foo", query=noun)
    bucket.stranger.send("GET", "foo", query=noun, is_signed=False)
    with s3.refused_alike_or_more_strictly():
        bucket.send("PUT", "foo", query=noun, body=b"nonsense")
        bucket.send("PUT", "foo", query=noun)
        bucket.send("DELETE", "foo", query=noun)


@compared
def test_settings_of_buckets(s3: S3) -> None:
    """What is rarely set: logging, encryption, payment, replication, ownership, acceleration, notification."""
    bucket, target = s3.make_bucket(), s3.make_bucket()
    bucket.put_bucket_logging(
        BucketLoggingStatus={"LoggingEnabled": {"TargetBucket": target.name, "TargetPrefix": "l"}}
    )
    bucket.get_bucket_logging()
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    bucket.put_bucket_encryption(ServerSideEncryptionConfiguration={"Rules": [rule]})
    bucket.get_bucket_encryption()
    bucket.delete_bucket_encryption()
    for payer in ("Requester", "BucketOwner", "nobody"):
        bucket.put_bucket_request_payment(RequestPaymentConfiguration={"Payer": payer})
        bucket.get_bucket_request_payment()
    replicated = {
        "ID": "r",
        "Status": "Enabled",
        "Priority": 1,
        "Filter": {"Prefix": ""},
        "DeleteMarkerReplication": {"Status": "Disabled"},
        "Destination": {"Bucket": f"arn:aws:s3:::{target.name}"},
    }
    bucket.put_bucket_replication(ReplicationConfiguration={"Role": "", "Rules": [replicated]})
    bucket.get_bucket_replication()
    bucket.delete_bucket_replication()
    bucket.put_bucket_ownership_controls(OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})
    bucket.get_bucket_ownership_controls()
    bucket.delete_bucket_ownership_controls()
    bucket.put_bucket_accelerate_configuration(AccelerateConfiguration={"Status": "Enabled"})
    bucket.get_bucket_accelerate_configuration()
    bucket.get_bucket_notification_configuration()
    bucket.put_bucket_notification_configuration(NotificationConfiguration={})
    bucket.get_bucket_notification_configuration()


@compared
def test_usage(s3: S3) -> None:
    """How much a user has, as RGW tells it."""
    bucket = s3.make_bucket()
    bucket.put("foo")
    bucket.head_bucket()
    bucket.send("HEAD")
    bucket.send("HEAD", query="read-stats=true")


@compared
def test_appending(s3: S3) -> None:
    """Appending to an object, as RGW has it."""
    bucket = s3.make_bucket()
    bucket.send("PUT", "foo", query="append&position=0", body=b"bar")
    bucket.send("PUT", "foo", query="append&position=3", body=b"bar")
    bucket.send("PUT", "foo", query="append&position=1", body=b"bar")
    bucket.send("GET", "foo")
    bucket.put("plain")
    bucket.send("PUT", "plain", query="append&position=5", body=b"bar")


def _policy(bucket: str, action: str) -> str:
    statement = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{bucket}/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
