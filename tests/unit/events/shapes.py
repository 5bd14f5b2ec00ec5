"""The bodies that the storages send, one builder per shape, with keys encoded by the letter of each one's own encoder.

Shapes of Ceph RGW 16.2 and SeaweedFS 4.48 are as captured from them; the others are as their sources or manuals say.
"""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from gateway.events.bucket_event import BucketEvent, Kind, Source

ETAG = "d15b6ff885b4eaab60faee807c24dc16"
AT = datetime(2026, 11, 24, 2, 51, 49, tzinfo=UTC)
TOPIC = "arn:aws:sns:eu-central-1:123456789012:photos"
KEYS = {
    "space": "a b",
    "plus": "a+b",
    "percent": "a%2Bb",
    "unicode": "ü☃",
    "slash": "a/b",
    "double slash": "a//b",
    "trailing slash": "a/",
    "1,024 bytes": "k" * 1024,
    "1,024 bytes of two each": "ü" * 512,
}

_ALPHANUMERIC = string.ascii_letters + string.digits
SEQUENCER = {
    "minio": "18A1F5B2C3D4E5F6",
    "rustfs": "18A1F5B2C3D4E5F6",
    "ceph": "C5FB046B6027DC1D",
    "aws": "00000660FCB99AA33C",
    "eventbridge": "00000660FCB99AA33C",
}


def form(key: str, unreserved: str) -> str:
    """The key, form-urlencoded by an encoder that leaves these characters alone."""
    return "".join(
        "+" if byte == 32 else chr(byte) if chr(byte) in _ALPHANUMERIC + unreserved else f"%{byte:02X}"
        for byte in key.encode()
    )


def go_escape(key: str) -> str:
    return form(key, "-_.~")


def rust_escape(key: str) -> str:
    return form(key, "*-._")


def aws_escape(key: str) -> str:
    return form(key, "*-_./")


def unescaped(key: str) -> str:
    return key


def dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def record(source: Source, key: str, kind: Kind = "created", **changes: Any) -> dict[str, Any]:
    """A record of MinIO, RustFS, Ceph or AWS, its key encoded as given. `changes`: fields of its object."""
    prefix = "s3:" if source in ("minio", "rustfs") else ""
    item: dict[str, Any] = {"key": key, "sequencer": SEQUENCER[source]}
    if kind == "created":
        item |= {"size": 200, "eTag": ETAG}
        if source in ("minio", "rustfs"):
            item |= {"contentType": "image/png", "userMetadata": {"X-Amz-Meta-A": "b", "content-type": "image/png"}}
        if source == "ceph":
            listed = [{"key": "x-amz-meta-a", "val": "b"}, {"key": "x-amz-date", "val": "20261124T025149Z"}]
            item |= {"metadata": listed, "tags": []}
    return {
        "eventVersion": {"ceph": "2.2", "aws": "2.6"}.get(source, "2.0"),
        "eventSource": f"{source}:s3",
        "awsRegion": "",
        "eventTime": "2026-11-24T02:51:49.000Z",
        "eventName": prefix + ("ObjectCreated:Put" if kind == "created" else "ObjectRemoved:Delete"),
        "userIdentity": {"principalId": "app"},
        "requestParameters": {"sourceIPAddress": "192.0.2.1"},
        "responseElements": {"x-amz-request-id": "1", "x-amz-id-2": "2"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "n1",
            "bucket": {"name": "photos", "ownerIdentity": {"principalId": "app"}, "arn": "arn:aws:s3:::photos"},
            "object": item | {"versionId": "" if source == "ceph" else "v1"} | changes,
        },
        **({"eventId": "1795488709.500967.e", "opaqueData": "secret"} if source == "ceph" else {}),
    }


def records(*items: Any) -> bytes:
    return dump({"Records": list(items)})


def minio_webhook(key: str, kind: Kind) -> bytes:
    item = record("minio", go_escape(key), kind)
    return dump({"EventName": item["eventName"], "Key": f"photos/{key}", "Records": [item]})


def minio_access(key: str, kind: Kind) -> bytes:
    item = record("minio", go_escape(key), kind)
    return dump([{"Event": [item], "EventTime": item["eventTime"]}])


def minio_namespace(key: str, kind: Kind) -> bytes:
    return records(record("minio", go_escape(key), kind))


def rustfs_webhook(key: str, kind: Kind) -> bytes:
    item = record("rustfs", rust_escape(key), kind)
    return dump({"EventName": item["eventName"], "Key": f"photos/{key}", "Records": [item]})


def ceph_push(key: str, kind: Kind) -> bytes:
    return records(record("ceph", key, kind))


def aws_sqs(key: str, kind: Kind) -> bytes:
    return records(record("aws", aws_escape(key), kind))


def envelope(message: str, **changes: Any) -> dict[str, Any]:
    """A notification of SNS; its signature is a placeholder."""
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Subject": "Amazon S3 Notification",
        "Message": message,
        "Timestamp": "2026-11-24T02:51:49.123Z",
        "SignatureVersion": "1",
        "Signature": "RkFLRQ==",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-9c6465fa.pem",
        "UnsubscribeURL": f"https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={TOPIC}:1",
    } | changes


def confirmation(kind: Literal["SubscriptionConfirmation", "UnsubscribeConfirmation"]) -> dict[str, Any]:
    url = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37"
    document = envelope("You have chosen to subscribe.", Type=kind, Token="2336412f37", SubscribeURL=url)
    return {name: value for name, value in document.items() if name not in ("Subject", "UnsubscribeURL")}


def aws_sns(key: str, kind: Kind) -> bytes:
    return dump(envelope(aws_sqs(key, kind).decode()))


def event_bridge(key: str, kind: Kind) -> bytes:
    size = {"size": 200, "etag": ETAG} if kind == "created" else {"etag": ETAG}
    return dump(
        {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": "Object Created" if kind == "created" else "Object Deleted",
            "source": "aws.s3",
            "account": "123456789012",
            "time": "2026-11-24T02:51:49Z",
            "region": "eu-central-1",
            "resources": ["arn:aws:s3:::photos"],
            "detail": {
                "version": "0",
                "bucket": {"name": "photos"},
                "object": {"key": key, "version-id": "v1", "sequencer": SEQUENCER["eventbridge"]} | size,
                "request-id": "N4N7GDK58NMKJ12R",
                "requester": "123456789012",
                "source-ip-address": "192.0.2.1",
                "reason": "PutObject" if kind == "created" else "DeleteObject",
            },
        }
    )


def filer_entry(path: str, **changes: Any) -> dict[str, Any]:
    """A file of SeaweedFS, as its filer tells of it."""
    encoded = {"Seaweed-X-Amz-ETag": ETAG, "X-Amz-Meta-A": "b", "Seaweed-X-Amz-Owner": "admin"}
    return {
        "name": path.rpartition("/")[2],
        "chunks": [{"size": 200, "modified_ts_ns": 1795488709000000000, "fid": {"volume_id": 2}}],
        "attributes": {"file_size": 200, "mtime": int(AT.timestamp()), "file_mode": 432, "mime": "image/png"},
        "extended": {name: base64.b64encode(value.encode()).decode() for name, value in encoded.items()},
    } | changes


def filer_path(key: str) -> str:
    """Where the filer keeps a key: it knows no empty parts."""
    return "/buckets/photos/" + re.sub("/+", "/", key).removesuffix("/")


def notification(kind: str, path: str, **message: Any) -> bytes:
    return dump({"event_type": kind, "key": path, "message": message | {"signatures": [1346808227]}})


def seaweedfs_webhook(key: str, kind: Kind) -> bytes:
    path = filer_path(key)
    entry = filer_entry(path, **({"is_directory": True} if key.endswith("/") else {}))
    if kind == "created":
        return notification("create", path, new_entry=entry, new_parent_path=path.rpartition("/")[0])
    return notification("delete", path, old_entry=entry, delete_chunks=True)


@dataclass(frozen=True, kw_only=True)
class Shape:
    source: Source
    body: Callable[[str, Kind], bytes]
    tells_metadata: bool = False
    tells_version: bool = True
    removal_etag: bool = False  # it tells the ETag of what went

    def event(self, key: str, kind: Kind) -> BucketEvent:
        """What must be read of `body(key, kind)`."""
        is_created = kind == "created"
        return BucketEvent(
            source=self.source,
            bucket="photos",
            key=key,
            kind=kind,
            size_bytes=200 if is_created else None,
            etag=ETAG if is_created or self.removal_etag else None,
            version_id="v1" if self.tells_version else None,
            sequencer=SEQUENCER.get(self.source),
            occurred_at=None if self.source == "seaweedfs" and not is_created else AT,
            event_id={"ceph": "1795488709.500967.e", "eventbridge": "17793124-05d4-b198-2fde-7ededc63b103"}.get(
                self.source
            ),
            metadata={"a": "b"} if self.source == "seaweedfs" or (self.tells_metadata and is_created) else {},
        )


SHAPES = {
    "minio webhook": Shape(source="minio", body=minio_webhook, tells_metadata=True),
    "minio redis access": Shape(source="minio", body=minio_access, tells_metadata=True),
    "minio redis namespace": Shape(source="minio", body=minio_namespace, tells_metadata=True),
    "rustfs webhook": Shape(source="rustfs", body=rustfs_webhook, tells_metadata=True),
    "ceph push": Shape(source="ceph", body=ceph_push, tells_metadata=True, tells_version=False),
    "aws sqs": Shape(source="aws", body=aws_sqs),
    "aws sns": Shape(source="aws", body=aws_sns),
    "eventbridge": Shape(source="eventbridge", body=event_bridge, removal_etag=True),
    "seaweedfs webhook": Shape(
        source="seaweedfs", body=seaweedfs_webhook, tells_metadata=True, tells_version=False, removal_etag=True
    ),
}
