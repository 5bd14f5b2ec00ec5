"""What monitoring counts in Postgres: runs and jobs that ended in a span of time, how long they took and waited, how
late dispatching is, who works. Functions take a connection first; read-only.

A span is read once, from an index, so the cost grows with what happened in it and not with the size of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.database import Connection


@dataclass(frozen=True, kw_only=True)
class Span:
    """`after` < a moment <= `until`, by the database's clock."""

    after: datetime
    until: datetime


async def find_span(conn: Connection, after: datetime | None, *, settled_seconds: float) -> Span:
    """From `after` (None: from now on) to where nothing can appear any more: a run is marked as ended at the time at
    which its transaction began, and no transaction lasts longer than `settled_seconds`."""
    until = await conn.fetchval("select now() - $1::float8 * interval '1 s'", settled_seconds)
    return Span(after=after or until, until=max(until, after or until))


async def count_runs(conn: Connection, span: Span, *, bounds: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of processor, outcome, code (of a rejection, else None), bucket (of the run's seconds, an index into
    `bounds`), runs, seconds."""
    rows = await conn.fetch(
        """
        select processor, outcome, case when outcome = 'rejected' then error_code end as code,
               width_bucket(extract(epoch from ended_at - started_at)::float8, $3::float8[]) as bucket,
               count(*) as runs, sum(extract(epoch from ended_at - started_at))::float8 as seconds
        from job_attempt where ended_at > $1 and ended_at <= $2 group by 1, 2, 3, 4
        """,
        span.after,
        span.until,
        list(bounds),
    )
    return [dict(row) for row in rows]


async def count_done(conn: Connection, span: Span, *, bounds: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of processor, wait_bucket, total_bucket, jobs, wait_seconds, total_seconds of the jobs that were done: how
    long they had been due when their last run began, and how long they took from the photo's arrival to the end."""
    rows = await conn.fetch(
        """
        with done as (
          select job.processor,
                 extract(epoch from greatest(job_attempt.started_at - job.run_at, interval '0'))::float8 as wait,
                 extract(epoch from job.finished_at - job.created_at)::float8 as total
          from job_attempt join job on job.id = job_attempt.job_id and job.token = job_attempt.token
          where job_attempt.ended_at > $1 and job_attempt.ended_at <= $2 and job.state = 'done'
        )
        select processor, width_bucket(wait, $3::float8[]) as wait_bucket,
               width_bucket(total, $3::float8[]) as total_bucket, count(*) as jobs,
               sum(wait) as wait_seconds, sum(total) as total_seconds
        from done group by 1, 2, 3
        """,
        span.after,
        span.until,
        list(bounds),
    )
    return [dict(row) for row in rows]


async def count_dead(conn: Connection, span: Span) -> dict[str, int]:
    """By processor, the jobs that died and still are dead letters."""
    rows = await conn.fetch(
        """
        select processor, count(*) as jobs from job
        where state = 'dead' and finished_at > $1 and finished_at <= $2 group by 1
        """,
        span.after,
        span.until,
    )
    return {row["processor"]: row["jobs"] for row in rows}


async def find_dispatch_lag(conn: Connection) -> float:
    """Seconds for which the oldest due job has not been dispatched, of processors that are not paused; 0: none is due.
    Looks at every ready job of the backlog."""
    lag = await conn.fetchval(
        """
        select extract(epoch from now() - min(run_at))::float8 from job
        where state = 'ready' and run_at <= now() and dispatched_at is null
          and not exists (select from pause where pause.processor = job.processor)
        """
    )
    return float(lag or 0)


async def count_workers(conn: Connection, *, alive_seconds: float) -> dict[str, int]:
    """Workers that were seen lately and take jobs, and the slots that they have."""
    row = await conn.fetchrow(
        """
        select count(*) as workers, coalesce(sum(slots), 0) as slots from worker
        where seen_at > now() - $1::float8 * interval '1 s' and not stopping and left_at is null
        """,
        alive_seconds,
    )
    assert row is not None
    return {"workers": int(row["workers"]), "slots": int(row["slots"])}
