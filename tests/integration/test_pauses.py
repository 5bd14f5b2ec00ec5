"""Paused processors: their jobs wait, whatever carries them; the others' run; and it is written down who did it."""

from __future__ import annotations

import asyncio
from functools import partial

from storage import actions, jobs, pauses
from storage.database import Database
from tests.integration.stage import KNOWN, add_photo, in_transaction, job, photo, take


async def pause(database: Database, processor: str = "preview", actor: str = "someone") -> bool:
    return await in_transaction(database, partial(pauses.pause, processor=processor, actor=actor, note="why"))


async def resume(database: Database, processor: str = "preview", actor: str = "someone") -> bool:
    return await in_transaction(database, partial(pauses.resume, processor=processor, actor=actor, note=None))


async def offered(database: Database) -> tuple[list[int], list[int]]:
    """Ids that a dispatcher would send, and that a worker without Redis would find."""
    async with database.transaction() as conn:
        return (
            await jobs.pick_due(conn, redispatch_seconds=10),
            await jobs.list_due(conn, known=KNOWN, limit=10),
        )


async def test_a_paused_processors_jobs_wait(database: Database) -> None:
    """They are neither picked, nor found, nor claimed by an id that is in Redis already; those of others are. Once
    resumed they are again."""
    _, ids = await add_photo(database, processors=("preview", "exif"))
    both = [ids["preview"], ids["exif"]]
    assert await offered(database) == (both, both)
    assert await pause(database)
    assert await offered(database) == ([ids["exif"]], [ids["exif"]])
    async with database.connection() as conn:
        assert await jobs.claim(conn, ids["preview"], worker="w", lease_seconds=9, known=KNOWN) is None
    assert (await job(database, ids["preview"]))["attempt"] == 0
    await take(database, ids["exif"])
    assert await resume(database)
    assert await offered(database) == ([ids["preview"]], [ids["preview"]])
    await take(database, ids["preview"])


async def test_a_running_job_of_a_paused_processor_finishes(database: Database) -> None:
    """A pause takes nothing from a worker: heartbeats renew, the run ends well, and the photo is ready."""
    photo_id, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    await pause(database)
    async with database.connection() as conn:
        assert await jobs.beat(conn, [claim], lease_seconds=30) == {claim.job_id}
    await in_transaction(database, partial(jobs.finish, claim=claim, version=1))
    assert (await photo(database, photo_id))["status"] == "ready"


async def test_jobs_are_handed_out_by_priority_and_age_across_processors(database: Database) -> None:
    """Stepping from processor to processor keeps the one order: priority, then age, however many may be taken."""
    ids = []
    for number, (name, priority, age) in enumerate(
        [("exif", 0, 5), ("preview", 0, 9), ("zebra", 1, 1), ("preview", 1, 3), ("exif", 0, 7)]
    ):
        _, made = await add_photo(database, key=f"{number}.jpg", processors=(name,))
        ids.append(made[name])
        async with database.connection() as conn:
            await conn.execute(
                "update job set priority = $2, run_at = now() - $3 * interval '1 s' where id = $1",
                made[name],
                priority,
                age,
            )
    expected = [ids[number] for number in (3, 2, 1, 4, 0)]
    async with database.transaction() as conn:
        assert await jobs.pick_due(conn, redispatch_seconds=10, limit=3) == expected[:3]
        assert await jobs.pick_due(conn, redispatch_seconds=10) == expected
        known = {"preview": 1, "exif": 1, "unused": 4}
        assert await jobs.list_due(conn, known=known, limit=3) == [ids[3], ids[1], ids[4]]


async def test_of_twenty_pauses_at_once_one_is_written_down(database: Database) -> None:
    """The first one holds; the others change nothing, and neither does a second resume."""
    done = await asyncio.gather(*(pause(database, actor=f"actor {number}") for number in range(20)))
    assert sum(done) == 1
    async with database.connection() as conn:
        paused = (await pauses.list_paused(conn))["preview"]
    assert (paused["by"], paused["note"]) == (f"actor {done.index(True)}", "why")
    assert [await resume(database, actor="late") for _ in range(2)] == [True, False]
    async with database.connection() as conn:
        rows = await actions.list_newest(conn, before_id=None, limit=10)
    assert [(row["action"], row["processor"], row["actor"]) for row in rows] == [
        ("resume", "preview", "late"),
        ("pause", "preview", f"actor {done.index(True)}"),
    ]


async def test_a_resume_wakes_whoever_dispatches(database: Database) -> None:
    """It notifies, so that the first job does not wait for the next look."""
    woken = asyncio.Event()
    await pause(database)
    async with database.connection() as conn:

        def hear(*_: object) -> None:
            woken.set()

        await conn.add_listener("safelight_job", hear)
        await resume(database)
        async with asyncio.timeout(5):
            await woken.wait()
        await conn.remove_listener("safelight_job", hear)


async def test_paused_jobs_cost_a_dispatcher_nothing(database: Database) -> None:
    """Of 5,000 jobs of a paused processor, picking and finding read a handful; of an open one's what they take."""
    async with database.connection() as conn:
        await conn.execute(
            """
            with made as (
              insert into object (id, bucket, key, etag, size_bytes, content_type)
              select gen_random_uuid(), 'photos', n::text, 'e', 1, 'image/jpeg' from generate_series(1, 5000) as n
              returning id
            ) insert into job (object_id, processor, version, max_attempts) select id, 'preview', 1, 8 from made
            """
        )
        await conn.execute("vacuum analyze job")

    counted = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'job'"

    async def read_rows() -> int:
        async with database.transaction() as conn:
            before = await conn.fetchval(counted)
            await jobs.pick_due(conn, redispatch_seconds=10, limit=50)
            await jobs.list_due(conn, known=KNOWN, limit=50)
            return int(await conn.fetchval(counted) - before)

    assert 100 <= await read_rows() < 300
    await pause(database)
    assert await read_rows() < 10
