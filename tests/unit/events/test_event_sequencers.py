"""Which of two events came later: each source's own rule, and nothing made up where it has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.bucket_event import BucketEvent, Source
from gateway.events.sequencers import is_newer, is_newer_sequencer

ANY_SOURCE = st.sampled_from(get_args(Source))
ANY_SEQUENCER = st.none() | st.text(max_size=80) | st.from_regex(r"[0-9A-Fa-f]{1,20}", fullmatch=True)
CEPH_EARLIER, CEPH_LATER = (
    "EBFA046B04B6EC01",
    "C5FB046B6027DC1D",
)  # captured: 1795488491.032290308, 1795488709.500967264


def event(source: Source, sequencer: str | None, **changes: Any) -> BucketEvent:
    return replace(BucketEvent(source=source, bucket="photos", key="a", kind="created", sequencer=sequencer), **changes)


@pytest.mark.parametrize(
    ("source", "earlier", "later"),
    [
        ("aws", "00000660FCB99AA33C", "00000660FCB99AA33D"),
        ("aws", "00000660FCB99AA33C", "00000661"),  # the shorter is padded on the right
        ("aws", "0055AED6DCD90281E5", "0055AED6DCD90281E50001"),
        ("eventbridge", "617f08299329d189", "617F08299329D18A"),  # the case says nothing
        ("minio", "FFFFFFFFFFFFFFF", "1000000000000000"),  # numbers: the longer is the larger
        ("minio", "18A1F5B2C3D4E5F6", "18A1F5B2C3D4E5F7"),
        ("rustfs", "18a1f5b2c3d4e5f6", "18A1F5B2C3D4E5F7"),
        ("ceph", CEPH_EARLIER, CEPH_LATER),
        ("ceph", "C5FB046B6027DC1D", "C5FB046B6127DC1D"),  # by the nanoseconds
        ("ceph", "FFFF000001000000", "0000010000000000"),
    ],
)
def test_order(source: Source, earlier: str, later: str) -> None:
    """A source's own rule tells the later from the earlier, asked either way."""
    assert is_newer(event(source, later), event(source, earlier)) is True
    assert is_newer(event(source, earlier), event(source, later)) is False


@given(
    a=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**9 - 1)),
    b=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**9 - 1)),
)
def test_ceph_orders_by_time(a: tuple[int, int], b: tuple[int, int]) -> None:
    """RGW's sequencers order as the times that they were made of, unlike their text."""
    first, second = ("".join(part.to_bytes(4, "little").hex() for part in pair) for pair in (a, b))
    assert is_newer_sequencer("ceph", first, second) is (a > b)


def test_the_same_event_twice() -> None:
    """A repeated event is not newer than itself; where a sequencer can tie, that is not known."""
    assert is_newer(event("aws", "00A"), event("aws", "00a")) is False
    assert is_newer(event("ceph", CEPH_LATER), event("ceph", CEPH_LATER)) is False
    assert is_newer(event("minio", "00A"), event("minio", "A")) is None
    assert is_newer(event("rustfs", "A"), event("rustfs", "A")) is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (event("seaweedfs", "2"), event("seaweedfs", "1")),
        (event("aws", None), event("aws", "1")),
        (event("aws", ""), event("aws", "1")),
        (event("aws", "0x2"), event("aws", "1")),
        (event("minio", " 2"), event("minio", "1")),
        (event("minio", "٢"), event("minio", "1")),  # a digit to int(), but not a hex one
        (event("minio", "1_0"), event("minio", "1")),
        (event("aws", "F" * 65), event("aws", "1")),
        (event("ceph", "C5FB046B6027DC"), event("ceph", CEPH_EARLIER)),
        (event("ceph", "C5FB046BFFFFFFFF"), event("ceph", CEPH_EARLIER)),  # 4,294,967,295 ns
        (event("aws", "2"), event("minio", "1")),
        (event("aws", "2"), event("aws", "1", key="b")),
        (event("aws", "2"), event("aws", "1", bucket="b")),
    ],
)
def test_what_cannot_be_told(a: BucketEvent, b: BucketEvent) -> None:
    """Without two readable sequencers of one object and source there is no answer, either way."""
    assert is_newer(a, b) is None
    assert is_newer(b, a) is None


@given(source=ANY_SOURCE, a=ANY_SEQUENCER, b=ANY_SEQUENCER)
def test_any_sequencers(source: Source, a: str | None, b: str | None) -> None:
    """On any text there is an answer or none, and never two events that are both the newer."""
    forth, back = is_newer_sequencer(source, a, b), is_newer_sequencer(source, b, a)
    assert (forth is None) == (back is None)
    assert not (forth and back)
