"""Who is alive, and how the queue does. Functions take a connection first; read-only but for a worker's own row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storage.database import Connection

WINDOWS_MINUTES = (1, 5, 15)


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
    await conn.execute("delete from worker where id = $1", worker_id)


async def prune(conn: Connection, *, older_than_seconds: float) -> None:
    """Forget workers that were killed long ago."""
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
        from worker where seen_at > now() - $1::float8 * interval '1 s' order by worker.id
        """,
        alive_seconds,
    )
    return [dict(row) for row in rows]


async def count_jobs(conn: Connection) -> dict[str, dict[str, Any]]:
    """By processor: jobs in each state (`rejected` apart from `done`) and the age of the oldest due one in seconds."""
    rows = await conn.fetch(
        """
        select processor, case when outcome = 'rejected' then 'rejected' else state end as state, count(*) as jobs
        from job group by 1, 2
        """
    )
    ages = await conn.fetch(
        """
        select processor, extract(epoch from now() - min(run_at))::float8 as seconds
        from job where state = 'ready' and run_at <= now() group by 1
        """
    )
    counts: dict[str, dict[str, Any]] = {}
    for row in rows:
        counts.setdefault(row["processor"], {})[row["state"]] = row["jobs"]
    for row in ages:
        counts.setdefault(row["processor"], {})["oldest_ready_seconds"] = row["seconds"]
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
