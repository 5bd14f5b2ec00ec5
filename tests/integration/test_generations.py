"""What becomes of a photo when another one is stored under its key, or when it is deleted, while its jobs run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from storage import garbage, jobs, objects
from storage.database import Connection, Database
from storage.garbage import Garbage
from storage.objects import Plan, Recorded
from tests.integration.stage import (
    add_photo,
    attempts,
    fall_silent,
    fetch,
    in_transaction,
    job,
    make_artifact,
    make_stored,
    photo,
    reap,
    take,
    value,
)

PLANS = [Plan(processor="preview", version=1, max_attempts=8)]
ERROR = {"code": "unexpected", "detail": "It failed."}


async def record(database: Database, etag: str, **more: object) -> Recorded:
    async with database.transaction() as conn:
        return await objects.record(conn, make_stored(etag=etag, **more), PLANS)


async def delete(database: Database, key: str = "a.jpg") -> uuid.UUID | None:
    return await in_transaction(database, lambda conn: objects.mark_deleted(conn, "photos", key))


async def test_recording_the_same_generation_again_changes_nothing(database: Database) -> None:
    """The second record answers with the first one's id, makes no job, and only fills in what was not known."""
    first = await record(database, "e1", sha256=None)
    second = await record(database, "e1", filename="sea.jpg", sha256=bytes(32))
    assert (first.created, second.created, second.id) == (True, False, first.id)
    row = await photo(database, first.id)
    assert (row["sha256"], row["filename"], row["superseded_at"]) == (bytes(32), "sea.jpg", None)
    assert await value(database, "select count(*) from job") == 1


async def test_another_version_of_equal_bytes_is_another_generation(database: Database) -> None:
    """The storage's version counts too: equal etags of two versions are two generations."""
    first = await record(database, "e1", version_id="v1")
    second = await record(database, "e1", version_id="v2")
    assert second.created
    assert (await photo(database, first.id))["superseded_at"] is not None


@pytest.mark.parametrize("distinct", [1, 20])
async def test_twenty_concurrent_records_leave_one_current(database: Database, distinct: int) -> None:
    """Of 20 records of one key at once exactly one generation is current, and each generation has its one job."""
    found = await asyncio.gather(*(record(database, f"e{n % distinct}") for n in range(20)))
    assert sum(item.created for item in found) == distinct
    assert len({item.id for item in found}) == distinct
    current = await fetch(database, "select id from object where superseded_at is null and deleted_at is null")
    assert len(current) == 1
    assert await value(database, "select count(*) from job") == distinct


async def test_bytes_that_come_back_are_a_new_generation(database: Database) -> None:
    """A, B, A: the third has jobs of its own, and the first one stays superseded."""
    a, b, again = [await record(database, etag) for etag in ("ea", "eb", "ea")]
    assert len({a.id, b.id, again.id}) == 3
    assert [(await photo(database, item.id))["superseded_at"] is None for item in (a, b, again)] == [False, False, True]
    assert [row["object_id"] for row in await fetch(database, "select object_id from job order by id")] == [
        a.id,
        b.id,
        again.id,
    ]


@pytest.mark.parametrize("state_of_current", ["done", "running", "dead"])
async def test_a_late_finisher_of_an_old_generation_heals_the_current_one(
    database: Database, state_of_current: str
) -> None:
    """A late writer may have overwritten the current preview, so the current job runs once more, whatever its state;
    the old generation leaves no artifact rows."""
    old, old_jobs = await add_photo(database, etag="ea")
    late = await take(database, old_jobs["preview"])
    new, new_jobs = await add_photo(database, etag="eb")
    claim = await take(database, new_jobs["preview"], worker="w2")
    if state_of_current == "done":
        await in_transaction(database, partial(jobs.finish, claim=claim, version=1, artifacts=[make_artifact()]))
        assert (await photo(database, new))["status"] == "ready"
    if state_of_current == "dead":
        await in_transaction(database, partial(jobs.bury, claim=claim, outcome="dead", error=ERROR))
    ended = await in_transaction(database, partial(jobs.finish, claim=late, version=1, artifacts=[make_artifact()]))
    assert ended == "superseded"
    assert (await job(database, old_jobs["preview"]))["outcome"] == "superseded"
    row = await job(database, new_jobs["preview"])
    assert (row["state"], row["attempt"], row["outcome"]) == ("ready", 0, None)
    assert row["token"] > claim.token
    assert (await photo(database, new))["status"] == "processing"
    assert (await photo(database, old))["superseded_at"] is not None
    assert await value(database, "select count(*) from artifact where object_id = $1", old) == 0
    if state_of_current == "running":
        with pytest.raises(jobs.Fenced):
            await in_transaction(database, partial(jobs.finish, claim=claim, version=1))
    again = await take(database, new_jobs["preview"], worker="w3")
    await in_transaction(database, partial(jobs.finish, claim=again, version=1, artifacts=[make_artifact()]))
    assert (await photo(database, new))["status"] == "ready"


async def test_a_fenced_writer_of_an_old_generation_heals_too(database: Database) -> None:
    """Even a worker that lost its lease and its generation makes the current job run again: its bytes may lie in S3."""
    _, old_jobs = await add_photo(database, etag="ea")
    late = await take(database, old_jobs["preview"])
    await fall_silent(database, late.job_id)
    await reap(database)
    _, new_jobs = await add_photo(database, etag="eb")
    claim = await take(database, new_jobs["preview"])
    await in_transaction(database, partial(jobs.finish, claim=claim, version=1, artifacts=[make_artifact()]))
    await in_transaction(database, partial(jobs.finish, claim=late, version=1, artifacts=[make_artifact()]))
    assert (await job(database, new_jobs["preview"]))["state"] == "ready"


async def test_an_old_job_that_never_ran_disturbs_nobody(database: Database) -> None:
    """A superseded job that wrote nothing ends quietly, and the current photo stays ready."""
    _, old_jobs = await add_photo(database, etag="ea")
    new, new_jobs = await add_photo(database, etag="eb")
    claim = await take(database, new_jobs["preview"])
    await in_transaction(database, partial(jobs.finish, claim=claim, version=1, artifacts=[make_artifact()]))
    late = await take(database, old_jobs["preview"])
    assert not late.current
    await in_transaction(database, partial(jobs.supersede, claim=late))
    assert await attempts(database, late.job_id) == ["superseded"]
    assert (await job(database, new_jobs["preview"]))["state"] == "done"
    assert (await photo(database, new))["status"] == "ready"


async def test_a_rejection_or_burial_of_an_old_generation_says_nothing_of_the_current(database: Database) -> None:
    """Verdicts on superseded bytes end as superseded, never as the photo's verdict."""
    for etag, ending in (
        ("ea", partial(jobs.reject, code="malformed", detail="It is broken.")),
        ("eb", partial(jobs.bury, outcome="dead", error=ERROR)),
    ):
        old, ids = await add_photo(database, etag=etag)
        claim = await take(database, ids["preview"])
        new, _ = await add_photo(database, etag=etag + "x")
        await in_transaction(database, partial(ending, claim=claim))
        row = await job(database, ids["preview"])
        assert (row["state"], row["outcome"]) == ("done", "superseded")
        assert [(await photo(database, item))["status"] for item in (old, new)] == ["ready", "processing"]


@pytest.mark.parametrize(
    "verdict",
    [partial(jobs.reject, code="malformed", detail="x"), partial(jobs.bury, outcome="dead", error=ERROR)],
    ids=["rejected", "dead"],
)
async def test_a_verdict_after_the_deletion_leaves_no_preview_of_an_earlier_run(
    database: Database, verdict: Callable[..., Awaitable[None]]
) -> None:
    """A second run finds the original gone: the job is due at once, so that what the first one put is named."""
    _, ids = await add_photo(database, processors=("preview",))
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(jobs.postpone, claim=claim, after_seconds=0, outcome="crashed"))
    claim = await take(database, ids["preview"])
    await delete(database)
    await in_transaction(database, partial(verdict, claim=claim))
    assert (await job(database, ids["preview"]))["state"] == "ready"
    claim = await take(database, ids["preview"])
    assert (claim.current, claim.runs) == (False, 3)


@pytest.mark.parametrize(
    "ending",
    [
        partial(jobs.postpone, after_seconds=3600, outcome="retry", error=ERROR),
        partial(jobs.bury, outcome="dead", error=ERROR),
    ],
    ids=["waits", "dead"],
)
async def test_a_job_that_ran_in_vain_names_what_it_put_once_its_photo_is_deleted(
    database: Database, ending: Callable[..., Awaitable[None]]
) -> None:
    """Nobody has recorded its previews: it is due at once, finds its photo gone, and they become garbage."""
    _, ids = await add_photo(database, processors=("preview",))
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(ending, claim=claim))
    await delete(database)
    row = await job(database, ids["preview"])
    assert (row["state"], row["attempt"], row["finished_at"]) == ("ready", 0, None)
    claim = await take(database, ids["preview"])
    assert (claim.current, claim.runs) == (False, 2)
    left = Garbage(bucket="derived", key="photos/a.jpg/thumb.webp")
    await in_transaction(database, partial(jobs.supersede, claim=claim, leftovers=[left]))
    row = await job(database, ids["preview"])
    assert (row["state"], row["outcome"]) == ("done", "superseded")
    assert await in_transaction(database, garbage.pick) == [left]


async def test_a_deleted_photos_artifacts_become_garbage(database: Database) -> None:
    """Deleting ends the jobs that wait and names every artifact, of older generations too, to be deleted."""
    for etag in ("ea", "eb"):
        _, ids = await add_photo(database, etag=etag, processors=("preview", "exif"))
        claim = await take(database, ids["preview"])
        artifact = make_artifact(f"photos/a.jpg/{etag}.webp")
        await in_transaction(database, partial(jobs.finish, claim=claim, version=1, artifacts=[artifact]))
    deleted = await delete(database)
    assert deleted is not None
    assert await delete(database) is None
    assert (await job(database, ids["exif"]))["state"] == "discarded"

    async def sweep(conn: Connection) -> list[Garbage]:
        found = await garbage.pick(conn)
        await garbage.forget(conn, found)
        return found

    found = await in_transaction(database, sweep)
    assert {item.key for item in found} == {"photos/a.jpg/ea.webp", "photos/a.jpg/eb.webp"}
    assert await in_transaction(database, sweep) == []


async def test_only_the_generation_that_is_meant_is_deleted(database: Database) -> None:
    """A deletion that names a generation does nothing once another one is current: no row, job or garbage changes."""
    old, new = await record(database, "ea"), await record(database, "eb")
    meant = partial(objects.mark_deleted, bucket="photos", key="a.jpg")
    before = await fetch(database, "select object::text, job::text from object join job on object_id = object.id")
    assert await in_transaction(database, partial(meant, only_id=old.id)) is None
    assert await in_transaction(database, partial(meant, only_id=uuid.uuid4())) is None
    after = await fetch(database, "select object::text, job::text from object join job on object_id = object.id")
    assert sorted(map(str, after)) == sorted(map(str, before))
    assert await value(database, "select count(*) from garbage") == 0
    assert await in_transaction(database, partial(meant, only_id=new.id)) == new.id
    assert (await photo(database, new.id))["deleted_at"] is not None
    assert await in_transaction(database, partial(meant, only_id=new.id)) is None


async def test_current_generations_are_found_by_key(database: Database) -> None:
    """Of many keys those with a current photo are found, with its id: no old generation, no deleted one, no other
    bucket's."""
    await record(database, "ea")
    current = await record(database, "eb")
    other = await record(database, "ec", key="b.jpg")
    await record(database, "ed", key="gone.jpg")
    await record(database, "ee", key="elsewhere.jpg", bucket="others")
    await delete(database, "gone.jpg")
    keys = ["a.jpg", "b.jpg", "gone.jpg", "elsewhere.jpg", "never.jpg"]
    found = await in_transaction(database, lambda conn: objects.find_many(conn, "photos", keys))
    assert found == {"a.jpg": current.id, "b.jpg": other.id}
    assert await in_transaction(database, lambda conn: objects.find_many(conn, "photos", [])) == {}


async def test_a_late_finisher_of_a_deleted_photo_leaves_only_garbage(database: Database) -> None:
    """What a worker wrote for a photo that was deleted meanwhile is deleted too."""
    _, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    await delete(database)
    await in_transaction(database, partial(jobs.finish, claim=claim, version=1, artifacts=[make_artifact()]))
    assert (await job(database, ids["preview"]))["outcome"] == "superseded"
    assert await value(database, "select count(*) from artifact") == 0
    assert await in_transaction(database, garbage.pick) == [Garbage(bucket="derived", key="photos/a.jpg/thumb.webp")]


async def test_a_photo_that_came_back_keeps_its_previews(database: Database) -> None:
    """Garbage of a key under which a photo lies again is forgotten, not deleted."""
    _, ids = await add_photo(database)
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(jobs.finish, claim=claim, version=1, artifacts=[make_artifact()]))
    await delete(database)
    await add_photo(database, etag="e2")
    assert await in_transaction(database, garbage.pick) == []
    assert await value(database, "select count(*) from garbage") == 0


@pytest.mark.parametrize(
    ("endings", "status"),
    [
        (("ok", "ok"), "ready"),
        (("ok", "ready"), "processing"),
        (("dead", "ready"), "processing"),
        (("ok", "dead"), "partial"),
        (("ok", "discarded"), "partial"),
        (("dead", "dead"), "partial"),
        (("rejected", "ready"), "rejected"),
        (("rejected", "dead"), "rejected"),
        (("ok", "rejected"), "rejected"),
    ],
)
async def test_the_status_follows_from_the_jobs(database: Database, endings: tuple[str, str], status: str) -> None:
    """A photo's status is derived from its jobs; it has settled when none is left to do."""
    photo_id, ids = await add_photo(database, processors=("preview", "exif"))
    for job_id, ending in zip(ids.values(), endings, strict=True):
        state = {"ok": "done", "rejected": "done"}.get(ending, ending)
        async with database.connection() as conn:
            await conn.execute(
                """
                update job set state = $2, outcome = $3, finished_at = to_timestamp($4::float8),
                               error_code = 'malformed', error = '{"code": "malformed", "detail": "It is broken."}'
                where id = $1
                """,
                job_id,
                state,
                ending if state == "done" else None,
                None if state == "ready" else 1.0,
            )
    await in_transaction(database, partial(objects.settle, object_id=photo_id))
    row = await photo(database, photo_id)
    assert row["status"] == status
    assert (row["settled_at"] is None) is ("ready" in endings)
    assert (row["rejection"] is None) is ("rejected" not in endings)
