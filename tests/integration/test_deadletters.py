"""Replaying and discarding dead letters: once, by whoever is first, and written down."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial

import pytest

from storage import deadletters, jobs
from storage.database import Database
from storage.deadletters import Action
from storage.jobfilters import JobFilter
from tests.integration.stage import add_photo, fetch, in_transaction, job, photo, take, value

ERROR = {"code": "unexpected", "detail": "It failed."}


async def bury(database: Database, key: str = "a.jpg", code: str = "unexpected") -> tuple[uuid.UUID, int]:
    photo_id, ids = await add_photo(database, key=key)
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(jobs.bury, claim=claim, outcome="crashed", error={**ERROR, "code": code}))
    return photo_id, ids["preview"]


async def act(database: Database, job_ids: list[int], action: Action, actor: str = "someone") -> list[int]:
    return await in_transaction(
        database, partial(deadletters.act, job_ids=job_ids, action=action, actor=actor, note="why", attempts=4)
    )


@pytest.mark.parametrize(
    ("action", "state", "status"), [("replay", "ready", "processing"), ("discard", "discarded", "partial")]
)
async def test_twenty_at_once_act_once(database: Database, action: Action, state: str, status: str) -> None:
    """Of 20 concurrent replays or discards of a job one acts, and one line of audit says who."""
    photo_id, job_id = await bury(database)
    acted = await asyncio.gather(*(act(database, [job_id], action, actor=f"actor {n}") for n in range(20)))
    assert sorted(acted, key=len)[-2:] == [[], [job_id]]
    row = await job(database, job_id)
    assert row["state"] == state
    assert (await photo(database, photo_id))["status"] == status
    actions = await fetch(database, "select action, actor, note from job_action")
    assert actions == [{"action": action, "actor": f"actor {acted.index([job_id])}", "note": "why"}]


async def test_a_replayed_job_starts_anew(database: Database) -> None:
    """A replay forgets crashes, gives the attempts asked for, keeps the token, and is due at once."""
    _, job_id = await bury(database)
    await act(database, [job_id], "replay")
    row = await job(database, job_id)
    assert (row["crashes"], row["expiries"], row["token"]) == (0, 0, 1)
    assert row["max_attempts"] == row["attempt"] + 4
    assert (await take(database, job_id)).token == 2


async def test_replay_and_discard_race_to_one_end(database: Database) -> None:
    """A replay and a discard at the same moment: one wins, and only the winner is written down."""
    job_ids = [(await bury(database, key=f"{n}.jpg"))[1] for n in range(20)]
    replayed, discarded = await asyncio.gather(act(database, job_ids, "replay"), act(database, job_ids, "discard"))
    assert sorted(replayed + discarded) == sorted(job_ids)
    assert await value(database, "select count(*) from job_action") == 20


async def test_only_dead_jobs_can_be_acted_on(database: Database) -> None:
    """Ready, running and done jobs are left as they are, without a line of audit."""
    job_ids = [(await add_photo(database, key=f"{n}.jpg"))[1]["preview"] for n in range(3)]
    await take(database, job_ids[1])
    done = await take(database, job_ids[2])
    await in_transaction(database, partial(jobs.finish, claim=done, version=1))
    before = await fetch(database, "select * from job order by id")
    assert await act(database, [*job_ids, 999_999], "replay") == []
    assert await act(database, job_ids, "discard") == []
    assert await fetch(database, "select * from job order by id") == before
    assert await value(database, "select count(*) from job_action") == 0


async def test_filters_choose_dead_letters(database: Database) -> None:
    """Counting and picking see the same dead jobs, by error, bucket, key and processor; never jobs in other states."""
    crashed = [(await bury(database, key=f"in/{n}.jpg", code="decoder_crashed"))[1] for n in range(3)]
    _, other = await bury(database, key="out/1.jpg")
    await add_photo(database, key="in/9.jpg")
    for wanted, expected in (
        (JobFilter(), [*crashed, other]),
        (JobFilter(error_code="decoder_crashed"), crashed),
        (JobFilter(key_prefix="in/"), crashed),
        (JobFilter(key_prefix="in/", error_code="unexpected"), []),
        (JobFilter(bucket="elsewhere"), []),
        (JobFilter(processor="preview", bucket="photos", key_prefix="out"), [other]),
    ):
        async with database.connection() as conn:
            assert await deadletters.pick_dead(conn, wanted, limit=10) == expected
            assert await deadletters.pick_dead(conn, wanted, limit=1) == expected[:1]
            assert sum((await deadletters.count_dead(conn, wanted)).values()) == len(expected)
