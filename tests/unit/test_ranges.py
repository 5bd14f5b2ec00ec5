"""Conditional and ranged requests, judged as RFC 9110 says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from gateway import ranges
from gateway.errors import Problem
from gateway.ranges import Span

MODIFIED = datetime(2026, 5, 17, 9, 30, 0, 500_000, tzinfo=UTC)
SAME, LATER, EARLIER = (f"Sun, 17 May 2026 09:{minute}:00 GMT" for minute in ("30", "31", "29"))


def ask(**headers: str) -> web.Request:
    return make_mocked_request("GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=0-99", (0, 99)),
        ("bytes=10-", (10, 99)),
        ("bytes=10-1000", (10, 99)),
        ("bytes=99-", (99, 99)),
        ("bytes=-1", (99, 99)),
        ("bytes=-1000", (0, 99)),
        ("bytes = 1 - 2", (1, 2)),
    ],
)
def test_a_single_range_is_honoured(asked: str, span: tuple[int, int]) -> None:
    """First and last byte, open ends and suffixes, cut to what there is."""
    found = ranges.wanted(ask(Range=asked), "tag", 100)
    assert found == Span(first=span[0], last=span[1])
    assert found.size_bytes == span[1] - span[0] + 1


@pytest.mark.parametrize(
    "asked", ["", "bytes=-", "bytes=5-2", "bytes=0-1,3-4", "items=0-1", "bytes=a-b", "0-1", f"bytes={'9' * 20}-"]
)
def test_other_ranges_mean_everything(asked: str) -> None:
    """Several ranges, other units and nonsense are passed over."""
    assert ranges.wanted(ask(Range=asked), "tag", 100) is None


@pytest.mark.parametrize(
    ("asked", "size_bytes"), [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0)]
)
def test_a_range_outside_is_refused(asked: str, size_bytes: int) -> None:
    """Nothing of the range is there: 416, with the size that there is."""
    with pytest.raises(Problem) as caught:
        ranges.wanted(ask(Range=asked), "tag", size_bytes)
    assert caught.value.status == 416
    assert caught.value.headers == {"Content-Range": f"bytes */{size_bytes}"}


@given(first=st.integers(0, 200), last=st.integers(0, 200), size_bytes=st.integers(1, 150))
def test_a_span_never_leaves_the_object(first: int, last: int, size_bytes: int) -> None:
    """Whatever was asked, the span lies within the object and is what slicing gives."""
    data = bytes(range(size_bytes))
    try:
        span = ranges.wanted(ask(Range=f"bytes={first}-{last}"), "tag", size_bytes)
    except Problem:
        assert first >= size_bytes
        return
    if span is None:
        assert last < first
        return
    assert data[span.first : span.last + 1] == data[first : last + 1]
    assert span.size_bytes == len(data[first : last + 1])


@pytest.mark.parametrize(
    ("given_tag", "honoured"), [('"tag"', True), ('"other"', False), ('W/"tag"', False), (SAME, False)]
)
def test_if_range_guards_a_range(given_tag: str, honoured: bool) -> None:
    """A range of another generation is not served: the whole is."""
    found = ranges.wanted(ask(Range="bytes=0-1", If_Range=given_tag), "tag", 100)
    assert (found is not None) is honoured


@pytest.mark.parametrize(
    ("headers", "unchanged"),
    [
        ({}, False),
        ({"If_None_Match": '"tag"'}, True),
        ({"If_None_Match": 'W/"tag"'}, True),
        ({"If_None_Match": '"x", "tag"'}, True),
        ({"If_None_Match": "*"}, True),
        ({"If_None_Match": '"x"'}, False),
        ({"If_Modified_Since": SAME}, True),
        ({"If_Modified_Since": LATER}, True),
        ({"If_Modified_Since": EARLIER}, False),
        ({"If_Modified_Since": "yesterday"}, False),
        ({"If_None_Match": '"x"', "If_Modified_Since": LATER}, False),
    ],
)
def test_what_a_client_has_already_is_not_sent(headers: dict[str, str], unchanged: bool) -> None:
    """Tags go before dates, and dates count whole seconds."""
    assert ranges.not_modified(ask(**headers), "tag", MODIFIED) is unchanged


def test_dates_are_written_for_http() -> None:
    """Whole seconds, in GMT."""
    assert ranges.http_date(MODIFIED) == SAME
