"""Replaying and discarding dead letters: once, by whoever is first, and written down."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from functools import partial

import pytest

from storage import deadletters, jobs, workers
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
            dead = replace(wanted, state="dead")
            assert await deadletters.pick(conn, dead, limit=10) == expected
            assert await deadletters.pick(conn, dead, limit=1) == expected[:1]
            assert sum((await deadletters.count_by_error(conn, dead)).values()) == len(expected)


async def later(database: Database, key: str = "a.jpg") -> tuple[uuid.UUID, int]:
    """A job that failed and is to be tried again in a minute."""
    photo_id, ids = await add_photo(database, key=key)
    claim = await take(database, ids["preview"])
    retry = partial(jobs.postpone, claim=claim, after_seconds=60, outcome="retry", error=ERROR)
    await in_transaction(database, retry)
    return photo_id, ids["preview"]


async def test_of_twenty_promotions_at_once_one_acts(database: Database) -> None:
    """A job for later is due at once and can be taken, with its attempts as they were; one line of audit; its photo's
    status and events stay as they are."""
    photo_id, job_id = await later(database)
    before = await photo(database, photo_id), await value(database, "select count(*) from event")
    acted = await asyncio.gather(*(promote(database, [job_id], actor=f"actor {n}") for n in range(20)))
    assert sorted(acted, key=len)[-2:] == [[], [job_id]]
    actions = await fetch(database, "select action, actor from job_action")
    assert actions == [{"action": "promote", "actor": f"actor {acted.index([job_id])}"}]
    assert (await photo(database, photo_id), await value(database, "select count(*) from event")) == before
    claim = await take(database, job_id)
    assert (claim.attempt, claim.token) == (2, 2)


async def promote(database: Database, job_ids: list[int], actor: str = "someone") -> list[int]:
    return await in_transaction(
        database,
        partial(deadletters.act, job_ids=job_ids, action="promote", actor=actor, note=None, attempts=4, state="later"),
    )


async def test_only_jobs_for_later_are_promoted(database: Database) -> None:
    """Due, running, done and dead jobs are left as they are."""
    job_ids = [(await add_photo(database, key=f"{n}.jpg"))[1]["preview"] for n in range(3)]
    await take(database, job_ids[1])
    done = await take(database, job_ids[2])
    await in_transaction(database, partial(jobs.finish, claim=done, version=1))
    job_ids.append((await bury(database))[1])
    before = await fetch(database, "select * from job order by id")
    assert await promote(database, job_ids) == []
    assert await fetch(database, "select * from job order by id") == before


@pytest.mark.parametrize(("state", "discarded"), [("due", [0]), ("later", [1]), ("ready", [0, 1]), ("dead", [2])])
async def test_a_discard_takes_no_job_in_another_state(database: Database, state: str, discarded: list[int]) -> None:
    """Waiting jobs are discarded where that was said, dead ones where nothing was said, and never the others; the
    photo of a waiting one gets one verdict, and its job cannot be taken any more."""
    due, ids = await add_photo(database, key="due.jpg", processors=("preview",))
    job_ids = [ids["preview"]]
    photo_ids = [due]
    for made in (later(database, "later.jpg"), bury(database, "dead.jpg")):
        photo_id, job_id = await made
        job_ids.append(job_id)
        photo_ids.append(photo_id)
    _, running = await add_photo(database, key="running.jpg", processors=("preview",))
    await take(database, running["preview"])
    discard = partial(
        deadletters.act,
        job_ids=[*job_ids, running["preview"]],
        action="discard",
        actor="someone",
        note=None,
        attempts=4,
        state=state,
    )
    expected = [job_ids[number] for number in discarded]
    both = await asyncio.gather(in_transaction(database, discard), in_transaction(database, discard))
    assert sorted(both) == [[], expected]
    assert await value(database, "select array_agg(id order by id) from job where state = 'discarded'") == expected
    if 0 in discarded:
        assert (await photo(database, due))["status"] == "partial"
        told = await fetch(database, "select type from event where object_id = $1 and type <> 'photo.stored'", due)
        assert told == [{"type": "photo.partial"}]
        async with database.connection() as conn:
            taken = await jobs.claim(conn, job_ids[0], worker="w", lease_seconds=30, known={"preview": 9})
        assert taken is None


async def test_states_are_counted_and_listed_apart(database: Database) -> None:
    """Due and later jobs, done ones and those that rejected their photo: each name counts what it lists."""
    _, due = await add_photo(database, key="due.jpg", processors=("preview",))
    _, waits = await later(database)
    _, ids = await add_photo(database, key="bad.jpg", processors=("preview",))
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(jobs.reject, claim=claim, code="malformed", detail="It is no photo."))
    async with database.connection() as conn:
        counts = (await workers.count_jobs(conn))["preview"]
        listed = {
            state: [row["id"] for row in await deadletters.list_jobs(conn, JobFilter(state=state, processor="preview"))]
            for state in ("ready", "due", "later", "rejected", "dead")
        }
    assert listed == {
        "ready": [waits, due["preview"]],
        "due": [due["preview"]],
        "later": [waits],
        "rejected": [ids["preview"]],
        "dead": [],
    }
    assert {state: counts.get(state, 0) for state in listed} == {state: len(found) for state, found in listed.items()}
    assert counts["next_at"] == (await job(database, waits))["run_at"]
    assert 0 <= counts["oldest_ready_seconds"] < 60
