"""Remembers for a second what keys are, so that not every request asks Postgres, and revoking one takes effect within
that second. What is unknown is remembered as such as long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

REMEMBERED_SECONDS = 1.0
_REMEMBERED_KEYS = 10_000


class Remembered(Generic[T]):
    """What `ask` says of an access key. Whoever asks while an answer is under way waits for that one."""

    def __init__(self, ask: Callable[[str], Awaitable[T]]) -> None:
        self._ask = ask
        self._known: dict[str, tuple[float, T]] = {}  # access key -> (time.monotonic() at which to forget, answer)
        self._asking: dict[str, asyncio.Task[T]] = {}

    async def find(self, access_key: str) -> T:
        """Raises what `ask` raises; that is not remembered."""
        known = self._known.get(access_key)
        if known and known[0] > time.monotonic():
            return known[1]
        asking = self._asking.get(access_key)
        if asking is None:
            asking = self._asking[access_key] = asyncio.create_task(self._learn(access_key))
            asking.add_done_callback(lambda _: self._asking.pop(access_key, None))
        return await asyncio.shield(asking)

    def forget(self, access_key: str) -> None:
        """Ask anew the next time."""
        self._known.pop(access_key, None)

    async def _learn(self, access_key: str) -> T:
        asked_at = time.monotonic()  # what is read is as old as the question
        answer = await self._ask(access_key)
        if len(self._known) >= _REMEMBERED_KEYS:
            self._known.clear()
        self._known[access_key] = (asked_at + REMEMBERED_SECONDS, answer)
        return answer
