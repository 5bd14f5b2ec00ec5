"""Whether an event tells of something that an earlier look at the storage must have seen. Pure: times come in.

S3's own sequencers order all writes of a key, so they are believed. Those of MinIO, RustFS and Ceph are readings of the
clock of whichever node served the write: two nodes differ, so they are believed only well after the event.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.events.bucket_event import BucketEvent
from gateway.events.sequencers import is_newer_sequencer

CLOCK_TOLERANCE = timedelta(minutes=5)
_ORDERED_BY_S3 = ("aws", "eventbridge")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    sequencer: str  # of the newest event that led to it; there are many looks, so the rest of it is not kept
    began_at: datetime


class Looks:
    """The last looks at the storage of one process: a bounded memory, oldest forgotten first."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._last: OrderedDict[tuple[str, str, str], _Look] = OrderedDict()

    def cover(self, event: BucketEvent) -> bool:
        """Whether a look that began after this event happened is remembered."""
        last = self._last.get(_place(event))
        if last is None or is_newer_sequencer(event.source, event.sequencer, last.sequencer) is not False:
            return False
        if event.source in _ORDERED_BY_S3:
            return True
        return event.occurred_at is not None and last.began_at - event.occurred_at > CLOCK_TOLERANCE

    def note(self, event: BucketEvent, began_at: datetime) -> None:
        """The storage was looked at because of this event, from that time (aware) on."""
        if event.sequencer is None:
            return
        place = _place(event)
        last = self._last.pop(place, None)
        newest = event.sequencer
        if last is not None and is_newer_sequencer(event.source, newest, last.sequencer) is False:
            newest = last.sequencer
        self._last[place] = _Look(sequencer=newest, began_at=began_at)
        if len(self._last) > self._capacity:
            self._last.popitem(last=False)


def _place(event: BucketEvent) -> tuple[str, str, str]:
    return event.source, event.bucket, event.key
