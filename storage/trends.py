"""How the queue did over time: runs that went well, runs that failed and jobs that died, in equal steps up to now.

Read-only; functions take a connection first. It is made of the attempts, whose index by end holds all that is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.database import Connection

MAX_STEPS = 120
MAX_MINUTES = 24 * 60
_STEPS_SECONDS = (5, 10, 15, 30, 60, 120, 300, 600, 900)


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Steps of `step_seconds` from `start` to `end`, the last one under way. Each list has one entry a step."""

    start: datetime
    end: datetime
    step_seconds: int
    steps: int
    processors: dict[str, dict[str, list[Any]]]


def step_for(minutes: int) -> int:
    """Seconds of a step, a round number, so that there are at most 120 of them."""
    least = minutes * 60 / MAX_STEPS
    return next((step for step in _STEPS_SECONDS if step >= least), math.ceil(least))


async def measure(conn: Connection, *, minutes: int) -> Trend:
    """By processor: `ok`, `failed` and `dead` as numbers of each step, `p95_seconds` of its good runs or None. Steps
    begin at round times, so that a picture of them does not tremble as time goes by."""
    step = step_for(minutes)
    steps = math.ceil(minutes * 60 / step)
    clock = "select now(), to_timestamp(floor(extract(epoch from now()) / $1) * $1 - ($2 - 1) * $1) as start"
    (span,) = await conn.fetch(clock, step, steps)
    rows = await conn.fetch(
        """
        with ended as (
          select processor, ended_at, outcome, extract(epoch from ended_at - started_at)::float8 as seconds
          from job_attempt where ended_at >= $1
          union all
          select processor, finished_at, 'dead', null from job
          where state = 'dead' and finished_at >= $1
            and error_code in ('decoder_crashed', 'lease_expired')  -- their last attempts ended as those do
        )
        select processor, floor(extract(epoch from ended_at - $1) / $2)::int as step,
               count(*) filter (where outcome in ('ok', 'rejected', 'superseded')) as ok,
               count(*) filter (where outcome in ('retry', 'crashed', 'expired')) as failed,
               count(*) filter (where outcome = 'dead') as dead,
               percentile_cont(0.95) within group (order by seconds) filter (where outcome in ('ok', 'rejected'))
                 as p95_seconds
        from ended group by 1, 2
        """,
        span["start"],
        step,
    )
    processors: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        if row["step"] < steps:  # not what ended since we began
            for name, values in processors.setdefault(row["processor"], empty(steps)).items():
                values[row["step"]] = row[name]
    return Trend(start=span["start"], end=span["now"], step_seconds=step, steps=steps, processors=processors)


def empty(steps: int) -> dict[str, list[Any]]:
    """The lists of a processor of which nothing ended."""
    return {"ok": [0] * steps, "failed": [0] * steps, "dead": [0] * steps, "p95_seconds": [None] * steps}
