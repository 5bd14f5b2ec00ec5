"""AWS EventBridge's form of an S3 event: one object per message, its key raw, its fields spelled in their own way."""

from __future__ import annotations

from gateway.events import fields
from gateway.events.bucket_event import BucketEvent, Ignored, Kind, Reason
from gateway.events.fields import Json
from gateway.events.keys import bucket_name, raw_key

KINDS: dict[str, Kind] = {"Object Created": "created", "Object Deleted": "removed"}


def is_event(document: Json) -> bool:
    """Whether EventBridge wrote this, about S3."""
    return isinstance(document, dict) and document.get("source") == "aws.s3" and "detail-type" in document


def normalise(document: Json) -> BucketEvent:
    """The event of a message. Raises Ignored."""
    detail_type = document.get("detail-type")
    if not isinstance(detail_type, str):
        raise Ignored(Reason.MALFORMED)
    kind = KINDS.get(detail_type)
    if kind is None:
        raise Ignored(Reason.UNWANTED_KIND)
    item = fields.within(document, "detail", "object")
    return BucketEvent(
        source="eventbridge",
        bucket=bucket_name(fields.within(document, "detail", "bucket").get("name")),
        key=raw_key(item.get("key")),
        kind=kind,
        size_bytes=fields.size_bytes(item.get("size")) if kind == "created" else None,
        etag=fields.etag(item),
        version_id=fields.version_id(item, "version-id"),
        sequencer=fields.text(item, "sequencer"),
        occurred_at=fields.utc_time(document.get("time")),
        event_id=fields.text(document, "id"),
    )
