"""Bytes from one socket to another inside of the kernel (Linux): they are copied neither into this process nor back.

It waits on duplicates of the sockets' descriptors, because the event loop knows the originals as its own transports'.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

_PIPE_BYTES = 512 << 10
_PIPES = 32  # at most; each transfer has one, and two descriptors more
_LOW_BYTES = 128 << 10  # what a wait is worth
_LOW_SECONDS = 0.05  # after which less is passed on as well
_LOOK_SECONDS = 1.0  # so often a full target is looked at: it may have been closed
_SET_SIZE = 1031  # F_SETPIPE_SZ
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EPERM)
_FLAGS = 1 | 2  # SPLICE_F_MOVE, SPLICE_F_NONBLOCK

Expecting = Callable[[], AbstractContextManager[None]]


class SourceBroken(Exception):
    """The source ended before its time."""


class _State:
    in_use = 0
    is_possible = hasattr(os, "splice")


async def splice(
    source: asyncio.Transport,
    target: asyncio.WriteTransport,
    length: int,
    *,
    silence_seconds: float,
    expecting: Expecting,
) -> int:
    """Move so many bytes. `source` must be paused, `target` have nothing unsent; neither may speak TLS. `expecting`:
    entered while the target takes nothing.

    Returns how many were moved; fewer where the kernel cannot, or where too many transfers are under way: the others
    are to be copied. Raises SourceBroken, TimeoutError where the source falls silent, OSError where the target ends.
    """
    if not _State.is_possible or _State.in_use >= _PIPES:
        return 0
    _State.in_use += 1
    try:
        with contextlib.ExitStack() as stack:
            try:
                outlet, inlet = stack.enter_context(_pipe())
                transfer = _Transfer(
                    source=stack.enter_context(_duplicate(source)),
                    target=stack.enter_context(_duplicate(target)),
                    outlet=outlet,
                    inlet=inlet,
                    plain=source.get_extra_info("socket"),
                    taker=target,
                    silence_seconds=silence_seconds,
                    expecting=expecting,
                )
            except OSError:  # too many are open
                return 0
            return await transfer.run(length)
    finally:
        _State.in_use -= 1


@dataclass(frozen=True, kw_only=True)
class _Transfer:
    """One transfer. Descriptors are duplicates of the sockets', and the ends of a pipe; `plain` is the source's socket,
    `taker` the target's transport."""

    source: int
    target: int
    outlet: int
    inlet: int
    plain: Any
    taker: asyncio.WriteTransport
    silence_seconds: float
    expecting: Expecting

    async def run(self, length: int) -> int:
        left = length
        try:
            while left:
                got = await self._take(left)
                if got is None:
                    break
                left -= got
                await self._give(got)
                await asyncio.sleep(0)
        finally:
            self._expect_at_once(1)
        return length - left

    async def _take(self, left: int) -> int | None:
        """Some of the source's bytes into the pipe; None where the kernel cannot."""
        while True:
            try:
                got = os.splice(self.source, self.inlet, min(left, _PIPE_BYTES), flags=_FLAGS)
            except BlockingIOError:
                await self._wait_for_source(min(left, _LOW_BYTES))
                continue
            except OSError as error:
                if error.errno in _CANNOT:
                    _State.is_possible = False
                    return None
                raise SourceBroken(repr(error)) from error
            if not got:
                raise SourceBroken("closed by the storage")
            return got

    async def _wait_for_source(self, worth_bytes: int) -> None:
        """Until there are so many bytes, or after a moment any at all."""
        self._expect_at_once(worth_bytes)
        with contextlib.suppress(TimeoutError):
            return await _until_ready(self.source, _LOW_SECONDS)
        self._expect_at_once(1)
        await _until_ready(self.source, self.silence_seconds)

    def _expect_at_once(self, size_bytes: int) -> None:
        with contextlib.suppress(OSError):
            self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)

    async def _give(self, size_bytes: int) -> None:
        while size_bytes:
            try:
                size_bytes -= os.splice(self.outlet, self.target, size_bytes, flags=_FLAGS)
            except BlockingIOError:
                await self._wait_for_target()

    async def _wait_for_target(self) -> None:
        with self.expecting():
            while True:
                if self.taker.is_closing():
                    raise ConnectionResetError("closed by the client")
                with contextlib.suppress(TimeoutError):
                    return await _until_ready(self.target, _LOOK_SECONDS, to_write=True)


async def _until_ready(fd: int, seconds: float, *, to_write: bool = False) -> None:
    """Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    if to_write:
        loop.add_writer(fd, _resolve, ready)
    else:
        loop.add_reader(fd, _resolve, ready)
    try:
        async with asyncio.timeout(seconds):
            await ready
    finally:
        if to_write:
            loop.remove_writer(fd)
        else:
            loop.remove_reader(fd)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    outlet, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a user may have so much of them and no more
            fcntl.fcntl(inlet, _SET_SIZE, _PIPE_BYTES)
        yield outlet, inlet
    finally:
        os.close(outlet)
        os.close(inlet)


@contextlib.contextmanager
def _duplicate(transport: asyncio.BaseTransport) -> Iterator[int]:
    fd = os.dup(transport.get_extra_info("socket").fileno())
    try:
        yield fd
    finally:
        os.close(fd)
