"""How much memory a process may hold: a budget of bytes that many uploads share, first come first served, and the
allocator's habits."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections import deque

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_MMAP_BYTES = 128 << 10
_KEPT_BYTES = 2 << 20


def return_freed_buffers() -> None:
    """Have glibc give large buffers back to the system when they are freed. By default it learns to keep them, up
    to 32 MiB each, and a gateway's memory then stays at its peak. Does nothing on other C libraries."""
    _set_malloc({_M_MMAP_THRESHOLD: _MMAP_BYTES, _M_ARENA_MAX: 2})


def keep_freed_buffers() -> None:
    """Have glibc keep a few MiB for the next buffers. For a process whose buffers are many, small and short-lived: to
    ask the system for each of them anew costs more than what they carry. Does nothing on other C libraries."""
    _set_malloc({_M_MMAP_THRESHOLD: _KEPT_BYTES, _M_TRIM_THRESHOLD: _KEPT_BYTES, _M_ARENA_MAX: 1})


def _set_malloc(options: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)


class MemoryBusy(Exception):
    """The budget stayed used up for too long: come again later."""


class MemoryBudget:
    """Hands out bytes of a fixed total. Whoever asks while none are left waits in line, `wait_seconds` at most."""

    def __init__(self, total_bytes: int, *, wait_seconds: float) -> None:
        self._free_bytes = total_bytes
        self._total_bytes = total_bytes
        self._wait_seconds = wait_seconds
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used_bytes(self) -> int:
        return self._total_bytes - self._free_bytes

    @property
    def waiting(self) -> int:
        return len(self._line)

    async def reserve(self, size_bytes: int) -> None:
        """Take bytes, to be given back by `release`. More than the total counts as the total. Raises MemoryBusy."""
        size_bytes = min(size_bytes, self._total_bytes)
        if not self._line and size_bytes <= self._free_bytes:
            self._free_bytes -= size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (size_bytes, turn)
        self._line.append(place)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if place in self._line:
                self._line.remove(place)
                self._serve()
            elif not turn.cancelled():
                self.release(size_bytes)  # our turn came in the very moment in which we gave up
            if isinstance(error, TimeoutError):
                raise MemoryBusy from None
            raise

    def release(self, size_bytes: int) -> None:
        self._free_bytes += min(size_bytes, self._total_bytes)
        self._serve()

    def _serve(self) -> None:
        while self._line and self._line[0][0] <= self._free_bytes:
            size_bytes, turn = self._line.popleft()
            if not turn.cancelled():
                self._free_bytes -= size_bytes
                turn.set_result(None)
