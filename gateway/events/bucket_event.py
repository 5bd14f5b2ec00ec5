"""The one form of a bucket event, and why a part of a message is none. Knows no source's wire format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

Source = Literal["minio", "ceph", "rustfs", "aws", "eventbridge", "seaweedfs"]
Kind = Literal["created", "removed"]  # created: put, posted, copied, assembled from parts, or overwritten


@dataclass(frozen=True, kw_only=True)
class BucketEvent:
    """One object that came or went. Every text in it can be kept by Postgres: no NUL, no lone surrogate.

    `key`: decoded, 1 to 1,024 bytes of UTF-8. `size_bytes`: None where unknown, and for what was removed. `etag`:
    without quotes; of a removal, that of what went. `sequencer`: as the source wrote it, for `sequencers` alone.
    `event_id`: the same whenever the source repeats this event. `metadata`: the user's, by lower-case name without
    x-amz-meta-.
    """

    source: Source
    bucket: str
    key: str
    kind: Kind
    size_bytes: int | None = None
    etag: str | None = None
    version_id: str | None = None
    sequencer: str | None = None
    occurred_at: datetime | None = None  # UTC
    event_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class Reason(StrEnum):
    """Why a part of a message gave no event. The values are stable: they name metrics."""

    MALFORMED = "malformed"
    UNKNOWN_SOURCE = "unknown_source"
    UNKNOWN_VERSION = "unknown_version"
    UNWANTED_KIND = "unwanted_kind"  # tags, retention, access, replication, ...
    BAD_BUCKET = "bad_bucket"
    MISSING_KEY = "missing_key"
    LONG_KEY = "long_key"
    UNDECODABLE_KEY = "undecodable_key"  # not encoded as its source encodes keys
    UNSTORABLE_KEY = "unstorable_key"  # NUL or a lone surrogate
    DIRECTORY = "directory"
    SYSTEM_PATH = "system_path"
    UPLOAD_PART = "upload_part"


class Ignored(Exception):
    """This part of a message is not an event for us."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason
