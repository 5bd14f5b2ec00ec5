"""Waiting for as long as nobody asks for the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Patience:
    """Pauses that grow from `first_seconds` to `longest_seconds` until `reset`, and end at once when `stop` is set."""

    def __init__(self, stop: asyncio.Event, *, first_seconds: float = 0.1, longest_seconds: float = 5.0) -> None:
        self._stop = stop
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._seconds = first_seconds

    def reset(self) -> None:
        self._seconds = self._first_seconds

    async def pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0.5, 1) * self._seconds):  # noqa: S311 - spreads retries
                await self._stop.wait()
        self._seconds = min(self._longest_seconds, self._seconds * 2)


async def until_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event, *, grace_seconds: float) -> T | None:
    """What `work` returns; None where it did not end within that time after `stop` was set: it is cancelled then."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait([task], timeout=grace_seconds)
        return task.result() if task.done() else None
    finally:
        stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1)
