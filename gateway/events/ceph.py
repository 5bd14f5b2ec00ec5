"""Ceph RGW's HTTP push: keys are raw, metadata is a list of `{"key", "val"}` with request headers among it.

Its opaqueData (a secret that the topic's owner chose) is checked by the door, not here.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.events.bucket_event import BucketEvent
from gateway.events.fields import Json, user_metadata
from gateway.events.keys import raw_key
from gateway.events.records import read_record

EVENT_SOURCE = "ceph:s3"


def normalise(record: Json) -> BucketEvent:
    """The event of one element of `Records`. Raises Ignored."""
    return read_record(record, source="ceph", key=raw_key, metadata=_metadata)


def _metadata(item: Mapping[str, Json]) -> dict[str, str]:
    listed = item.get("metadata")
    entries = listed if isinstance(listed, list) else []
    return user_metadata((entry.get("key"), entry.get("val")) for entry in entries if isinstance(entry, dict))
