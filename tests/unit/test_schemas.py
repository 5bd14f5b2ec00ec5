"""What clients may send: cursors that only we can make, times, and texts that Postgres can hold."""

from __future__ import annotations

import base64
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from gateway.schemas import JobsQuery, PhotosQuery, ReplayManyBody, WaitQuery, encode_cursor

PHOTOS, JOBS = PhotosQuery(), JobsQuery()


@given(at=st.datetimes(timezones=st.just(UTC)), photo_id=st.uuids())
def test_photo_cursors_come_back(at: datetime, photo_id: uuid.UUID) -> None:
    """What a page ended with is what the next one begins after, to the microsecond."""
    cursor = encode_cursor(f"{at.isoformat()}|{photo_id}")
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?")
    assert PHOTOS.load({"cursor": cursor})["cursor"] == (at, photo_id)


@given(st.integers(0, 2**63 - 1))
def test_job_cursors_come_back(job_id: int) -> None:
    """Any id that a job can have survives."""
    assert JOBS.load({"cursor": encode_cursor(str(job_id))})["cursor"] == job_id


def cursors_of_strangers() -> st.SearchStrategy[str]:
    encoded = st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("="))
    looks_right = st.tuples(st.text(max_size=40), st.text(max_size=40)).map(lambda pair: encode_cursor("|".join(pair)))
    return st.one_of(st.text(), encoded, looks_right, st.text().map(encode_cursor))


@given(cursors_of_strangers())
def test_garbage_is_no_cursor(cursor: str) -> None:
    """Whatever a stranger sends as a cursor is refused as a parameter, or means something that we could have sent."""
    for schema, kind in ((PHOTOS, tuple), (JOBS, int)):
        refused = schema.validate({"cursor": cursor})
        assert set(refused) <= {"cursor"}
        assert refused or isinstance(schema.load({"cursor": cursor})["cursor"], kind)


@pytest.mark.parametrize("text", ["-1", str(2**63), "1_0", " 1", "\u0661", "9" * 5000])
def test_job_cursors_are_ids(text: str) -> None:
    """A number that no job can have is no cursor, and never reaches Postgres."""
    with pytest.raises(ValidationError):
        JOBS.load({"cursor": encode_cursor(text)})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-17T09:30:00Z", datetime(2026, 5, 17, 9, 30, tzinfo=UTC)),
        ("2026-05-17T09:30:00", datetime(2026, 5, 17, 9, 30, tzinfo=UTC)),
        ("2026-05-17T09:30:00+02:00", datetime(2026, 5, 17, 7, 30, tzinfo=UTC)),
        ("2026-05-17T09:30:00 02:00", datetime(2026, 5, 17, 7, 30, tzinfo=UTC)),  # a plus that was not quoted
        ("2026-05-17", datetime(2026, 5, 17, tzinfo=UTC)),
    ],
)
def test_moments_are_read_as_utc(text: str, moment: datetime) -> None:
    """An offset is honoured, and UTC is meant where there is none."""
    assert JOBS.load({"created_after": text})["created_after"] == moment


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    """No text makes a time field raise anything but a validation error, and no moment is without its zone."""
    for schema, name in ((JOBS, "created_before"), (PHOTOS, "taken_after")):
        try:
            found = schema.load({name: text})[name]
        except ValidationError:
            continue
        assert (found.tzinfo is UTC) is (name == "created_before")


@pytest.mark.parametrize(
    ("schema", "sent", "name"),
    [
        (PHOTOS, {"limit": 0}, "limit"),
        (PHOTOS, {"limit": 201}, "limit"),
        (PHOTOS, {"status": "odd"}, "status"),
        (PHOTOS, {"prefix": "a\0b"}, "prefix"),
        (PHOTOS, {"prefix": "a\ud800"}, "prefix"),
        (PHOTOS, {"prefix": "p" * 1025}, "prefix"),
        (PHOTOS, {"unknown": "x"}, "unknown"),
        (JOBS, {"state": "lost"}, "state"),
        (JOBS, {"photo_id": "1"}, "photo_id"),
        (WaitQuery(), {"wait": "nan"}, "wait"),
        (WaitQuery(), {"wait": -1}, "wait"),
        (WaitQuery(), {"wait": 601}, "wait"),
        (ReplayManyBody(), {"limit": 1001}, "limit"),
        (ReplayManyBody(), {"filter": {"state": "done"}}, "filter"),
        (ReplayManyBody(), {"note": "a\0"}, "note"),
    ],
    ids=repr,
)
def test_parameters_are_bounded(schema: Any, sent: dict[str, Any], name: str) -> None:
    """Each value out of bounds, and each unknown name, is refused under its own name."""
    with pytest.raises(ValidationError) as caught:
        schema.load(sent)
    assert set(caught.value.normalized_messages()) == {name}
