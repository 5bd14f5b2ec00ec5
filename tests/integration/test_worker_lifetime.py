"""How real worker processes end: idle, busy, out of grace, and by kill -9.

A job is held in `running` by freezing the worker's sandbox children, so nothing depends on how long a photo takes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from storage import objects, workers
from storage.blobs import Blobs
from storage.database import Database
from storage.objects import Plan
from tests.integration.programs import Program, Stage
from tests.integration.stage import attempts, fetch, in_transaction, job, make_stored, until, value
from tests.photos import make_jpeg


async def put_photo(
    database: Database, blobs: Blobs, bucket: str, *, processors: tuple[str, ...], key: str = "a.jpg"
) -> list[int]:
    """A photo in S3 and in the database; the ids of its jobs."""
    written = await blobs.put(bucket, key, make_jpeg(64, 48), content_type="image/jpeg")
    stored = make_stored(key, written.etag, bucket=bucket, sha256=written.sha256, size_bytes=written.size_bytes)
    plans = [Plan(processor=name, version=1, max_attempts=8) for name in processors]
    recorded = await in_transaction(database, lambda conn: objects.record(conn, stored, plans))
    return [
        row["id"] for row in await fetch(database, "select id from job where object_id = $1 order by id", recorded.id)
    ]


async def started(program: Program) -> Program:
    async def listening() -> bool:
        assert program.exit_code is None, program.log()
        return program.logged("worker.started")

    await until(listening, seconds=20, what="the worker listens")
    return program


async def ended(program: Program, *, seconds: float) -> float:
    """Seconds until the program ended by itself."""
    began = time.monotonic()

    async def gone() -> bool:
        return program.exit_code is not None

    await until(gone, seconds=seconds, what=f"{program.name} ends")
    return time.monotonic() - began


async def in_state(database: Database, job_id: int, state: str, *, seconds: float = 15) -> dict[str, object]:
    async def reached() -> dict[str, object] | None:
        row = await job(database, job_id)
        return row if row["state"] == state else None

    found = await until(reached, seconds=seconds, what=f"job {job_id} is {state}")
    assert found is not None
    return found


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_an_idle_worker_ends_at_once(stage: Stage, database: Database, number: signal.Signals) -> None:
    """Told to stop while it waits for work, a worker is gone within 2 s, and its row says that it left."""
    worker = await started(stage.start_worker())

    async def seen() -> bool:
        return bool(await value(database, "select count(*) from worker where left_at is null"))

    await until(seen, seconds=5, what="the worker says that it is alive")
    os.kill(worker.pid, number)
    assert await ended(worker, seconds=5) < 2
    assert worker.exit_code == 0
    assert not await seen()
    async with database.connection() as conn:
        assert await workers.list_alive(conn, alive_seconds=3) == []
        (gone,) = await workers.list_gone(conn, alive_seconds=3)
    assert (gone["pid"], gone["stopping"], gone["jobs"]) == (worker.pid, True, 0)
    assert gone["left_at"] == gone["seen_at"]


async def test_a_killed_worker_is_told_as_lost(
    stage: Stage, database: Database, blobs: Blobs, bucket_prefix: str
) -> None:
    """Killed over a job, a worker is among the gone ones as soon as it counts as silent, with the job that it held; and
    it did not say goodbye."""
    worker = await started(stage.start_worker(worker_slots="1"))
    worker.freeze_children()
    (job_id,) = await put_photo(database, blobs, f"{bucket_prefix}-photos", processors=("preview",))
    await in_state(database, job_id, "running")

    async def gone() -> list[dict[str, object]]:
        async with database.connection() as conn:
            return await workers.list_gone(conn, alive_seconds=3)

    assert await gone() == []
    worker.kill()
    (told,) = await until(gone, seconds=10, what="the worker counts as gone")
    assert (told["pid"], told["stopping"], told["left_at"], told["jobs"]) == (worker.pid, False, None, 1)


async def test_a_busy_worker_finishes_its_job(
    stage: Stage, database: Database, blobs: Blobs, bucket_prefix: str
) -> None:
    """Told to stop while a job runs, a worker takes nothing new, finishes the job in its only attempt, and ends."""
    worker = await started(stage.start_worker(worker_slots="1", grace_seconds="30"))
    frozen = worker.freeze_children()
    (first,) = await put_photo(database, blobs, f"{bucket_prefix}-photos", processors=("preview",))
    await in_state(database, first, "running")
    worker.terminate()

    async def stopping() -> bool:
        return bool(await value(database, "select count(*) from worker where stopping"))

    await until(stopping, seconds=5, what="the worker says that it stops")
    (other,) = await put_photo(database, blobs, f"{bucket_prefix}-photos", processors=("exif",), key="b.jpg")
    assert worker.exit_code is None
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    await ended(worker, seconds=10)
    assert worker.exit_code == 0
    assert (await job(database, first))["outcome"] == "ok"
    assert await attempts(database, first) == ["ok"]
    assert await attempts(database, other) == []


async def test_without_grace_a_job_moves_to_another_worker_at_once(
    stage: Stage, database: Database, blobs: Blobs, bucket_prefix: str
) -> None:
    """A worker without time to finish gives its job back, unspent, and another runs it long before the lease ends."""
    worker = await started(stage.start_worker(worker_slots="1", grace_seconds="0", lease_seconds="60"))
    worker.freeze_children()
    (job_id,) = await put_photo(database, blobs, f"{bucket_prefix}-photos", processors=("preview",))
    await in_state(database, job_id, "running")
    worker.terminate()
    await ended(worker, seconds=6)
    assert worker.exit_code == 0
    row = await job(database, job_id)
    assert (row["state"], row["attempt"], row["error_code"]) == ("ready", 0, None)
    assert await attempts(database, job_id) == ["released"]
    await started(stage.start_worker(lease_seconds="60"))
    await in_state(database, job_id, "done", seconds=5)
    assert await attempts(database, job_id) == ["released", "ok"]


async def test_a_killed_worker_leaves_no_children(
    stage: Stage, database: Database, blobs: Blobs, bucket_prefix: str
) -> None:
    """kill -9 of a worker takes its children with it within 1 s, those at work too, and its job runs again within
    lease + 1 s."""
    first = await started(stage.start_worker())
    children = first.freeze_children()
    assert len(children) >= 2
    (job_id,) = await put_photo(database, blobs, f"{bucket_prefix}-photos", processors=("preview",))
    await in_state(database, job_id, "running")
    await started(stage.start_worker())
    killed_at = await value(database, "select clock_timestamp()")
    first.kill()

    async def gone() -> bool:
        return not any(alive(pid) for pid in children)

    await until(gone, seconds=1, what="the children are gone")
    await in_state(database, job_id, "done", seconds=10)
    rows = await fetch(database, "select outcome, started_at from job_attempt where job_id = $1 order by token", job_id)
    assert [row["outcome"] for row in rows] == ["expired", "ok"]
    assert (rows[1]["started_at"] - killed_at).total_seconds() <= 3 + 1
