"""The job state machine on a real Postgres: claiming, fencing, leases, and what each end of a run costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
import pytest

from storage import jobs
from storage.database import Connection, Database
from storage.jobs import Claim, Fenced
from tests.integration.stage import (
    KNOWN,
    add_photo,
    attempts,
    fall_silent,
    fetch,
    in_transaction,
    job,
    make_artifact,
    photo,
    reap,
    take,
    value,
)

ERROR = {"code": "unexpected", "detail": "It failed."}
ENDINGS: dict[str, Callable[[Connection, Claim], Awaitable[object]]] = {
    "finish": lambda conn, claim: jobs.finish(
        conn, claim, version=1, artifacts=[make_artifact()], derived={"make": "Lumen"}
    ),
    "reject": lambda conn, claim: jobs.reject(conn, claim, code="malformed", detail="It is broken."),
    "postpone": lambda conn, claim: jobs.postpone(conn, claim, after_seconds=0, outcome="retry", error=ERROR),
    "bury": lambda conn, claim: jobs.bury(conn, claim, outcome="dead", error=ERROR),
}


async def test_one_of_fifty_claims_wins(database: Database) -> None:
    """However many workers claim a job at once, one gets it."""
    _, ids = await add_photo(database)

    async def claim(worker: str) -> Claim | None:
        async with database.connection() as conn:
            return await jobs.claim(conn, ids["preview"], worker=worker, lease_seconds=30, known=KNOWN)

    won = [found for found in await asyncio.gather(*(claim(f"w{n}") for n in range(50))) if found]
    assert len(won) == 1
    assert (won[0].token, won[0].attempt, won[0].current) == (1, 1, True)
    assert await attempts(database, ids["preview"]) == [None]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_late_ending_is_fenced_and_writes_nothing(database: Database, ending: str) -> None:
    """Who lost the lease cannot end the job, whichever way, nor leave artifacts or facts."""
    photo_id, ids = await add_photo(database)
    late = await take(database, ids["preview"])
    await fall_silent(database, ids["preview"])
    assert [found["state"] for found in await reap(database)] == ["ready"]
    await take(database, ids["preview"], worker="w2")
    before = await job(database, ids["preview"])
    with pytest.raises(Fenced):
        await in_transaction(database, lambda conn: ENDINGS[ending](conn, late))
    assert await job(database, ids["preview"]) == before
    assert before["worker"] == "w2"
    assert await attempts(database, ids["preview"]) == ["expired", None]
    assert await value(database, "select (select count(*) from artifact) + (select count(*) from facts)") == 0
    assert (await photo(database, photo_id))["status"] == "processing"


@pytest.mark.parametrize("ending", ENDINGS)
async def test_an_ending_works_once(database: Database, ending: str) -> None:
    """The same ending sent twice is refused the second time, and the job's rows stay as they were."""
    _, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    await in_transaction(database, lambda conn: ENDINGS[ending](conn, claim))
    after = await job(database, ids["preview"])
    with pytest.raises(Fenced):
        await in_transaction(database, lambda conn: ENDINGS[ending](conn, claim))
    assert await job(database, ids["preview"]) == after


async def test_a_beat_renews_what_is_held_and_names_what_is_lost(database: Database) -> None:
    """A heartbeat moves the lease of our jobs and leaves out those that others took."""
    _, ids = await add_photo(database, processors=("preview", "exif"))
    kept, lost = [await take(database, ids[name], lease_seconds=5) for name in ("preview", "exif")]
    await fall_silent(database, lost.job_id)
    await reap(database)
    await take(database, lost.job_id, worker="w2", lease_seconds=5)
    before = {number: (await job(database, number))["lease_until"] for number in (kept.job_id, lost.job_id)}
    async with database.connection() as conn:
        assert await jobs.beat(conn, [kept, lost], lease_seconds=60) == {kept.job_id}
    assert ((await job(database, kept.job_id))["lease_until"] - before[kept.job_id]).total_seconds() > 50
    assert (await job(database, lost.job_id))["lease_until"] == before[lost.job_id]


@pytest.mark.parametrize(
    ("outcome", "attempt", "crashes"), [("retry", 1, 0), ("crashed", 0, 1), ("snoozed", 0, 0), ("released", 0, 0)]
)
async def test_what_a_postponement_costs(database: Database, outcome: str, attempt: int, crashes: int) -> None:
    """A retry costs an attempt, a crash a crash, snoozing and releasing nothing; all can be claimed again when due."""
    _, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    await in_transaction(
        database, lambda conn: jobs.postpone(conn, claim, after_seconds=60, outcome=outcome, error=ERROR)
    )
    row = await job(database, ids["preview"])
    assert (row["state"], row["attempt"], row["crashes"], row["expiries"]) == ("ready", attempt, crashes, 0)
    assert (row["worker"], row["lease_until"], row["dispatched_at"]) == (None, None, None)
    assert row["error"] == ERROR
    assert 50 < await value(database, "select extract(epoch from run_at - now())::float8 from job") <= 60
    assert await attempts(database, ids["preview"]) == [outcome]
    async with database.connection() as conn:
        assert await jobs.claim(conn, claim.job_id, worker="w", lease_seconds=1, known=KNOWN) is None
        assert await jobs.list_due(conn, known=KNOWN, limit=10) == []
        await conn.execute("update job set run_at = now()")
        assert await jobs.list_due(conn, known=KNOWN, limit=10) == [claim.job_id]
    again = await take(database, ids["preview"])
    assert (again.attempt, again.crashes, again.token) == (attempt + 1, crashes, 2)


@pytest.mark.parametrize(("outcome", "crashes"), [("dead", 0), ("crashed", 1)])
async def test_a_buried_job_is_a_dead_letter(database: Database, outcome: str, crashes: int) -> None:
    """A buried job keeps its error and leaves its photo partial."""
    photo_id, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    await in_transaction(database, lambda conn: jobs.bury(conn, claim, outcome=outcome, error=ERROR))
    row = await job(database, ids["preview"])
    assert (row["state"], row["crashes"], row["error_code"]) == ("dead", crashes, "unexpected")
    assert row["finished_at"] is not None
    assert (await photo(database, photo_id))["status"] == "partial"
    assert await attempts(database, ids["preview"]) == [outcome]


async def test_a_rejection_is_final_at_once(database: Database) -> None:
    """One processor's rejection rejects the photo, though another job of it is still to run."""
    photo_id, ids = await add_photo(database, processors=("preview", "exif"))
    claim = await take(database, ids["preview"])
    await in_transaction(database, lambda conn: jobs.reject(conn, claim, code="malformed", detail="It is broken."))
    found = await photo(database, photo_id)
    assert found["status"] == "rejected"
    assert found["rejection"] == {"code": "malformed", "detail": "It is broken.", "processor": "preview"}
    assert (await job(database, ids["exif"]))["state"] == "ready"
    other = await take(database, ids["exif"])
    await in_transaction(database, lambda conn: jobs.finish(conn, other, version=1))
    found = await photo(database, photo_id)
    assert (found["status"], found["settled_at"] is not None) == ("rejected", True)


async def test_lost_leases_are_counted_apart_and_end_in_death(database: Database) -> None:
    """A worker's silence costs an expiry and no attempt; after max_expiries of them the job is dead."""
    photo_id, ids = await add_photo(database, max_attempts=2)
    for expiries in (1, 2, 3):
        claim = await take(database, ids["preview"])
        assert claim.attempt == 1
        assert await reap(database, max_expiries=3) == []  # a lease that lasts is left alone
        await fall_silent(database, ids["preview"])
        (lost,) = await reap(database, max_expiries=3)
        row = await job(database, ids["preview"])
        assert (row["attempt"], row["crashes"], row["expiries"]) == (0, 0, expiries)
        assert row["state"] == lost["state"] == ("dead" if expiries == 3 else "ready")
        assert row["error_code"] == "lease_expired"
    assert await attempts(database, ids["preview"]) == ["expired"] * 3
    assert (await photo(database, photo_id))["status"] == "partial"


async def test_twenty_reapers_count_a_loss_once(database: Database) -> None:
    """Reapers in every process at once take a lost job back exactly once."""
    numbers = [(await add_photo(database, key=f"{n}.jpg"))[1]["preview"] for n in range(30)]
    for number in numbers:
        await take(database, number)
    await fall_silent(database, *numbers)
    taken = [row["id"] for found in await asyncio.gather(*(reap(database) for _ in range(20))) for row in found]
    assert sorted(taken) == sorted(numbers)
    assert await value(database, "select array_agg(distinct expiries) from job") == [1]


@pytest.mark.parametrize("hours", [-2, 2])
async def test_only_the_databases_clock_counts(database: Database, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """A process whose clock is hours off neither claims early, nor reaps leases that last, nor gives wrong leases."""
    _, ids = await add_photo(database, processors=("preview", "exif"))
    running = await take(database, ids["exif"])
    async with database.connection() as conn:
        await conn.execute("update job set run_at = now() + interval '1 h' where id = $1", ids["preview"])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    assert await reap(database) == []
    async with database.connection() as conn:
        assert await jobs.claim(conn, ids["preview"], worker="w", lease_seconds=1, known=KNOWN) is None
        assert await jobs.pick_due(conn, redispatch_seconds=10) == []
        assert await jobs.beat(conn, [running], lease_seconds=30) == {running.job_id}
    left = await value(
        database, "select extract(epoch from lease_until - now())::float8 from job where id = $1", running.job_id
    )
    assert 25 < left <= 30


@pytest.mark.parametrize(
    ("known", "taken"),
    [({}, False), ({"exif": 9}, False), ({"preview": 1}, False), ({"preview": 2}, True), ({"preview": 3}, True)],
)
async def test_a_worker_leaves_what_it_does_not_know(database: Database, known: dict[str, int], taken: bool) -> None:
    """An unknown processor, or a newer version of it than ours, waits for a newer worker; an older one is taken."""
    _, ids = await add_photo(database, version=2)
    async with database.connection() as conn:
        assert (await jobs.list_due(conn, known=known, limit=5) == [ids["preview"]]) is taken
        claim = await jobs.claim(conn, ids["preview"], worker="w", lease_seconds=1, known=known)
    assert (claim is not None) is taken
    assert (await job(database, ids["preview"]))["state"] == ("running" if taken else "ready")


async def test_eight_dispatchers_hand_out_a_thousand_jobs_once(database: Database) -> None:
    """SKIP LOCKED: no job is sent twice, none is forgotten, and none again before redispatch_seconds."""
    async with database.connection() as conn:
        await conn.execute(
            """
            with made as (
              insert into object (id, bucket, key, etag, size_bytes, content_type)
              select gen_random_uuid(), 'photos', n::text, 'e', 1, 'image/jpeg' from generate_series(1, 1000) as n
              returning id
            ) insert into job (object_id, processor, version, max_attempts) select id, 'preview', 1, 8 from made
            """
        )
    sent: list[int] = []

    async def dispatch() -> None:
        while True:
            async with database.transaction() as conn:
                found = await jobs.pick_due(conn, redispatch_seconds=10, limit=37)
                await jobs.mark_dispatched(conn, found)
            sent.extend(found)
            if not found:
                return

    await asyncio.gather(*(dispatch() for _ in range(8)))
    assert len(sent) == 1000
    assert len(set(sent)) == 1000
    async with database.connection() as conn:
        await conn.execute("update job set dispatched_at = now() - interval '11 s' where id = any($1)", sent[:5])
        await jobs.unmark_dispatched(conn, sent[5:8])
    async with database.transaction() as conn:
        assert sorted(await jobs.pick_due(conn, redispatch_seconds=10)) == sorted(sent[:8])


_BAD_STATES = {
    "running without a lease": "update job set state = 'running'",
    "a lease without running": "update job set lease_until = now()",
    "done without an outcome": "update job set state = 'done', finished_at = now()",
    "an outcome without done": "update job set outcome = 'ok'",
    "dead without an end": "update job set state = 'dead'",
    "ready with an end": "update job set finished_at = now()",
    "an unknown state": "update job set state = 'lost'",
    "an unknown outcome": "update job set state = 'done', outcome = 'fine', finished_at = now()",
    "attempts below zero": "update job set attempt = -1",
    "rejected without a reason": "update object set status = 'rejected'",
    "a reason without rejected": "update object set rejection = '{}'",
    "an unknown status": "update object set status = 'odd'",
    "a short hash": "update object set sha256 = 'ab'",
    "a key of 1,025 bytes": "update object set key = repeat('k', 1025)",
    "an empty etag": "update object set etag = ''",
    "an attempt that ended somehow": "update job_attempt set ended_at = now()",
    "an unknown end of an attempt": "update job_attempt set ended_at = now(), outcome = 'odd'",
    "an artifact without size": """insert into artifact select id, 't', 'v', 'b', 'k', 'e', sha256, 1, 'c', 0, 1
                                   from object""",
    "a key without scopes": "insert into api_key values ('ABCDEFGHIJKLMNOP', sha256('s'), 'n', '{}')",
    "a key with odd scopes": "insert into api_key values ('ABCDEFGHIJKLMNOP', sha256('s'), 'n', '{root}')",
    "two current photos of a key": """insert into object (id, bucket, key, etag, size_bytes, content_type)
                                      select gen_random_uuid(), bucket, key, 'e9', 1, 'c' from object""",
    "two jobs of a processor": """insert into job (object_id, processor, version, max_attempts)
                                  select object_id, processor, 1, 1 from job""",
}


@pytest.mark.parametrize("statement", _BAD_STATES.values(), ids=_BAD_STATES)
async def test_the_schema_refuses_bad_states(database: Database, statement: str) -> None:
    """No statement, however wrong, can bring the rows into a state that has no meaning."""
    _, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(jobs.postpone, claim=claim, after_seconds=0, outcome="released"))
    async with database.connection() as conn:
        await conn.execute("update job_attempt set ended_at = null, outcome = null")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await conn.execute(statement)
    assert len(await fetch(database, "select 1 from job where state = 'ready'")) == 1
