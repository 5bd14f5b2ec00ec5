"""Dead letters in groups: what counts as alike, and that listing, replaying and auditing agree on it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from storage import actions, deadletters, errorgroups, jobs
from storage.database import Database
from storage.errorgroups import group_of, message_of
from storage.jobfilters import JobFilter
from tests.integration.stage import add_photo, in_transaction, take

TRACE = "Traceback (most recent call last):\n  File 'x.py', line {line}\nValueError: bad tile {tile} in '{name}'"


def raised(line: int, tile: int, name: str) -> dict[str, Any]:
    trace = TRACE.format(line=line, tile=tile, name=name)
    return {"code": "processor_failed", "detail": "The processor raised ValueError.", "traceback": trace}


async def bury(database: Database, key: str, error: dict[str, Any], processor: str = "preview") -> int:
    _, ids = await add_photo(database, key=key, processors=(processor,))
    claim = await take(database, ids[processor])
    await in_transaction(database, partial(jobs.bury, claim=claim, outcome="dead", error=error))
    return ids[processor]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (raised(1, 17, "a.jpg"), raised(2, 18, "b c.jpg")),
        ({"code": "x", "detail": "at 0x7ffe12 of 10 MB"}, {"code": "x", "detail": "at 0x11aa of 7.5 MB"}),
        ({"code": "x", "detail": "no /srv/a/b.jpg"}, {"code": "x", "detail": "no /mnt/c.png"}),
        (
            {"code": "x", "detail": "id 1b4e28ba-2fa1-11d2-883f-0016d3cca427"},
            {"code": "x", "detail": "id 6fa459ea-ee8a-3ca4-894e-db77e160355e"},
        ),
    ],
)
def test_errors_that_differ_in_names_and_numbers_are_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Lines, numbers, addresses, paths, ids and quoted names do not count."""
    assert group_of(one) == group_of(other)


def test_errors_that_say_something_else_are_not_alike() -> None:
    """The exception's own words, the sentence and the code do count."""
    errors = [
        raised(1, 1, "a"),
        {**raised(1, 1, "a"), "traceback": "ValueError: bad strip 1"},
        {**raised(1, 1, "a"), "code": "unexpected"},
        {"code": "decoder_crashed", "detail": "The decoder died: signal 11.", "reason": "signal"},
        {"code": "decoder_crashed", "detail": "The decoder died: memory.", "reason": "memory"},
    ]
    assert len({group_of(error) for error in errors}) == len(errors)


def test_an_exceptions_own_words_are_for_admins() -> None:
    """Others see the sentence that we wrote; both are one short line."""
    error = raised(1, 17, "x" * 999)
    assert message_of(error, traces=False) == "The processor raised ValueError."
    told = message_of(error, traces=True)
    assert told is not None
    assert told.startswith("ValueError: bad tile 17 in 'xxx")
    assert len(told) == 300
    assert message_of(None, traces=True) is None


async def test_groups_count_and_sample_what_is_dead(database: Database) -> None:
    """Largest first, with first and last end, the five newest jobs and the newest message; filters narrow them."""
    tiles = [await bury(database, f"in/{n}.jpg", raised(n, n, f"{n}.jpg")) for n in range(7)]
    missing = {"code": "original_missing", "detail": "The original is no longer in the storage."}
    lost = [await bury(database, f"out/{n}.jpg", missing, processor="exif") for n in range(2)]
    await add_photo(database, key="in/fine.jpg")
    async with database.connection() as conn:
        groups = await errorgroups.list_groups(conn, JobFilter(state="dead"), limit=10)
        assert [(item["processor"], item["error_code"], item["jobs"]) for item in groups] == [
            ("preview", "processor_failed", 7),
            ("exif", "original_missing", 2),
        ]
        assert groups[0]["sample_job_ids"] == tiles[:1:-1]
        assert groups[0]["error"] == raised(6, 6, "6.jpg")
        assert groups[0]["first_at"] < groups[0]["last_at"] <= groups[1]["first_at"]
        for wanted, expected in (
            (JobFilter(state="dead", key_prefix="out/"), [(lost[::-1], 2)]),
            (JobFilter(state="dead", search="IN/3"), [([tiles[3]], 1)]),
            (JobFilter(state="dead", search="NO LONGER"), [(lost[::-1], 2)]),
            (JobFilter(state="dead", places=("photos/in/6",)), [([tiles[6]], 1)]),
            (JobFilter(state="ready"), []),
        ):
            found = await errorgroups.list_groups(conn, wanted, limit=10)
            assert [(item["sample_job_ids"], item["jobs"]) for item in found] == expected


async def test_a_group_is_replayed_as_a_whole_and_written_down_once(database: Database) -> None:
    """The group's name is a filter of its own; the audit holds one line, with filter, number and first jobs."""
    tiles = [await bury(database, f"{n}.jpg", raised(n, n, "x")) for n in range(6)]
    await bury(database, "other.jpg", {**raised(1, 1, "x"), "traceback": "ValueError: bad strip 1"})
    wanted = JobFilter(error_group=group_of(raised(9, 9, "y")))
    async with database.transaction() as conn:
        job_ids = await deadletters.pick(conn, replace(wanted, state="dead"), limit=100)
        assert job_ids == tiles
        await deadletters.act(conn, job_ids, "replay", actor="ann", note="fixed", attempts=1, wanted=wanted)
        await deadletters.act(conn, job_ids, "replay", actor="bob", note=None, attempts=1, wanted=wanted)
    async with database.connection() as conn:
        (line,) = await actions.list_newest(conn, before_id=None, limit=9)
        assert (line["action"], line["actor"], line["note"], line["jobs"]) == ("replay", "ann", "fixed", 6)
        assert line["filter"] == {"error_group": wanted.error_group}
        assert line["job_ids"] == tiles[:5]
        assert [item["actor"] for item in await actions.list_of_job(conn, tiles[5])] == ["ann"]
