"""Every operation of the door's table, through the door and with boto3, before moto: it knows more of S3 than any other
storage that runs here.

moto checks no signatures: what the door signs is proven on SeaweedFS, in test_claims.py. The file is long because the
table is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from gateway.s3.operations import OPERATIONS
from tests.clients.door import Door, Surroundings
from tests.clients.endpoints import REGION
from tests.clients.moto import Moto
from tests.servers import S3Backend

PART_BYTES = 5 << 20
T = TypeVar("T", bound=Callable[..., None])

# What tests say that they exercise, by the door's names.
exercised: dict[str, set[str]] = {}
# boto3's names, where they are others.
NAMES = {
    "GetBucketLifecycleConfiguration": "GetBucketLifecycle",
    "PutBucketLifecycleConfiguration": "PutBucketLifecycle",
}
BY_PLAIN_HTTP = {"PostObject", "Preflight"}


def exercises(*operations: str) -> Callable[[T], T]:
    """States which operations a test calls; its end checks that it did."""

    def state(test: T) -> T:
        exercised[test.__name__] = set(operations)
        return test

    return state


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Backend]:
    started = Moto(tmp_path_factory.mktemp("moto"))
    yield started.backend
    started.stop()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, around: Surroundings, moto: S3Backend) -> Iterator[Door]:
    opened = Door(tmp_path_factory.mktemp("door") / "moto", replace(around, backend=moto))
    yield opened
    opened.stop()


@pytest.fixture(scope="module")
def _client(door: Door) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=door.endpoint.url,
        aws_access_key_id=door.endpoint.access_key,
        aws_secret_access_key=door.endpoint.secret_key,
        region_name=REGION,
        config=Config(
            s3={"addressing_style": "path"}, signature_version="s3v4", proxies={}, retries={"max_attempts": 1}
        ),
    )


@pytest.fixture
def s3(request: pytest.FixtureRequest, _client: Any) -> Iterator[Any]:
    """boto3 on the door. After the test, it must have called what the test states."""
    called: set[str] = set()

    def note(model: Any, **_: Any) -> None:
        called.add(NAMES.get(model.name, model.name))

    _client.meta.events.register("before-call.s3", note, unique_id="note")
    yield _client
    _client.meta.events.unregister("before-call.s3", unique_id="note")
    stated = exercised[request.function.__name__] - BY_PLAIN_HTTP
    assert stated <= called, f"stated, but not called: {stated - called}"


@pytest.fixture
def bucket(s3: Any) -> str:
    """A new bucket, made through the door."""
    name = f"moto-{uuid.uuid4().hex[:10]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(autouse=True)
def _show_the_doors_log(door: Door) -> Iterator[None]:
    yield
    print(f"--- the door's log, at its end:\n{door.log}")


def test_every_operation_is_exercised() -> None:
    """No operation of the door's table is left out here."""
    assert {operation.name for operation in OPERATIONS} == set().union(*exercised.values())


@exercises("CreateBucket", "HeadBucket", "ListBuckets", "GetBucketLocation", "DeleteBucket")
def test_buckets(s3: Any, bucket: str) -> None:
    """A bucket is made, found, listed and deleted; one that is absent is not found."""
    s3.head_bucket(Bucket=bucket)
    assert bucket in [item["Name"] for item in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    s3.delete_bucket(Bucket=bucket)
    assert _code(lambda: s3.head_bucket(Bucket=bucket)) == "404"


@exercises("PutBucketTagging", "GetBucketTagging", "DeleteBucketTagging")
def test_bucket_tagging(s3: Any, bucket: str) -> None:
    """A bucket's tags are kept, and gone when they were deleted."""
    tags = [{"Key": "team", "Value": "wedding & portrait"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)
    assert _code(lambda: s3.get_bucket_tagging(Bucket=bucket)) == "NoSuchTagSet"


@exercises("PutBucketCors", "GetBucketCors", "DeleteBucketCors", "Preflight")
def test_bucket_cors(s3: Any, door: Door, bucket: str) -> None:
    """A bucket's CORS rules are kept, and gone when they were deleted; a preflight, unsigned, is answered."""
    rules = [{"AllowedMethods": ["PUT"], "AllowedOrigins": ["https://photos.example"], "AllowedHeaders": ["*"]}]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    asked = {"Origin": "https://photos.example", "Access-Control-Request-Method": "PUT"}
    answer = _plain("OPTIONS", f"{door.endpoint.url}/{bucket}/photo.jpg", headers=asked)
    assert answer.status_code == 200, answer.text
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    s3.delete_bucket_cors(Bucket=bucket)
    assert _code(lambda: s3.get_bucket_cors(Bucket=bucket)) == "NoSuchCORSConfiguration"


@exercises("PutBucketAcl", "GetBucketAcl", "PutObject", "PutObjectAcl", "GetObjectAcl")
def test_acl(s3: Any, bucket: str) -> None:
    """Canned ACLs of a bucket and of an object are kept."""
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert "READ" in [grant["Permission"] for grant in s3.get_bucket_acl(Bucket=bucket)["Grants"]]
    s3.put_object(Bucket=bucket, Key="note", Body=b"text")
    s3.put_object_acl(Bucket=bucket, Key="note", ACL="public-read")
    assert "READ" in [grant["Permission"] for grant in s3.get_object_acl(Bucket=bucket, Key="note")["Grants"]]


@exercises("PutBucketLifecycle", "GetBucketLifecycle", "DeleteBucketLifecycle")
def test_bucket_lifecycle(s3: Any, bucket: str) -> None:
    """A bucket's lifecycle is kept, and gone when it was deleted."""
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 7}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["Expiration"] == {"Days": 7}
    s3.delete_bucket_lifecycle(Bucket=bucket)
    assert _code(lambda: s3.get_bucket_lifecycle_configuration(Bucket=bucket)) == "NoSuchLifecycleConfiguration"


@exercises("PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy")
def test_bucket_policy(s3: Any, bucket: str) -> None:
    """A bucket's policy, which is JSON and not XML, is kept to the letter, and gone when it was deleted."""
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject",'
        f'"Resource":"arn:aws:s3:::{bucket}/*"}}]}}'
    )
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == policy
    s3.delete_bucket_policy(Bucket=bucket)
    assert _code(lambda: s3.get_bucket_policy(Bucket=bucket)) == "NoSuchBucketPolicy"


@exercises("PutBucketVersioning", "GetBucketVersioning", "PutObject", "ListObjectVersions", "GetObject", "DeleteObject")
def test_versions(s3: Any, bucket: str) -> None:
    """Of two versions each can be read; a delete hides them, and deleting its marker brings the last one back."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    first, second = (s3.put_object(Bucket=bucket, Key="note", Body=body)["VersionId"] for body in (b"one", b"two"))
    marker = s3.delete_object(Bucket=bucket, Key="note")
    assert marker["DeleteMarker"]
    assert _code(lambda: s3.get_object(Bucket=bucket, Key="note")) == "NoSuchKey"
    assert s3.get_object(Bucket=bucket, Key="note", VersionId=first)["Body"].read() == b"one"
    listing = s3.list_object_versions(Bucket=bucket)
    assert {item["VersionId"] for item in listing["Versions"]} == {first, second}
    s3.delete_object(Bucket=bucket, Key="note", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="note")["Body"].read() == b"two"


@exercises("PutObject", "HeadObject", "GetObject", "CopyObject", "DeleteObject")
def test_objects(s3: Any, bucket: str) -> None:
    """An object is put, described, read by a range and on a condition, copied with new metadata, and deleted."""
    etag = s3.put_object(Bucket=bucket, Key="a note+\u00e9", Body=b"0123456789", Metadata={"roll": "27"})["ETag"]
    assert s3.head_object(Bucket=bucket, Key="a note+\u00e9")["Metadata"] == {"roll": "27"}
    part = s3.get_object(Bucket=bucket, Key="a note+\u00e9", Range="bytes=2-4")
    assert (part["Body"].read(), part["ContentRange"]) == (b"234", "bytes 2-4/10")
    assert _code(lambda: s3.get_object(Bucket=bucket, Key="a note+\u00e9", IfNoneMatch=etag)) == "304"
    source = {"Bucket": bucket, "Key": "a note+\u00e9"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"roll": "28"})
    copied = s3.get_object(Bucket=bucket, Key="copy")
    assert (copied["Body"].read(), copied["Metadata"]) == (b"0123456789", {"roll": "28"})
    s3.delete_object(Bucket=bucket, Key="copy")
    assert _code(lambda: s3.get_object(Bucket=bucket, Key="copy")) == "NoSuchKey"


@exercises("PutObject", "PutObjectTagging", "GetObjectTagging", "DeleteObjectTagging")
def test_object_tagging(s3: Any, bucket: str) -> None:
    """An object's tags are set with it or after it, and deleted."""
    s3.put_object(Bucket=bucket, Key="note", Body=b"text", Tagging="album=sea%20side")
    assert s3.get_object_tagging(Bucket=bucket, Key="note")["TagSet"] == [{"Key": "album", "Value": "sea side"}]
    tags = [{"Key": "album", "Value": "mountains"}]
    s3.put_object_tagging(Bucket=bucket, Key="note", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="note")["TagSet"] == tags
    s3.delete_object_tagging(Bucket=bucket, Key="note")
    assert s3.get_object_tagging(Bucket=bucket, Key="note")["TagSet"] == []


@exercises("PutObject", "GetObjectAttributes")
def test_object_attributes(s3: Any, bucket: str) -> None:
    """The attributes that were asked for are told."""
    etag = s3.put_object(Bucket=bucket, Key="note", Body=b"text")["ETag"]
    told = s3.get_object_attributes(Bucket=bucket, Key="note", ObjectAttributes=["ETag", "ObjectSize"])
    assert (told["ETag"], told["ObjectSize"]) == (etag.strip('"'), 4)


@exercises("PutObject", "ListObjects", "ListObjectsV2")
def test_listings(s3: Any, bucket: str) -> None:
    """Both listings page through all keys in order, fold folders at a delimiter, and begin after a key."""
    keys = [f"album {number % 3}/{number:02}+&.txt" for number in range(23)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    for operation in ("list_objects", "list_objects_v2"):
        pages = list(s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 5}))
        assert [item["Key"] for page in pages for item in page["Contents"]] == sorted(keys)
        assert len(pages) == 5
        folded = getattr(s3, operation)(Bucket=bucket, Delimiter="/")
        assert [item["Prefix"] for item in folded["CommonPrefixes"]] == ["album 0/", "album 1/", "album 2/"]
    later = s3.list_objects_v2(Bucket=bucket, StartAfter="album 1/99", Prefix="album")
    assert [item["Key"] for item in later["Contents"]] == [key for key in sorted(keys) if key.startswith("album 2")]


@exercises("PutObject", "DeleteObjects", "ListObjectsV2")
def test_batch_delete(s3: Any, bucket: str) -> None:
    """Many keys go in one request, and the others stay."""
    keys = [f"<{number}> & 'more'.txt" for number in range(12)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[2:]]})
    assert {item["Key"] for item in answer["Deleted"]} == set(keys[2:])
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == sorted(keys[:2])


@exercises("PutObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy", "ListParts", "CompleteMultipartUpload")
def test_part_copies(s3: Any, bucket: str) -> None:
    """An upload is put together of a range of another object and a part of its own."""
    s3.put_object(Bucket=bucket, Key="source", Body=bytes(1000) + b"s" * PART_BYTES)
    target = {"Bucket": bucket, "Key": "whole"}
    target["UploadId"] = s3.create_multipart_upload(**target)["UploadId"]
    copied = s3.upload_part_copy(
        **target,
        PartNumber=1,
        CopySource={"Bucket": bucket, "Key": "source"},
        CopySourceRange=f"bytes=1000-{999 + PART_BYTES}",
    )["CopyPartResult"]["ETag"]
    own = s3.upload_part(**target, PartNumber=2, Body=b"end")["ETag"]
    assert [part["Size"] for part in s3.list_parts(**target)["Parts"]] == [PART_BYTES, 3]
    parts = [{"PartNumber": 1, "ETag": copied}, {"PartNumber": 2, "ETag": own}]
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="whole")["Body"].read() == b"s" * PART_BYTES + b"end"


@exercises("CreateMultipartUpload", "ListMultipartUploads", "AbortMultipartUpload")
def test_aborted_uploads(s3: Any, bucket: str) -> None:
    """An upload under way is listed, and gone when it was aborted."""
    begun = s3.create_multipart_upload(Bucket=bucket, Key="whole")["UploadId"]
    assert [item["UploadId"] for item in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [begun]
    s3.abort_multipart_upload(Bucket=bucket, Key="whole", UploadId=begun)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@exercises("PostObject", "GetObject", "ListObjectsV2")
def test_forms(s3: Any, bucket: str) -> None:
    """A browser's form with a signed policy stores its file under that file's name; an altered form nothing."""
    form = s3.generate_presigned_post(bucket, "form/${filename}", Conditions=[["starts-with", "$key", "form/"]])
    answer = _plain("POST", form["url"], data=form["fields"], files={"file": ("my note.txt", b"text")})
    assert answer.status_code == 204, answer.text
    assert s3.get_object(Bucket=bucket, Key="form/my note.txt")["Body"].read() == b"text"
    altered = {**form["fields"], "x-amz-signature": "0" * 64}
    assert _plain("POST", form["url"], data=altered, files={"file": ("other.txt", b"text")}).status_code == 403
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["form/my note.txt"]


@exercises()
def test_operations_that_are_not_served(s3: Any, bucket: str) -> None:
    """What the door does not know is refused by name, and never run as something else."""
    website = {"IndexDocument": {"Suffix": "index.html"}}
    assert _code(lambda: s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=website)) == "NotImplemented"
    assert _code(lambda: s3.get_bucket_encryption(Bucket=bucket)) == "NotImplemented"
    assert _code(lambda: s3.restore_object(Bucket=bucket, Key="note", RestoreRequest={"Days": 1})) == "NotImplemented"


def _code(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def _plain(method: str, url: str, **options: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, timeout=30, **options)
