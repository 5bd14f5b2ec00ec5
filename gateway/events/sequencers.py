"""Which of two events about one object came later, by the rule of the source that wrote them. Total on any input.

Where a source has no sequencer, wrote one that we cannot read, or gave both the same, only the storage can tell.
"""

from __future__ import annotations

import re
import struct

from gateway.events.bucket_event import BucketEvent, Source

_HEX = re.compile(r"[0-9A-Fa-f]{1,64}")
_NANOSECONDS = 1_000_000_000


def is_newer(a: BucketEvent, b: BucketEvent) -> bool | None:
    """Whether `a` came after `b`. None where it cannot be told: also where they are of different objects or sources."""
    if (a.source, a.bucket, a.key) != (b.source, b.bucket, b.key):
        return None
    return is_newer_sequencer(a.source, a.sequencer, b.sequencer)


def is_newer_sequencer(source: Source, a: str | None, b: str | None) -> bool | None:
    """Whether the sequencer `a` comes after `b`, both of one key of that source. False of the same one twice, but None
    where the source may give one sequencer to two events."""
    if a is None or b is None or not _HEX.fullmatch(a) or not _HEX.fullmatch(b):
        return None
    match source:
        case "aws" | "eventbridge":
            width = max(len(a), len(b))
            return a.lower().ljust(width, "0") > b.lower().ljust(width, "0")
        case "minio" | "rustfs":  # the time in nanoseconds, which can tie
            first, second = int(a, 16), int(b, 16)
            return None if first == second else first > second
        case "ceph":
            return _compare_times(_ceph_time(a), _ceph_time(b))
        case _:
            return None


def _compare_times(a: tuple[int, int] | None, b: tuple[int, int] | None) -> bool | None:
    return None if a is None or b is None else a > b


def _ceph_time(sequencer: str) -> tuple[int, int] | None:
    """(seconds, nanoseconds): RGW writes the memory of its two little-endian 32-bit numbers."""
    if len(sequencer) != 16:
        return None
    seconds, nanoseconds = struct.unpack("<II", bytes.fromhex(sequencer))
    return (seconds, nanoseconds) if nanoseconds < _NANOSECONDS else None
