"""Which events an earlier look has answered already: by each source's own order, and never where clocks may deceive."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.events.bucket_event import BucketEvent, Source
from gateway.events.staleness import CLOCK_TOLERANCE, Looks

AT = datetime(2026, 11, 24, 2, 51, 49, tzinfo=UTC)
LONG_AFTER = AT + CLOCK_TOLERANCE + timedelta(seconds=1)
# Of each source that orders its events: an earlier and a later sequencer.
ORDERED: dict[Source, tuple[str, str]] = {
    "aws": ("00000660FCB99AA33C", "00000660FCB99AA33D"),
    "eventbridge": ("617f08299329d189", "617F08299329D18A"),
    "minio": ("FFFFFFFFFFFFFFF", "1000000000000000"),
    "rustfs": ("18a1f5b2c3d4e5f6", "18A1F5B2C3D4E5F7"),
    "ceph": ("EBFA046B04B6EC01", "C5FB046B6027DC1D"),
}


def event(source: Source, sequencer: str | None, **changes: object) -> BucketEvent:
    made = BucketEvent(source=source, bucket="photos", key="a", kind="created", sequencer=sequencer, occurred_at=AT)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ORDERED)
def test_what_is_older_than_the_last_look_is_stale(source: Source) -> None:
    """After a look for a later event an earlier one has nothing to tell, and a still later one has."""
    earlier, later = ORDERED[source]
    looks = Looks()
    assert not looks.cover(event(source, earlier))
    looks.note(event(source, later), LONG_AFTER)
    assert looks.cover(event(source, earlier))
    looks = Looks()
    looks.note(event(source, earlier), LONG_AFTER)
    assert not looks.cover(event(source, later))


@pytest.mark.parametrize("source", ["minio", "rustfs", "ceph"])
def test_a_clocks_order_is_not_believed_at_once(source: Source) -> None:
    """Where the sequencer is some node's clock, an earlier one is looked at again unless the look came minutes after
    the event; one without a time always is."""
    earlier, later = ORDERED[source]
    looks = Looks()
    looks.note(event(source, later), AT + CLOCK_TOLERANCE)
    assert not looks.cover(event(source, earlier))
    looks.note(event(source, later), LONG_AFTER)
    assert looks.cover(event(source, earlier))
    assert not looks.cover(event(source, earlier, occurred_at=None))


@pytest.mark.parametrize("source", ["aws", "eventbridge"])
def test_s3s_own_order_is_believed(source: Source) -> None:
    """S3's sequencer decides by itself, the same one twice included."""
    earlier, later = ORDERED[source]
    looks = Looks()
    looks.note(event(source, later), AT)
    assert looks.cover(event(source, later))
    assert looks.cover(event(source, earlier, occurred_at=None))


def test_the_newest_is_remembered() -> None:
    """A later look for an older event does not let the newer one be forgotten."""
    earlier, later = ORDERED["aws"]
    looks = Looks()
    looks.note(event("aws", later), AT)
    looks.note(event("aws", earlier), LONG_AFTER)
    assert looks.cover(event("aws", later))


@pytest.mark.parametrize("changes", [{"key": "b"}, {"bucket": "other"}, {"source": "eventbridge"}])
def test_only_of_one_object_and_source(changes: dict[str, str]) -> None:
    """Another key, bucket or source is not covered by a look."""
    looks = Looks()
    looks.note(event("aws", ORDERED["aws"][1]), LONG_AFTER)
    assert not looks.cover(replace(event("aws", ORDERED["aws"][0]), **changes))  # type: ignore[arg-type]


def test_without_a_sequencer_nothing_is_stale() -> None:
    """SeaweedFS gives none: the storage is asked each time."""
    looks = Looks()
    looks.note(event("seaweedfs", None), LONG_AFTER)
    assert not looks.cover(event("seaweedfs", None))


def test_the_memory_is_bounded() -> None:
    """The oldest look is forgotten first."""
    earlier, later = ORDERED["aws"]
    looks = Looks(capacity=2)
    for key in "abc":
        looks.note(event("aws", later, key=key), AT)
    assert [looks.cover(event("aws", earlier, key=key)) for key in "abc"] == [False, True, True]
