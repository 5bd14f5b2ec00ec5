"""RustFS' webhook: MinIO's body under a name of its own; keys are form-urlencoded, `/` too."""

from __future__ import annotations

from gateway.events.bucket_event import BucketEvent
from gateway.events.fields import Json
from gateway.events.keys import form_key
from gateway.events.records import map_metadata, read_record

EVENT_SOURCE = "rustfs:s3"


def normalise(record: Json) -> BucketEvent:
    """The event of one element of `Records`. Raises Ignored."""
    return read_record(record, source="rustfs", key=form_key, metadata=map_metadata)
