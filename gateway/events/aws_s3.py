"""AWS S3, through SQS or SNS: keys are form-urlencoded with a raw `/`, metadata is not told."""

from __future__ import annotations

from gateway.events.bucket_event import BucketEvent
from gateway.events.fields import Json
from gateway.events.keys import form_key
from gateway.events.records import read_record

EVENT_SOURCE = "aws:s3"


def normalise(record: Json) -> BucketEvent:
    """The event of one element of `Records`. Raises Ignored."""
    return read_record(record, source="aws", key=form_key)
