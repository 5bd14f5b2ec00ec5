"""A circuit breaker for a storage that is silent: cut off behind open connections, frozen, or lost on the way.

What is refused or answered with an error fails at once and needs none of this. Silence costs each call its read
timeout, so calls pile up, hold memory, and still wait on dead connections when the storage has long been back. So while
a call is overdue the storage is asked whether it is there at all, on a connection of its own. Where it is not, every
call under way ends, and new ones are refused, until it answers again. A storage that is slow with one call but answers
this one is left alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

log = structlog.get_logger(__name__)

OVERDUE_SECONDS = 2.0
ASK_SECONDS = 2.0
_PAUSE_SECONDS = 0.5
_ASKED_IN_VAIN = 3  # in a row


class Pulse:
    """Watches the calls of one client. `ask` returns whether the storage answered anything at all."""

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        self._ask = ask
        self._calls: dict[asyncio.Timeout, float] = {}  # -> time.monotonic() at which it began
        self.silent = False

    @asynccontextmanager
    async def calling(self, *, within_seconds: float | None = None) -> AsyncIterator[None]:
        """Round one call. Raises TimeoutError at once, or in the midst of it, where the storage is silent, and where
        the call takes longer than that."""
        if self.silent:
            raise TimeoutError("the storage is silent")
        async with asyncio.timeout(within_seconds) as limit:
            self._calls[limit] = time.monotonic()
            try:
                yield
            finally:
                self._calls.pop(limit, None)

    async def watch(self) -> None:
        """Until cancelled."""
        in_vain = 0
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            if not self.silent and not self._overdue():
                in_vain = 0
                continue
            in_vain = 0 if await self._is_there() else in_vain + 1
            if not in_vain:
                self.silent = False
            elif in_vain >= _ASKED_IN_VAIN:
                self._end_calls()

    async def _is_there(self) -> bool:
        try:
            return await self._ask()
        except Exception:  # the breaker must not stay open because of what nobody foresaw
            log.exception("storage.unasked", message="The storage could not be asked; it counts as there.")
            return True

    def _overdue(self) -> bool:
        before = time.monotonic() - OVERDUE_SECONDS
        return any(began < before for began in self._calls.values())

    def _end_calls(self) -> None:
        if not self.silent:
            log.warning("storage.silent", message="The storage is silent: calls end at once.", calls=len(self._calls))
        self.silent = True
        ended, self._calls = self._calls, {}
        for limit in ended:
            limit.reschedule(asyncio.get_running_loop().time())
