"""Waiting for a state, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], Awaitable[T]], what: str, *, seconds: float) -> T:
    """The first true answer of `condition`, asked 50 times a second. Fails the test after so many seconds, saying what
    was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} (last answer: {found!r})"
        await asyncio.sleep(0.02)


async def until_true(condition: Callable[[], bool], what: str, *, seconds: float) -> float:
    """Seconds until `condition` held."""
    began = time.monotonic()

    async def holds() -> bool:
        return condition()

    await until(holds, what, seconds=seconds)
    return time.monotonic() - began
