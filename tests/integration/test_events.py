"""Events on a real Postgres: what is told when, and that nobody who reads in order passes over anything."""

from __future__ import annotations

import asyncio
import random
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from processors.sequencer import Sequencer
from storage import deadletters, events, failpoints, jobs, objects
from storage.database import Connection, Database
from storage.events import Event
from storage.objects import Plan
from tests.integration.stage import (
    add_photo,
    fall_silent,
    fetch,
    in_transaction,
    make_artifact,
    make_stored,
    reap,
    take,
    until,
    value,
)

ERROR = {"code": "unexpected", "detail": "It failed."}
PLANS = [Plan(processor="preview", version=1, max_attempts=8)]


async def sequence(database: Database) -> int | None:
    return await in_transaction(database, events.sequence)


async def read(database: Database, after_seq: int = 0) -> list[Event]:
    """Everything after a place, once all that has committed has its place."""
    await sequence(database)
    async with database.connection() as conn:
        return await events.read(conn, after_seq=after_seq, limit=10_000)


async def told(database: Database, photo_id: uuid.UUID) -> list[tuple[str, dict[str, Any]]]:
    """(type, data) of the events of a photo, in order."""
    return [(event.type, event.data) for event in await read(database) if event.data["photo_id"] == str(photo_id)]


async def finish(database: Database, job_id: int) -> None:
    claim = await take(database, job_id)
    await in_transaction(database, partial(jobs.finish, claim=claim, version=1, artifacts=[make_artifact()]))


async def test_what_commits_late_is_not_passed_over(database: Database) -> None:
    """A reader who has read what a later transaction wrote still gets what an earlier one commits after it."""
    async with database.connection() as early:
        transaction = early.transaction()
        await transaction.start()
        await objects.record(early, make_stored("early.jpg"), PLANS)
        await add_photo(database, key="late.jpg")
        (seen,) = await read(database)
        assert (seen.key, seen.seq) == ("late.jpg", 1)
        await transaction.commit()
    (then,) = await read(database, after_seq=seen.seq)
    assert (then.key, then.seq) == ("early.jpg", 2)
    ids = await fetch(database, "select key from event order by id")
    assert [row["key"] for row in ids] == ["early.jpg", "late.jpg"], "written in the other order"


async def test_readers_miss_nothing_while_many_write_and_many_give_places(database: Database) -> None:
    """200 transactions that overlap at random, four that give places, and readers that follow: each reads every event
    once, in an unbroken order."""
    writers, left = 200, asyncio.Semaphore(8)
    seen: list[list[Event]] = [[], [], []]

    async def write(number: int) -> None:
        async with left, database.transaction() as conn:
            await objects.record(conn, make_stored(f"{number}.jpg"), PLANS)
            for _ in range(random.randint(0, 3)):
                await conn.execute("select 1")

    async def follow(mine: list[Event]) -> None:
        while len(mine) < writers:
            async with database.connection() as conn:
                mine += await events.read(conn, after_seq=mine[-1].seq if mine else 0, limit=7)

    sequencers = [asyncio.create_task(Sequencer(database).run()) for _ in range(4)]
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(write(number) for number in range(writers)), *(follow(mine) for mine in seen))
    finally:
        for task in sequencers:
            task.cancel()
    assert [[event.seq for event in mine] for mine in seen] == [list(range(1, writers + 1))] * 3
    assert {event.key for event in seen[0]} == {f"{number}.jpg" for number in range(writers)}


async def test_a_sequencer_that_fails_before_its_commit_gives_places_later(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had given is not given; the next turn gives the same places, once."""
    monkeypatch.setattr(failpoints, "_armed", {})
    failpoints.arm({"SAFELIGHT_FAILPOINT": "sequence.before_commit:raise:1", "SAFELIGHT_FAILPOINT_DIR": str(tmp_path)})
    await add_photo(database)
    running = asyncio.create_task(Sequencer(database).run())
    try:
        await until(lambda: value(database, "select seq from event where seq is not null"), seconds=5, what="a place")
    finally:
        running.cancel()
    assert (tmp_path / "sequence.before_commit").read_bytes() == b"."
    assert [event.seq for event in await read(database)] == [1]


async def test_one_gives_places_at_a_time_and_a_second_says_so(database: Database) -> None:
    """Who finds the line taken gives none and learns that it has to look again."""
    await add_photo(database)
    async with database.transaction() as conn:
        assert await events.sequence(conn) == 1
        assert await sequence(database) is None
    assert await sequence(database) == 0


async def test_a_photo_that_becomes_ready_tells_it_once_with_its_previews(database: Database) -> None:
    """Stored, then ready when the last job is done: with where its previews are, and nothing in between."""
    photo_id, ids = await add_photo(database, processors=("preview", "exif"))
    await finish(database, ids["preview"])
    assert [kind for kind, _ in await told(database, photo_id)] == ["photo.stored"]
    await finish(database, ids["exif"])
    (_, stored), (kind, ready) = await told(database, photo_id)
    about = {"photo_id": str(photo_id), "bucket": "photos", "key": "a.jpg", "etag": "e1", "size_bytes": 3}
    assert stored == {**about, "content_type": "image/jpeg", "status": "processing"}
    thumb = {"bucket": "derived", "key": "photos/a.jpg/thumb.webp", "content_type": "image/webp"}
    assert kind == "photo.ready"
    assert ready == {
        **about,
        "content_type": "image/jpeg",
        "status": "ready",
        "previews": {"thumb": {**thumb, "width_px": 320, "height_px": 240}},
    }


async def test_a_job_that_dies_and_is_replayed_tells_each_turn(database: Database) -> None:
    """job.dead with its error, photo.partial; after the replay photo.ready."""
    photo_id, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(jobs.bury, claim=claim, outcome="dead", error=ERROR))

    async def replay(conn: Connection) -> object:
        return await deadletters.act(conn, [ids["preview"]], "replay", actor="test", note=None, attempts=1)

    await in_transaction(database, replay)
    await finish(database, ids["preview"])
    found = await told(database, photo_id)
    assert [kind for kind, _ in found] == ["photo.stored", "job.dead", "photo.partial", "photo.ready"]
    assert found[1][1]["job"] == {"id": ids["preview"], "processor": "preview", "error_code": "unexpected"}
    assert found[2][1]["previews"] == {}


async def test_workers_that_fall_silent_too_often_tell_it(database: Database) -> None:
    """A job that dies of lost leases tells job.dead and photo.partial, once."""
    photo_id, ids = await add_photo(database)
    await take(database, ids["preview"])
    await fall_silent(database, ids["preview"])
    await reap(database, max_expiries=1)
    found = await told(database, photo_id)
    assert [kind for kind, _ in found] == ["photo.stored", "job.dead", "photo.partial"]
    assert found[1][1]["job"]["error_code"] == "lease_expired"


async def test_a_rejected_photo_tells_why(database: Database) -> None:
    """photo.rejected comes at once, with code and reason, and no later verdict follows it."""
    photo_id, ids = await add_photo(database, processors=("preview", "exif"))
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(jobs.reject, claim=claim, code="malformed", detail="It is broken."))
    await finish(database, ids["exif"])
    found = await told(database, photo_id)
    assert [kind for kind, _ in found] == ["photo.stored", "photo.rejected"]
    assert found[1][1]["rejection"] == {"code": "malformed", "detail": "It is broken.", "processor": "preview"}
    assert "previews" not in found[1][1]


async def test_what_replaces_and_what_deletes_is_told(database: Database) -> None:
    """A photo stored over another names it; the one that was replaced gets no verdict; a deletion is told once."""
    old_id, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    new_id, _ = await add_photo(database, etag="e2")
    await in_transaction(database, partial(jobs.finish, claim=claim, version=1))
    for _ in range(2):
        await in_transaction(database, partial(objects.mark_deleted, bucket="photos", key="a.jpg"))
    assert [kind for kind, _ in await told(database, old_id)] == ["photo.stored"]
    found = await told(database, new_id)
    assert [kind for kind, _ in found] == ["photo.stored", "photo.deleted"]
    assert found[0][1]["replaces"] == str(old_id)


async def test_a_change_that_is_rolled_back_tells_nothing(database: Database) -> None:
    """An event exists only with the change that it tells of, and recording the same photo again tells nothing."""

    async def record_and_fail(conn: Connection) -> None:
        await objects.record(conn, make_stored("gone.jpg"), PLANS)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await in_transaction(database, record_and_fail)
    await add_photo(database)
    await add_photo(database)
    assert [event.key for event in await read(database)] == ["a.jpg"]


async def test_old_events_are_forgotten_from_the_front_only(database: Database) -> None:
    """What is older than the limit goes, up to the first that is not; the line remembers how far."""
    for number in range(5):
        await add_photo(database, key=f"{number}.jpg")
    await sequence(database)
    async with database.connection() as conn:
        await conn.execute("update event set at = now() - interval '2 h' where seq in (1, 2, 4)")
    assert await in_transaction(database, partial(events.prune, older_than_hours=1)) == 2
    assert await in_transaction(database, partial(events.prune, older_than_hours=1)) == 0
    assert [event.seq for event in await read(database)] == [3, 4, 5]
    async with database.connection() as conn:
        assert await events.find_line(conn) == events.Line(last_seq=5, pruned_seq=2)


async def test_all_events_may_be_forgotten_and_places_go_on(database: Database) -> None:
    """With none left, the next event gets the next place, not one that was given before."""
    await add_photo(database)
    await sequence(database)
    assert await in_transaction(database, partial(events.prune, older_than_hours=0)) == 1
    await add_photo(database, key="b.jpg")
    assert [event.seq for event in await read(database)] == [2]


async def test_a_sequencer_that_is_never_woken_gives_places(database: Database) -> None:
    """A notification that was lost costs a second."""
    await add_photo(database)
    running = asyncio.create_task(Sequencer(database).run())
    try:
        await until(lambda: value(database, "select seq from event where seq is not null"), seconds=5, what="a place")
    finally:
        running.cancel()
