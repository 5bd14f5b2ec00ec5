"""MinIO's webhook: keys are form-urlencoded, `/` too. Its top-level `Key` is raw and says nothing more."""

from __future__ import annotations

from gateway.events.bucket_event import BucketEvent
from gateway.events.fields import Json
from gateway.events.keys import form_key
from gateway.events.records import map_metadata, read_record

EVENT_SOURCE = "minio:s3"


def normalise(record: Json) -> BucketEvent:
    """The event of one element of `Records`. Raises Ignored."""
    return read_record(record, source="minio", key=form_key, metadata=map_metadata)
