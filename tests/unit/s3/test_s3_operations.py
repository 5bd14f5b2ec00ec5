"""Requests in both addressing styles to operations: each known one has its scope, everything else is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given

from gateway.s3.errors import CODES, S3Error
from gateway.s3.operations import OPERATIONS, Asked, Body, Effect, classify
from gateway.s3.request import read_request
from gateway.s3.targets import CopySource, Target, locate, read_copy_source
from tests.unit.s3.oracle import ANY_TEXT, some, url_of

DOMAINS = ("s3.example.org", "example.org")
COPY = {"x-amz-copy-source": "/other/a%20b.jpg?versionId=7"}
FORM = {"content-type": "multipart/form-data; boundary=x"}

# method, target, headers, operation, scope, effect
KNOWN: list[tuple[str, str, Mapping[str, str], str, str | None, str]] = [
    ("GET", "/", {}, "ListBuckets", "read", "none"),
    ("GET", "/?x-id=ListBuckets", {}, "ListBuckets", "read", "none"),
    ("PUT", "/photos", {}, "CreateBucket", "admin", "none"),
    ("DELETE", "/photos/", {}, "DeleteBucket", "admin", "none"),
    ("HEAD", "/photos", {}, "HeadBucket", "read", "none"),
    ("GET", "/photos", {}, "ListObjects", "read", "none"),
    ("GET", "/photos?prefix=a&delimiter=%2F&marker=b&max-keys=3", {}, "ListObjects", "read", "none"),
    ("GET", "/photos?list-type=2&prefix=a&continuation-token=x", {}, "ListObjectsV2", "read", "none"),
    ("GET", "/photos?versions&key-marker=a", {}, "ListObjectVersions", "read", "none"),
    ("GET", "/photos?uploads", {}, "ListMultipartUploads", "read", "none"),
    ("GET", "/photos?location=", {}, "GetBucketLocation", "read", "none"),
    ("POST", "/photos?delete", {}, "DeleteObjects", "write", "removes"),
    ("POST", "/photos", FORM, "PostObject", "write", "stores"),
    ("GET", "/photos?acl", {}, "GetBucketAcl", "read", "none"),
    ("PUT", "/photos?acl", {}, "PutBucketAcl", "admin", "none"),
    ("GET", "/photos?cors", {}, "GetBucketCors", "read", "none"),
    ("PUT", "/photos?cors", {}, "PutBucketCors", "admin", "none"),
    ("DELETE", "/photos?cors", {}, "DeleteBucketCors", "admin", "none"),
    ("GET", "/photos?lifecycle", {}, "GetBucketLifecycle", "read", "none"),
    ("PUT", "/photos?lifecycle", {}, "PutBucketLifecycle", "admin", "none"),
    ("DELETE", "/photos?lifecycle", {}, "DeleteBucketLifecycle", "admin", "none"),
    ("GET", "/photos?policy", {}, "GetBucketPolicy", "admin", "none"),
    ("PUT", "/photos?policy", {}, "PutBucketPolicy", "admin", "none"),
    ("DELETE", "/photos?policy", {}, "DeleteBucketPolicy", "admin", "none"),
    ("GET", "/photos?tagging", {}, "GetBucketTagging", "read", "none"),
    ("PUT", "/photos?tagging", {}, "PutBucketTagging", "admin", "none"),
    ("DELETE", "/photos?tagging", {}, "DeleteBucketTagging", "admin", "none"),
    ("GET", "/photos?versioning", {}, "GetBucketVersioning", "read", "none"),
    ("PUT", "/photos?versioning", {}, "PutBucketVersioning", "admin", "none"),
    ("GET", "/photos/a/b.jpg", {"range": "bytes=0-9"}, "GetObject", "read", "none"),
    ("GET", "/photos/a?versionId=1&response-content-type=x&partNumber=2", {}, "GetObject", "read", "none"),
    ("GET", "/photos/a?X-Amz-Signature=x&v=7", {}, "GetObject", "read", "none"),
    ("HEAD", "/photos/a", {}, "HeadObject", "read", "none"),
    ("PUT", "/photos/a?x-id=PutObject", {}, "PutObject", "write", "stores"),
    ("PUT", "/photos/a?AWSAccessKeyId=x&Signature=y&Expires=1&content-type=z", {}, "PutObject", "write", "stores"),
    ("PUT", "/photos/a", COPY, "CopyObject", "write", "stores"),
    ("PUT", "/photos/a?X-Amz-Copy-Source=other%2Fkey", {}, "CopyObject", "write", "stores"),
    ("DELETE", "/photos/a?versionId=1", {}, "DeleteObject", "write", "removes"),
    ("GET", "/photos/a?attributes", {}, "GetObjectAttributes", "read", "none"),
    ("GET", "/photos/a?tagging", {}, "GetObjectTagging", "read", "none"),
    ("PUT", "/photos/a?tagging&versionId=1", {}, "PutObjectTagging", "write", "none"),
    ("DELETE", "/photos/a?tagging", {}, "DeleteObjectTagging", "write", "none"),
    ("GET", "/photos/a?acl", {}, "GetObjectAcl", "read", "none"),
    ("PUT", "/photos/a?acl", {}, "PutObjectAcl", "admin", "none"),
    ("POST", "/photos/a?uploads", {}, "CreateMultipartUpload", "write", "none"),
    ("PUT", "/photos/a?uploadId=u&partNumber=1", {}, "UploadPart", "write", "none"),
    ("PUT", "/photos/a?uploadId=u&partNumber=10000", COPY, "UploadPartCopy", "write", "none"),
    ("GET", "/photos/a?uploadId=u&part-number-marker=2", {}, "ListParts", "read", "none"),
    ("DELETE", "/photos/a?uploadId=u", {}, "AbortMultipartUpload", "write", "none"),
    ("POST", "/photos/a?uploadId=u", {}, "CompleteMultipartUpload", "write", "stores"),
    ("GET", "/photos?accelerate", {}, "GetBucketAccelerate", "read", "none"),
    ("PUT", "/photos?accelerate", {}, "PutBucketAccelerate", "admin", "none"),
    ("GET", "/photos?analytics&id=1", {}, "GetBucketAnalytics", "read", "none"),
    ("PUT", "/photos?analytics&id=1", {}, "PutBucketAnalytics", "admin", "none"),
    ("DELETE", "/photos?analytics&id=1", {}, "DeleteBucketAnalytics", "admin", "none"),
    ("GET", "/photos?encryption", {}, "GetBucketEncryption", "read", "none"),
    ("PUT", "/photos?encryption", {}, "PutBucketEncryption", "admin", "none"),
    ("DELETE", "/photos?encryption", {}, "DeleteBucketEncryption", "admin", "none"),
    ("GET", "/photos?intelligent-tiering&id=1", {}, "GetBucketIntelligentTiering", "read", "none"),
    ("PUT", "/photos?intelligent-tiering&id=1", {}, "PutBucketIntelligentTiering", "admin", "none"),
    ("DELETE", "/photos?intelligent-tiering&id=1", {}, "DeleteBucketIntelligentTiering", "admin", "none"),
    ("GET", "/photos?inventory&id=1", {}, "GetBucketInventory", "read", "none"),
    ("PUT", "/photos?inventory&id=1", {}, "PutBucketInventory", "admin", "none"),
    ("DELETE", "/photos?inventory&id=1", {}, "DeleteBucketInventory", "admin", "none"),
    ("GET", "/photos?logging", {}, "GetBucketLogging", "read", "none"),
    ("PUT", "/photos?logging", {}, "PutBucketLogging", "admin", "none"),
    ("GET", "/photos?metrics&id=1", {}, "GetBucketMetrics", "read", "none"),
    ("PUT", "/photos?metrics&id=1", {}, "PutBucketMetrics", "admin", "none"),
    ("DELETE", "/photos?metrics&id=1", {}, "DeleteBucketMetrics", "admin", "none"),
    ("GET", "/photos?object-lock", {}, "GetBucketObjectLock", "read", "none"),
    ("PUT", "/photos?object-lock", {}, "PutBucketObjectLock", "admin", "none"),
    ("GET", "/photos?ownershipControls", {}, "GetBucketOwnershipControls", "read", "none"),
    ("PUT", "/photos?ownershipControls", {}, "PutBucketOwnershipControls", "admin", "none"),
    ("DELETE", "/photos?ownershipControls", {}, "DeleteBucketOwnershipControls", "admin", "none"),
    ("GET", "/photos?publicAccessBlock", {}, "GetBucketPublicAccessBlock", "read", "none"),
    ("PUT", "/photos?publicAccessBlock", {}, "PutBucketPublicAccessBlock", "admin", "none"),
    ("DELETE", "/photos?publicAccessBlock", {}, "DeleteBucketPublicAccessBlock", "admin", "none"),
    ("GET", "/photos?replication", {}, "GetBucketReplication", "read", "none"),
    ("PUT", "/photos?replication", {}, "PutBucketReplication", "admin", "none"),
    ("DELETE", "/photos?replication", {}, "DeleteBucketReplication", "admin", "none"),
    ("GET", "/photos?requestPayment", {}, "GetBucketRequestPayment", "read", "none"),
    ("PUT", "/photos?requestPayment", {}, "PutBucketRequestPayment", "admin", "none"),
    ("GET", "/photos?website", {}, "GetBucketWebsite", "read", "none"),
    ("PUT", "/photos?website", {}, "PutBucketWebsite", "admin", "none"),
    ("DELETE", "/photos?website", {}, "DeleteBucketWebsite", "admin", "none"),
    ("GET", "/photos?notification", {}, "GetBucketNotification", "admin", "none"),
    ("PUT", "/photos?notification", {}, "PutBucketNotification", "admin", "none"),
    ("DELETE", "/photos?notification", {}, "DeleteBucketNotification", "admin", "none"),
    ("GET", "/photos?policyStatus", {}, "GetBucketPolicyStatus", "read", "none"),
    ("GET", "/?usage", {}, "GetUsage", "read", "none"),
    ("GET", "/photos/a?legal-hold", {}, "GetObjectLegalHold", "read", "none"),
    ("PUT", "/photos/a?legal-hold", {}, "PutObjectLegalHold", "write", "none"),
    ("GET", "/photos/a?retention&versionId=1", {}, "GetObjectRetention", "read", "none"),
    ("PUT", "/photos/a?retention", {}, "PutObjectRetention", "write", "none"),
    ("GET", "/photos/a?torrent", {}, "GetObjectTorrent", "read", "none"),
    ("POST", "/photos/a?restore", {}, "RestoreObject", "write", "none"),
    ("POST", "/photos/a?select&select-type=2", {}, "SelectObjectContent", "read", "none"),
    ("PUT", "/photos/a?append&position=0", {}, "AppendObject", "write", "stores"),
    ("OPTIONS", "/photos/a?whatever", {}, "Preflight", None, "none"),
]

UNKNOWN = [
    ("GET", "/photos?session", {}, "NotImplemented"),
    ("GET", "/photos?metadataTable", {}, "NotImplemented"),
    ("DELETE", "/photos?acl", {}, "NotImplemented"),
    ("DELETE", "/photos/a?retention", {}, "NotImplemented"),
    ("GET", "/photos?usage", {}, "NotImplemented"),
    ("PUT", "/photos/a?append&position=0", COPY, "InvalidRequest"),
    ("PUT", "/photos/a?tagging", COPY, "InvalidRequest"),
    ("PUT", "/photos/a?renameObject", {"x-amz-rename-source": "b"}, "NotImplemented"),
    ("PUT", "/photos/a?surprise=1", {}, "NotImplemented"),
    ("GET", "/photos/a?surprise", {}, "NotImplemented"),
    ("GET", "/photos/a?surprise=", {}, "NotImplemented"),
    ("HEAD", "/photos/a?acl", {}, "NotImplemented"),
    ("POST", "/photos/a", {}, "MethodNotAllowed"),
    ("POST", "/photos", {}, "MethodNotAllowed"),
    ("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, "MethodNotAllowed"),
    ("PATCH", "/photos/a", {}, "MethodNotAllowed"),
    ("PUT", "/", {}, "MethodNotAllowed"),
    ("DELETE", "/photos?delete", {}, "NotImplemented"),
    ("GET", "/photos/a?acl&tagging", {}, "InvalidRequest"),
    ("DELETE", "/photos/a?uploadId=u&tagging", {}, "InvalidRequest"),
    ("PUT", "/photos/a?uploadId=u", {}, "InvalidArgument"),
    ("PUT", "/photos/a?uploadId=u&partNumber=0", {}, "InvalidArgument"),
    ("PUT", "/photos/a?uploadId=u&partNumber=10001", {}, "InvalidArgument"),
    ("PUT", "/photos/a?uploadId=u&partNumber=1&partNumber=2", {}, "InvalidArgument"),
    ("PUT", "/photos/a?partNumber=1", {}, "InvalidArgument"),
    ("PUT", "/photos/a", {"x-amz-copy-source": "bucketonly"}, "InvalidArgument"),
    ("PUT", "/photos/a", {"x-amz-copy-source": "arn:aws:s3:::x/y"}, "NotImplemented"),
]


def ask(method: str, target: str, headers: Mapping[str, str], *, host: str = "10.0.0.7:8081") -> Asked:
    lines = [(b"Host", host.encode()), *((name.encode(), value.encode()) for name, value in headers.items())]
    request = read_request(method, target.encode(), lines)
    return classify(request, locate(request, DOMAINS))


@pytest.mark.parametrize(("method", "target", "headers", "name", "scope", "effect"), KNOWN)
def test_known_operations(
    method: str, target: str, headers: Mapping[str, str], name: str, scope: str | None, effect: str
) -> None:
    """Each operation is found by method, path, query and headers, with its scope and its effect on photos."""
    operation = ask(method, target, headers).operation
    assert (operation.name, operation.scope, operation.effect) == (name, scope, Effect(effect))


def test_every_operation_of_the_table_can_be_asked_for() -> None:
    """No row of the table is out of reach, and no two rows have one name."""
    assert sorted({name for _, _, _, name, _, _ in KNOWN}) == sorted(operation.name for operation in OPERATIONS)


@pytest.mark.parametrize(("method", "target", "headers", "name", "scope", "effect"), KNOWN)
def test_virtual_hosts_ask_the_same(
    method: str, target: str, headers: Mapping[str, str], name: str, scope: str | None, effect: str
) -> None:
    """With the bucket in the host the same operation results, for the same bucket and key."""
    if target.startswith("/photos"):
        by_path = ask(method, target, headers)
        rest = target.removeprefix("/photos")
        by_host = ask(method, rest if rest.startswith("/") else "/" + rest, headers, host="Photos.S3.example.org:8081")
        assert by_host.operation == by_path.operation
        assert (by_host.target.bucket, by_host.target.key) == (by_path.target.bucket, by_path.target.key)
        assert by_host.target.host_bucket == "photos"


@pytest.mark.parametrize(("method", "target", "headers", "code"), UNKNOWN)
def test_everything_else_is_refused(method: str, target: str, headers: Mapping[str, str], code: str) -> None:
    """What the table does not hold, or what asks for two things at once, is never passed on as something else."""
    with pytest.raises(S3Error) as caught:
        ask(method, target, headers)
    assert caught.value.code == code


def test_late_failures_and_bodies() -> None:
    """The table says whose 200 may hold an error, and whose body is an object."""
    late = {operation.name for operation in OPERATIONS if operation.may_fail_late}
    assert late == {"CompleteMultipartUpload", "CopyObject", "UploadPartCopy"}
    objects = {operation.name for operation in OPERATIONS if operation.body is Body.OBJECT}
    assert objects == {"AppendObject", "PutObject", "UploadPart"}


@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/", "example.org", Target()),
        ("/photos", "example.org:80", Target(bucket="photos")),
        ("/photos/", "127.0.0.1:8081", Target(bucket="photos")),
        ("/photos//a", "[::1]:8081", Target(bucket="photos", key="/a")),
        ("/photos/a/../b", "[::1]", Target(bucket="photos", key="a/../b")),
        ("/photos/a%2Fb+c%25", "h", Target(bucket="photos", key="a/b+c%")),
        ("/a", "my.photos.example.org", Target(bucket="my.photos", key="a", host_bucket="my.photos")),
        ("/", "photos.s3.example.org", Target(bucket="photos", host_bucket="photos")),
        ("/a", "Old_Name.s3.example.org", Target(bucket="old_name", key="a", host_bucket="old_name")),
        ("/admins/a", "h", Target(bucket="admins", key="a")),
        ("/a", "notexample.org", Target(bucket="a")),
    ],
)
def test_targets(path: str, host: str, expected: Target) -> None:
    """Bucket and key are taken apart without normalising anything; the longest domain decides."""
    assert locate(read_request("GET", path.encode(), [(b"Host", host.encode())]), DOMAINS) == expected


@pytest.mark.parametrize("path", [b"//a", b"/photos/%ff"])
def test_paths_without_meaning(path: bytes) -> None:
    """A key without a bucket, and bytes that are no UTF-8, are refused."""
    with pytest.raises(S3Error, match="InvalidURI"):
        locate(read_request("GET", path, []))


@pytest.mark.parametrize(
    "name",
    ["derived/photos", "derived%2Fphotos", "derived\\photos", "derived?acl", "..", ".", "-photos", "a:b", "a b", ""],
)
def test_hosts_that_name_no_bucket(name: str) -> None:
    """What could be read as a bucket and a key, or as another path, is no name of a bucket."""
    with pytest.raises(S3Error, match="InvalidBucketName"):
        locate(read_request("PUT", b"/a", [(b"Host", f"{name}.s3.example.org:80".encode())]), DOMAINS)


@pytest.mark.parametrize(
    ("path", "host", "code"),
    [
        ("/../derived/a", "h", "InvalidURI"),
        ("/%2e%2E/derived/a", "h", "InvalidURI"),
        ("/./derived/a", "h", "InvalidURI"),
        ("/minio/admin/v3/add-user", "h", "AccessDenied"),
        ("/%6Dinio/admin/v3/add-user", "h", "AccessDenied"),
        ("/v3/add-user", "minio.example.org", "AccessDenied"),
        ("/admin/user?uid=a", "h", "AccessDenied"),
        ("/rustfs/admin/v3/info", "h", "AccessDenied"),
        ("/admin", "h", "AccessDenied"),
    ],
)
def test_paths_that_are_no_bucket_s(path: str, host: str, code: str) -> None:
    """Where storages have their administration, and ways out of a bucket."""
    with pytest.raises(S3Error, match=code):
        locate(read_request("GET", path.encode(), [(b"Host", host.encode())]), DOMAINS)


@some
@given(key=ANY_TEXT.filter(lambda key: "/" not in key))
def test_any_key_is_found_again(key: str) -> None:
    """What a client encodes into its path is the key that comes out."""
    target = locate(read_request("GET", url_of(key).encode(), []))
    assert (target.bucket, target.key) == ("photos", key)


def test_copy_sources() -> None:
    """The source is decoded once, with its version; only for authorisation."""
    request = read_request("PUT", b"/photos/a", [(b"x-amz-copy-source", b"/other/a%20b%3F.jpg?versionId=7")])
    assert read_copy_source(request) == CopySource(bucket="other", key="a b?.jpg", version_id="7")
    assert ask("PUT", "/photos/a", COPY).copy_source == CopySource(bucket="other", key="a b.jpg", version_id="7")


def test_codes_have_statuses_of_errors() -> None:
    """Every code of the table is an error's, with a message."""
    assert all(400 <= status < 600 and message for status, message in CODES.values())
    assert S3Error("SlowDown").status == 503
