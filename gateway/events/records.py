"""The record that S3 defined and that MinIO, RustFS and Ceph write too, one object each. Where they differ (how the key
is encoded, how metadata is listed) their modules say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.events import fields
from gateway.events.bucket_event import BucketEvent, Ignored, Kind, Reason, Source
from gateway.events.fields import Json
from gateway.events.keys import bucket_name

# Every other name is left out on purpose: MinIO's ObjectCreated:* has PutTagging and PutRetention among it.
KINDS: dict[str, Kind] = {
    "ObjectCreated:Put": "created",
    "ObjectCreated:Post": "created",
    "ObjectCreated:Copy": "created",
    "ObjectCreated:CompleteMultipartUpload": "created",
    "ObjectRemoved:Delete": "removed",
    "ObjectRemoved:DeleteMarkerCreated": "removed",
    "ObjectRemoved:DeleteAllVersions": "removed",
    "ObjectRemoved:NoOP": "removed",  # there was nothing to remove; still nothing is there
    "LifecycleExpiration:Delete": "removed",
    "LifecycleExpiration:DeleteMarkerCreated": "removed",
    "ObjectLifecycle:Expiration": "removed",  # Ceph's own names for it
    "ObjectLifecycle:Expiration:Current": "removed",
    "ObjectLifecycle:Expiration:DeleteMarker": "removed",
}


def read_record(
    record: Json,
    *,
    source: Source,
    key: Callable[[Json], str],
    metadata: Callable[[Mapping[str, Json]], dict[str, str]] = lambda _: {},
) -> BucketEvent:
    """The event of a record. `key` decodes its key, `metadata` reads that of its object. Raises Ignored."""
    if not isinstance(record, dict):
        raise Ignored(Reason.MALFORMED)
    kind = _kind(record)
    item = fields.within(record, "s3", "object")
    return BucketEvent(
        source=source,
        bucket=bucket_name(fields.within(record, "s3", "bucket").get("name")),
        key=key(item.get("key")),
        kind=kind,
        size_bytes=fields.size_bytes(item.get("size")) if kind == "created" else None,
        etag=fields.etag(item),
        version_id=fields.version_id(item, "versionId"),
        sequencer=fields.text(item, "sequencer"),
        occurred_at=fields.utc_time(record.get("eventTime")),
        event_id=fields.text(record, "eventId"),
        metadata=metadata(item),
    )


def map_metadata(item: Mapping[str, Json]) -> dict[str, str]:
    """User metadata, written as an object under userMetadata."""
    return fields.user_metadata(fields.within(item, "userMetadata").items())


def _kind(record: Mapping[str, Json]) -> Kind:
    version = record.get("eventVersion", "2")
    if not isinstance(version, str) or version.partition(".")[0] != "2":  # a new major version breaks with the old
        raise Ignored(Reason.UNKNOWN_VERSION)
    name = record.get("eventName")
    if not isinstance(name, str):
        raise Ignored(Reason.MALFORMED)
    kind = KINDS.get(name.removeprefix("s3:"))
    if kind is None:
        raise Ignored(Reason.UNWANTED_KIND)
    return kind
