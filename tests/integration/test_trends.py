"""How the queue did over time: each end of a run in its step, and no step too many."""

from __future__ import annotations

import pytest

from storage import trends
from storage.database import Database
from storage.trends import MAX_MINUTES, MAX_STEPS, step_for
from tests.integration.stage import add_photo, fetch


@pytest.mark.parametrize("minutes", [1, 5, 10, 59, 60, 61, 240, 1000, MAX_MINUTES])
def test_steps_are_round_and_few(minutes: int) -> None:
    """At most 120, and enough to draw a line."""
    steps = minutes * 60 / step_for(minutes)
    assert 12 <= steps <= MAX_STEPS


async def add_run(
    database: Database, token: int, outcome: str, *, minutes_ago: float, seconds: float, processor: str = "exif"
) -> None:
    async with database.connection() as conn:
        await conn.execute(
            """
            insert into job_attempt (job_id, token, processor, worker, started_at, ended_at, outcome)
            select (select min(id) from job), $1, $2, 'w', ended_at - $5 * interval '1 s', ended_at, $3
            from (select now() - $4 * interval '1 min' as ended_at) as at
            """,
            token,
            processor,
            outcome,
            minutes_ago,
            seconds,
        )


async def test_each_run_counts_in_the_step_of_its_end(database: Database) -> None:
    """Good, failed and dead apart, with the time of the good ones; what is older than asked for is left out, and what
    cost nothing is not counted."""
    await add_photo(database)
    runs = [("ok", 10.0, 2.0), ("ok", 10.0, 4.0), ("retry", 10.0, 9.0), ("dead", 10.0, 9.0), ("crashed", 30.0, 1.0)]
    runs += [("rejected", 30.0, 1.0), ("ok", 61.5, 1.0), ("snoozed", 10.0, 1.0), ("released", 10.0, 1.0)]
    for token, (outcome, minutes_ago, seconds) in enumerate(runs, start=1):
        await add_run(database, token, outcome, minutes_ago=minutes_ago, seconds=seconds)
    async with database.connection() as conn:
        trend = await trends.measure(conn, minutes=60)
    found = trend.processors["exif"]
    assert (trend.step_seconds, trend.steps) == (30, 120)
    assert {len(values) for values in found.values()} == {120}
    assert 0 < (trend.end - trend.start).total_seconds() - 119 * 30 <= 30
    busy = {step for name in ("ok", "failed", "dead") for step, number in enumerate(found[name]) if number}
    late, early = max(busy), min(busy)
    assert late - early == 40
    assert {119 - late, 119 - early} <= {19, 20, 59, 60}
    assert [found[name][late] for name in ("ok", "failed", "dead")] == [2, 1, 1]
    assert [found[name][early] for name in ("ok", "failed", "dead")] == [1, 1, 0]
    assert found["p95_seconds"][late] == pytest.approx(3.9)
    assert found["p95_seconds"][early] == pytest.approx(1.0)
    assert found["p95_seconds"].count(None) == 118


async def test_a_job_that_crashed_to_death_counts_as_dead(database: Database) -> None:
    """Its last run ended as a crash or a lost lease, as those of jobs that live on do."""
    await add_photo(database)
    async with database.connection() as conn:
        await conn.execute("update job set state = 'dead', finished_at = now(), error_code = 'decoder_crashed'")
        trend = await trends.measure(conn, minutes=1)
    assert trend.processors["preview"]["dead"][-1] == 1
    assert await fetch(database, "select 1 from job_attempt") == []
