"""What the queue board asks of a full database: every question on a million jobs, a tenth of them dead.

python -m benchmarks.board [--jobs 1000000] [--times 3]

Prints the quickest and the slowest of some runs in milliseconds. Postgres is the embedded one, without safety against
power loss, on the same cores; the tables are analysed and vacuumed once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from storage import deadletters, errorgroups, jobs, pauses, trends, workers
from storage.database import Connection, Database
from storage.jobfilters import JobFilter
from tests.integration.stage import storage_settings
from tests.servers import Servers

KNOWN = {"preview": 1, "exif": 1}
FILL = """
    with made as (
      insert into object (id, bucket, key, etag, size_bytes, content_type, created_at)
      select gen_random_uuid(), 'b' || n % 5, 'trips/' || n % 365 || '/IMG_' || n || '.jpg', 'e', 1, 'image/jpeg',
             now() - ($1 - n) * interval '1 s'
      from generate_series(1, $1::int) as n returning id, created_at
    )
    insert into job (object_id, processor, version, max_attempts, state, outcome, created_at, started_at, finished_at,
                     error_code, error, error_group)
    select id, processor, 1, 8, state, case when state = 'done' then 'ok' end, created_at, created_at,
           case when state <> 'ready' then created_at + interval '2 s' end,
           case when state = 'dead' then 'unexpected' end,
           case when state = 'dead' then jsonb_build_object('code', 'unexpected', 'detail', 'OSError was raised.',
                                                            'traceback', repeat(md5(random()::text), 100)) end,
           case when state = 'dead' then 'g' || (random() * 20)::int else '' end
    from made cross join (values ('preview'), ('exif')) as names (processor) cross join lateral (
      select case when random() < 0.1 then 'dead' when processor = 'exif' and random() < 0.1 then 'ready'
                  else 'done' end as state
      where made.id is not null
    ) as chosen
    order by created_at
"""
RUN = """
    insert into job_attempt (job_id, token, processor, worker, started_at, ended_at, outcome)
    select id, 1, processor, 'w', started_at, finished_at, case when state = 'dead' then 'dead' else 'ok' end
    from job where finished_at is not null
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder))
        try:
            dsn = servers.postgres.dsn_of(servers.make_database())
            uvloop.run(measure(dsn, jobs_wanted=wanted.jobs, times=wanted.times))
        finally:
            servers.stop()


async def measure(dsn: str, *, jobs_wanted: int, times: int) -> None:
    patient = storage_settings(dsn, postgres_timeout_seconds=300, postgres_idle_seconds=300)
    async with Database(patient) as database:
        async with database.transaction() as conn:
            await conn.execute(FILL, jobs_wanted // 2)
            await conn.execute(RUN)
        async with database.connection() as conn:
            await conn.execute("vacuum analyze")
            for name, ask in questions(conn):
                await show(name, ask, times)
        for paused in (False, True):
            await show(f"a dispatcher's pick{', exif paused' * paused}", partial(pick, database, paused), times)


def questions(conn: Connection) -> Iterator[tuple[str, Callable[[], Awaitable[Any]]]]:
    filters = {
        "newest": JobFilter(),
        "dead": JobFilter(state="dead"),
        "of one group": JobFilter(state="dead", error_group="g3"),
        "key begins with": JobFilter(key_prefix="trips/17/IMG_4"),
        "search that finds many": JobFilter(search="img_"),
        "search that finds two": JobFilter(search="IMG_1234."),
        "search that finds none": JobFilter(search="nowhere"),
        "search among the dead": JobFilter(state="dead", search="nowhere"),
    }
    for name, wanted in filters.items():
        yield f"jobs: {name}", partial(deadletters.list_jobs, conn, wanted, limit=51)
    yield "groups of the dead", partial(errorgroups.list_groups, conn, JobFilter(state="dead"), limit=50)
    yield "groups of one bucket", partial(errorgroups.list_groups, conn, JobFilter(state="dead", bucket="b1"), limit=50)
    yield "dead by error", partial(deadletters.count_by_error, conn, JobFilter(state="dead"))
    yield "an hour of trends", partial(trends.measure, conn, minutes=60)
    yield "a day of trends", partial(trends.measure, conn, minutes=1440)
    yield "counts by state", partial(workers.count_jobs, conn)
    yield "how long jobs waited", partial(workers.measure_waits, conn)
    yield "a worker's look", partial(jobs.list_due, conn, known=KNOWN, limit=2)


async def pick(database: Database, paused: bool) -> None:
    async with database.transaction() as conn:
        if paused:
            await pauses.pause(conn, "exif", actor="bench", note=None)
        await jobs.pick_due(conn, redispatch_seconds=10)


async def show(name: str, ask: Callable[[], Awaitable[Any]], times: int) -> None:
    took_ms = []
    for _ in range(times):
        begun = time.perf_counter()
        await ask()
        took_ms.append((time.perf_counter() - begun) * 1000)
    print(f"{name:<34} {min(took_ms):8.1f} {max(took_ms):8.1f} ms")


if __name__ == "__main__":
    main()
