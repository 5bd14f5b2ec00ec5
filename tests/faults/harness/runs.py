"""What a test asks about the runs of one photo's jobs, or of all."""

from __future__ import annotations

from typing import Any

from tests.faults.harness.stack import Stack
from tests.faults.harness.waiting import until


async def outcomes(stack: Stack, photo_id: object, processor: str) -> list[str | None]:
    """How each run of the photo's job ended, in order."""
    return [row["outcome"] for row in await attempts(stack, photo_id, processor)]


async def attempts(stack: Stack, photo_id: object, processor: str) -> list[dict[str, Any]]:
    return await stack.fetch(
        """
        select job_attempt.* from job_attempt join job on job.id = job_attempt.job_id
        where job.object_id = $1 and job.processor = $2 order by job_attempt.token
        """,
        photo_id,
        processor,
    )


async def job(stack: Stack, photo_id: object, processor: str) -> dict[str, Any]:
    (row,) = await stack.fetch("select * from job where object_id = $1 and processor = $2", photo_id, processor)
    return row


async def running(stack: Stack, photo_id: object, processor: str = "preview") -> dict[str, Any]:
    """The photo's job, once it runs."""

    async def found() -> dict[str, Any] | None:
        row = await job(stack, photo_id, processor)
        return row if row["state"] == "running" else None

    row = await until(found, f"the {processor} job runs", seconds=10)
    assert row is not None
    return row


async def now(stack: Stack) -> Any:
    return await stack.value("select clock_timestamp()")
