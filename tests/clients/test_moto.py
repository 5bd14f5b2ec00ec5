"""Every operation of the door's table, through the door and with boto3, before moto: it knows more of S3 than any other
storage that runs here.

moto checks no signatures: what the door signs is proven on SeaweedFS, in test_claims.py. The file is long because the
table is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import boto3
import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
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
    **{f"{method}PublicAccessBlock": f"{method}BucketPublicAccessBlock" for method in ("Get", "Put", "Delete")},
    **{f"{method}ObjectLockConfiguration": f"{method}BucketObjectLock" for method in ("Get", "Put")},
}
BY_PLAIN_HTTP = {"AppendObject", "DeleteBucketNotification", "GetUsage", "PostObject", "Preflight"}


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
        called.add(NAMES.get(model.name, model.name.removesuffix("Configuration")))

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


def _configurations(*nouns: str, can_delete: bool = True) -> list[str]:
    methods = ("Get", "Put", "Delete") if can_delete else ("Get", "Put")
    return [f"{method}Bucket{noun}" for noun in nouns for method in methods]


@exercises(*_configurations("Encryption", "OwnershipControls", "PublicAccessBlock", "Replication", "Website"))
def test_what_can_be_set_and_deleted(s3: Any, bucket: str) -> None:
    """Encryption, ownership, a block of public access, replication, a website: kept, and gone when deleted."""
    encryption = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": encryption})
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"] == encryption
    s3.delete_bucket_encryption(Bucket=bucket)
    ownership = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=ownership)
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == ownership
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    s3.delete_public_access_block(Bucket=bucket)
    assert _code(lambda: s3.get_public_access_block(Bucket=bucket)) == "NoSuchPublicAccessBlockConfiguration"
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "index.html"}})
    assert s3.get_bucket_website(Bucket=bucket)["IndexDocument"] == {"Suffix": "index.html"}
    s3.delete_bucket_website(Bucket=bucket)
    assert _code(lambda: s3.get_bucket_website(Bucket=bucket)) == "NoSuchWebsiteConfiguration"
    s3.create_bucket(Bucket=f"{bucket}-target")
    for name in (bucket, f"{bucket}-target"):
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    rule = {
        "ID": "all",
        "Status": "Enabled",
        "Priority": 1,
        "Filter": {"Prefix": ""},
        "DeleteMarkerReplication": {"Status": "Disabled"},
        "Destination": {"Bucket": f"arn:aws:s3:::{bucket}-target"},
    }
    replication = {"Role": "arn:aws:iam::123456789012:role/copies", "Rules": [rule]}
    s3.put_bucket_replication(Bucket=bucket, ReplicationConfiguration=replication)
    assert s3.get_bucket_replication(Bucket=bucket)["ReplicationConfiguration"]["Rules"][0]["ID"] == "all"
    s3.delete_bucket_replication(Bucket=bucket)
    assert _code(lambda: s3.get_bucket_replication(Bucket=bucket)) == "ReplicationConfigurationNotFoundError"


@exercises(
    *_configurations("Accelerate", "Logging", "ObjectLock", "RequestPayment", can_delete=False),
    *_configurations("Inventory", "Notification"),
    "GetBucketPolicyStatus",
)
def test_what_can_be_set(s3: Any, door: Door, bucket: str) -> None:
    """Acceleration, inventories, notifications, logging, payment, object lock: passed on, refusals included."""
    s3.put_bucket_accelerate_configuration(Bucket=bucket, AccelerateConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_accelerate_configuration(Bucket=bucket)["Status"] == "Enabled"
    inventory = {
        "Id": "1",
        "IsEnabled": True,
        "IncludedObjectVersions": "All",
        "Schedule": {"Frequency": "Daily"},
        "Destination": {"S3BucketDestination": {"Bucket": f"arn:aws:s3:::{bucket}", "Format": "CSV"}},
    }
    s3.put_bucket_inventory_configuration(Bucket=bucket, Id="1", InventoryConfiguration=inventory)
    assert s3.get_bucket_inventory_configuration(Bucket=bucket, Id="1")["InventoryConfiguration"]["IsEnabled"]
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    s3.get_bucket_notification_configuration(Bucket=bucket)
    s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "BucketOwner"})
    s3.get_bucket_request_payment(Bucket=bucket)
    logging = {"LoggingEnabled": {"TargetBucket": "absent", "TargetPrefix": ""}}
    refused = _code(lambda: s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus=logging))
    assert refused == "InvalidTargetBucketForLogging"
    s3.get_bucket_logging(Bucket=bucket)
    lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    refused = _code(lambda: s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock))
    assert refused == "InvalidBucketState"
    assert "not" in _code(lambda: s3.get_object_lock_configuration(Bucket=bucket)).lower()
    assert _code(lambda: s3.get_bucket_policy_status(Bucket=bucket)) == "NoSuchBucketPolicy"
    # Two that the storage does not know: it would delete the bucket, were it empty.
    s3.put_object(Bucket=bucket, Key="note", Body=b"text")
    assert _code(lambda: s3.delete_bucket_inventory_configuration(Bucket=bucket, Id="1")) == "BucketNotEmpty"
    assert _signed(door, "DELETE", f"/{bucket}?notification").status_code == 409


@exercises(*_configurations("Analytics", "IntelligentTiering", "Metrics"))
def test_what_the_storage_does_not_know(s3: Any, bucket: str) -> None:
    """Settings that the storage has not heard of reach it all the same."""
    s3.put_object(Bucket=bucket, Key="note", Body=b"text")
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "analytics": ("AnalyticsConfiguration", {"Id": "1", "StorageClassAnalysis": {}}),
        "intelligent_tiering": (
            "IntelligentTieringConfiguration",
            {"Id": "1", "Status": "Enabled", "Tierings": [{"Days": 90, "AccessTier": "ARCHIVE_ACCESS"}]},
        ),
        "metrics": ("MetricsConfiguration", {"Id": "1"}),
    }
    for noun, (name, body) in bodies.items():
        getattr(s3, f"put_bucket_{noun}_configuration")(Bucket=bucket, Id="1", **{name: body})
        getattr(s3, f"get_bucket_{noun}_configuration")(Bucket=bucket, Id="1")
        delete = getattr(s3, f"delete_bucket_{noun}_configuration")
        assert _code(lambda delete=delete: delete(Bucket=bucket, Id="1")) == "BucketNotEmpty"


@exercises(
    "PutObjectLegalHold",
    "GetObjectLegalHold",
    "PutObjectRetention",
    "GetObjectRetention",
    "GetObjectTorrent",
    "RestoreObject",
    "SelectObjectContent",
    "AppendObject",
    "GetUsage",
)
def test_rare_operations(s3: Any, door: Door, bucket: str) -> None:
    """Holds and retentions, torrents, restoring, selecting, appending, usage."""
    s3.put_object(Bucket=bucket, Key="table", Body=b"a,b\n1,2\n")
    s3.create_bucket(Bucket=f"{bucket}-locked", ObjectLockEnabledForBucket=True)
    locked = {"Bucket": f"{bucket}-locked", "Key": "note"}
    s3.put_object(**locked, Body=b"text")
    s3.put_object_legal_hold(**locked, LegalHold={"Status": "ON"})
    assert s3.get_object_legal_hold(**locked)["LegalHold"] == {"Status": "ON"}
    s3.put_object_legal_hold(**locked, LegalHold={"Status": "OFF"})
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    s3.put_object_retention(**locked, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until})
    assert _code(lambda: s3.get_object_retention(**locked)) == "500"  # moto's own failure, passed on
    s3.get_object_torrent(Bucket=bucket, Key="table")
    restore = {"Days": 1}
    assert _code(lambda: s3.restore_object(Bucket=bucket, Key="table", RestoreRequest=restore)) == "InvalidObjectState"
    selected = s3.select_object_content(
        Bucket=bucket,
        Key="table",
        Expression="select * from s3object",
        ExpressionType="SQL",
        InputSerialization={"CSV": {}},
        OutputSerialization={"CSV": {}},
    )
    assert b"".join(item["Records"]["Payload"] for item in selected["Payload"] if "Records" in item)
    assert _signed(door, "PUT", f"/{bucket}/log?append&position=0", b"line").status_code == 200
    assert s3.get_object(Bucket=bucket, Key="log")["Body"].read() == b"line"
    assert _signed(door, "GET", "/?usage").status_code == 200


@exercises()
def test_operations_that_are_not_served(s3: Any, door: Door, bucket: str) -> None:
    """What the door does not know is refused by name, and never run as something else."""
    for query in ("metadataTable", "renameObject", "surprise"):
        answer = _signed(door, "PUT", f"/{bucket}/note?{query}")
        assert (answer.status_code, b"<Code>NotImplemented</Code>" in answer.content) == (501, True)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def _signed(door: Door, method: str, target: str, body: bytes = b"") -> requests.Response:
    """What boto3 has no method for."""
    asked = AWSRequest(method=method, url=door.endpoint.url + target, data=body)
    S3SigV4Auth(Credentials(door.endpoint.access_key, door.endpoint.secret_key), "s3", REGION).add_auth(asked)
    return _plain(method, door.endpoint.url + target, data=body, headers=dict(asked.headers))


def _code(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def _plain(method: str, url: str, **options: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, timeout=30, **options)
