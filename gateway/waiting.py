"""Waiting for photos: wakes whoever waits when a worker has changed something of theirs.

Woken by NOTIFY, and looks by itself every second, because a notification can be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable

_LOOK_SECONDS = 1.0


class PhotoWatch:
    """The waiters of one process."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def hear(self, photo_id: str) -> None:
        """Something changed about that photo."""
        for event in self._waiting.get(photo_id, ()):
            event.set()

    async def wait(self, photo_id: uuid.UUID, done: Callable[[], Awaitable[bool]], *, seconds: float) -> bool:
        """Until `done` says so, or for that long. Returns what it said last."""
        deadline = time.monotonic() + seconds
        event = asyncio.Event()
        waiters = self._waiting.setdefault(str(photo_id), set())
        waiters.add(event)
        try:
            while True:
                event.clear()
                if await done():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                        await event.wait()
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiting.pop(str(photo_id), None)
