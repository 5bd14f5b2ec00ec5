"""Who is alive, and how the queue does. Functions take a connection first; read-only but for a worker's own row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage.database import Connection

WINDOWS_MINUTES = (1, 5, 15)
GONE_SECONDS = 15 * 60  # for so long a worker that ended is told of
_WAITS_MINUTES = 5
_WAITS_RUNS = 5000  # looked at, so that a busy queue costs no more than a quiet one


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    id: str
    host: str
    pid: int
    version: str
    slots: int


async def say_alive(conn: Connection, worker: WorkerRow, *, stopping: bool) -> None:
    await conn.execute(
        """
        insert into worker (id, host, pid, version, slots, stopping) values ($1, $2, $3, $4, $5, $6)
        on conflict (id) do update set seen_at = now(), stopping = excluded.stopping
        """,
        worker.id,
        worker.host,
        worker.pid,
        worker.version,
        worker.slots,
        stopping,
    )


async def leave(conn: Connection, worker_id: str) -> None:
    """It ends as it was told to. Its row stays for a while, so that nobody takes a stop for a loss."""
    await conn.execute("update worker set seen_at = now(), left_at = now(), stopping = true where id = $1", worker_id)


async def prune(conn: Connection, *, older_than_seconds: float) -> None:
    """Forget workers that ended long ago."""
    await conn.execute("delete from worker where seen_at < now() - $1::float8 * interval '1 s'", older_than_seconds)


async def list_alive(conn: Connection, *, alive_seconds: float) -> list[dict[str, Any]]:
    """Workers seen lately, each with the jobs that it runs now."""
    rows = await conn.fetch(
        """
        select worker.id, host, pid, version, slots, started_at, seen_at, stopping,
          coalesce((
            select jsonb_agg(jsonb_build_object(
                     'job_id', job.id, 'processor', job.processor, 'bucket', object.bucket, 'key', object.key,
                     'started_at', job.started_at,
                     'seconds', extract(epoch from now() - job.started_at)) order by job.started_at)
            from job join object on object.id = job.object_id
            where job.state = 'running' and job.worker = worker.id), '[]') as running
        from worker where seen_at > now() - $1::float8 * interval '1 s' and left_at is null order by worker.id
        """,
        alive_seconds,
    )
    return [dict(row) for row in rows]


async def list_gone(conn: Connection, *, alive_seconds: float, limit: int = 50) -> list[dict[str, Any]]:
    """Workers that ended lately, the last one first. `left_at` None: it fell silent and did not say that it ends;
    `jobs` counts what it still had then, until others take that over."""
    rows = await conn.fetch(
        """
        select id, host, pid, version, slots, started_at, seen_at, stopping, left_at,
               (select count(*) from job where state = 'running' and job.worker = gone.id) as jobs
        from worker as gone
        where seen_at > now() - $2::float8 * interval '1 s'
          and (left_at is not null or seen_at <= now() - $1::float8 * interval '1 s')
        order by seen_at desc, id limit $3
        """,
        alive_seconds,
        GONE_SECONDS,
        limit,
    )
    return [dict(row) for row in rows]


async def count_jobs(conn: Connection) -> dict[str, dict[str, Any]]:
    """By processor: jobs in each state (`rejected` apart from `done`); of the ready ones those that are `due` and those
    that are for `later`, with the time of the next of these; the age of the oldest due one in seconds."""
    rows = await conn.fetch(
        """
        select processor, case when outcome = 'rejected' then 'rejected' else state end as state, count(*) as jobs
        from job group by 1, 2
        """
    )
    waiting = await conn.fetch(
        """
        select processor, extract(epoch from now() - min(run_at) filter (where run_at <= now()))::float8
                 as oldest_ready_seconds,
               count(*) filter (where run_at <= now()) as due, count(*) filter (where run_at > now()) as later,
               min(run_at) filter (where run_at > now()) as next_at
        from job where state = 'ready' group by 1
        """
    )
    counts: dict[str, dict[str, Any]] = {}
    for row in rows:
        counts.setdefault(row["processor"], {})[row["state"]] = row["jobs"]
    for row in waiting:
        found = {name: row[name] for name in ("due", "later", "next_at", "oldest_ready_seconds")}
        counts.setdefault(row["processor"], {}).update(found, ready=row["due"] + row["later"])
    return counts


async def measure_runs(conn: Connection) -> dict[str, dict[int, dict[str, Any]]]:
    """By processor and window in minutes: runs that ended a job well, jobs per second, and p50/p95/p99 run time in
    seconds."""
    rows = await conn.fetch(
        """
        with ended as (
          select processor, extract(epoch from now() - ended_at) / 60 as minutes_ago,
                 extract(epoch from ended_at - started_at)::float8 as seconds
          from job_attempt
          where ended_at > now() - $1 * interval '1 min' and outcome in ('ok', 'rejected')
        )
        select processor, minutes, count(*) as jobs,
               percentile_cont(array[0.5, 0.95, 0.99]) within group (order by seconds) as percentiles
        from ended join unnest($2::int[]) as minutes on minutes_ago < minutes
        group by 1, 2
        """,
        max(WINDOWS_MINUTES),
        list(WINDOWS_MINUTES),
    )
    measured: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        p50, p95, p99 = row["percentiles"]
        measured.setdefault(row["processor"], {})[row["minutes"]] = {
            "jobs": row["jobs"],
            "per_second": row["jobs"] / (row["minutes"] * 60),
            "p50_seconds": p50,
            "p95_seconds": p95,
            "p99_seconds": p99,
        }
    return measured


async def measure_waits(conn: Connection) -> dict[str, dict[str, Any]]:
    """By processor: for how long jobs had been due when a worker took them, as p50/p95/p99 in seconds; of the runs that
    ended well within five minutes, the newest five thousand."""
    rows = await conn.fetch(
        """
        with ended as (
          select job_id, token, started_at from job_attempt
          where ended_at > now() - $1 * interval '1 min' and outcome in ('ok', 'rejected')
          order by ended_at desc limit $2
        )
        select job.processor, percentile_cont(array[0.5, 0.95, 0.99]) within group (
                 order by extract(epoch from greatest(ended.started_at - job.run_at, interval '0'))::float8
               ) as percentiles
        from ended join job on job.id = ended.job_id and job.token = ended.token group by 1
        """,
        _WAITS_MINUTES,
        _WAITS_RUNS,
    )
    names = ("p50_seconds", "p95_seconds", "p99_seconds")
    return {row["processor"]: dict(zip(names, row["percentiles"], strict=True)) for row in rows}
