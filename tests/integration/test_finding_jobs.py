"""Jobs by key, error, worker and time, among few and among many."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from storage import deadletters, jobs
from storage.database import Database
from storage.jobfilters import JobFilter
from tests.integration.stage import add_photo, in_transaction, take, value

ERROR = {"code": "unexpected", "detail": "Tile 17% was_odd.", "cause": "Endpoint s3 hung up", "traceback": "secret"}


async def find(database: Database, wanted: JobFilter, **more: int) -> list[int]:
    async with database.connection() as conn:
        return [row["id"] for row in await deadletters.list_jobs(conn, wanted, **more)]


@pytest.fixture
async def three(database: Database) -> list[int]:
    """A job that waits, one that is dead, and one that was tried in vain and will be again."""
    found = [(await add_photo(database, key=key))[1]["preview"] for key in ("Trip/IMG_1.jpg", "b.jpg", "trip/c%.jpg")]
    dead, retried = await take(database, found[1], worker="w-dead"), await take(database, found[2], worker="w-retry")
    await in_transaction(database, partial(jobs.bury, claim=dead, outcome="dead", error=ERROR))
    retry = partial(jobs.postpone, claim=retried, after_seconds=60, outcome="retry", error={"code": "odd"})
    await in_transaction(database, retry)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("img_1", [0]),
        ("TRIP/", [2, 0]),
        ("%", [2, 1]),
        ("was_odd", [1]),
        ("HUNG up", [1]),
        ("odd", [2, 1]),
        ("wasXodd", []),
        ("secret", []),
    ],
)
async def test_a_search_finds_parts_of_keys_and_errors(
    database: Database, three: list[int], text: str, expected: list[int]
) -> None:
    """In any case, and literally; never in tracebacks, which not everybody may see."""
    assert await find(database, JobFilter(search=text)) == [three[number] for number in expected]
    dead = [three[number] for number in expected if number == 1]
    assert await find(database, JobFilter(search=text, state="dead")) == dead


async def test_a_search_pages_through_old_jobs_behind_many_new_ones(database: Database, three: list[int]) -> None:
    """What lies behind 30,000 newer jobs is found, each job once, in order, whatever the size of the page."""
    async with database.connection() as conn:
        await conn.execute(
            """
            with made as (
              insert into object (id, bucket, key, etag, size_bytes, content_type)
              select gen_random_uuid(), 'photos', 'new/' || n, 'e', 1, 'image/jpeg' from generate_series(1, 30000) as n
              returning id
            ) insert into job (object_id, processor, version, max_attempts) select id, 'preview', 1, 8 from made
            """
        )
    newest = (await add_photo(database, key="trip/new.jpg"))[1]["preview"]
    wanted, pages, before = JobFilter(search="trip/"), [], None
    while found := await find(database, wanted, limit=1, **({} if before is None else {"before_id": before})):
        pages += found
        before = found[-1]
    assert pages == [newest, three[2], three[0]] == await find(database, wanted)


async def test_since_and_until_mean_the_end_or_else_the_making(database: Database, three: list[int]) -> None:
    """A dead job is found by when it died, a waiting one by when it was made; a worker by its name."""
    async with database.connection() as conn:
        await conn.execute("update job set created_at = created_at - interval '1 day' where id = any($1)", three[:2])
    now = await value(database, "select now()")
    hour_ago = now - timedelta(hours=1)
    assert await find(database, JobFilter(since=hour_ago)) == [three[2], three[1]]
    assert await find(database, JobFilter(until=hour_ago)) == [three[0]]
    assert await find(database, JobFilter(since=hour_ago, until=now, state="ready")) == [three[2]]
    assert await find(database, JobFilter(worker="w-dead")) == [three[1]]
