"""The rate at which jobs are completed, before a fault and after it: whether the product is as fast as it was.

A burst of jobs is sent whose work is to occupy a child for a fixed time, five for each slot. So the slots are what
bounds the rate: a worker, a child, a connection or a nudge that a fault has cost shows at once, while other programs on
the same cores hardly do. What noise remains only ever slows a burst down, so the best of a few counts; after the fault
bursts are repeated for a bounded time, because noise passes and a loss does not.

It does not measure how fast photos are decoded.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.faults.harness.plugins import make_python_with_processors
from tests.faults.harness.stack import Stack

KEPT = 0.95
PREFIX = "rate/"  # of the keys of its photos
_ROUNDS = 5
_BEST_OF = 3
_SLOTS = 2  # of each worker

Put = Callable[[str], Awaitable[object]]  # one photo under this key, through any door


class Rate:
    """Made before any program starts, because programs must know what a burst's jobs are. `put` may be set later."""

    def __init__(self, stack: Stack, folder: Path, *, others: Sequence[str] = ()) -> None:
        """`others`: further processors of tests/unit/sandbox/hostile.py, which every other photo gets."""
        stack.python = make_python_with_processors(folder / "python", [*others, "nap"])
        stack.processors = (*stack.processors, *others)
        stack.hooks = f"*/{PREFIX}:nap,*:{'+'.join(stack.processors)}"
        self._stack = stack
        self._before = 0.0

    async def measure(self, put: Put) -> None:
        """Before the fault."""
        self._before = max([await self._burst(put) for _ in range(_BEST_OF)])

    async def assert_kept(self, put: Put, *, patience_seconds: float = 20) -> None:
        """After the fault was healed and the queue drained. Fails where no burst reaches 95 % in so many seconds."""
        assert self._before, "measured before the fault"
        began = time.monotonic()
        found: list[float] = []
        while not found or time.monotonic() - began < patience_seconds:
            found.append(await self._burst(put))
            if found[-1] >= KEPT * self._before:
                return
        listed = ", ".join(f"{rate:.2f}" for rate in found)
        raise AssertionError(f"before the fault {self._before:.2f} jobs/s, after it no more than {listed}")

    async def _burst(self, put: Put) -> float:
        """Jobs ended per second, from the first byte sent to the last job's end, by the database's clock."""
        stack = self._stack
        count = _ROUNDS * _SLOTS * len(stack.workers)
        keys = [f"{PREFIX}{uuid.uuid4().hex}.jpg" for _ in range(count)]
        began = await stack.value("select clock_timestamp()")
        await asyncio.gather(*map(put, keys))
        await stack.drain(seconds=30)
        rows = await stack.fetch(
            """
            select job.finished_at from job join object on object.id = job.object_id
            where key = any($1) and outcome = 'ok'
            """,
            keys,
        )
        assert len(rows) == count, "each photo of a burst has one job, which succeeded"
        return count / float((max(row["finished_at"] for row in rows) - began).total_seconds())
