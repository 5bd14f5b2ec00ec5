"""Bytes from one socket to another inside of the kernel (Linux): they are copied neither into this process nor back.

Readiness is waited for on duplicates of the sockets' descriptors, because the event loop knows the originals as its own
transports'; and in callbacks, because waking a coroutine for every piece would cost as much as the copying.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import Iterable
from typing import Protocol

_PIPE_BYTES = 1 << 20  # the most that the kernel allows without privileges
_TRANSFERS = 32  # at a time; what is beyond is copied
_KEPT_PIPES = 8
_LOOK_SECONDS = 1.0
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if sys.platform == "linux" else 0

Pair = tuple[int, int]  # of descriptors


class SourceBroken(Exception):
    """The source ended before its time."""


class Taker(Protocol):
    """The side that an answer goes to. `drain` ends when its transport has room again; between `expect` and `relax` it
    is watched, and cut off where it takes nothing for too long."""

    @property
    def transport(self) -> asyncio.Transport | None: ...

    async def drain(self) -> None: ...
    def expect(self) -> None: ...
    def relax(self) -> None: ...


class Splicer:
    """The pipes of one process."""

    def __init__(self, *, is_plain: bool) -> None:
        """`is_plain`: sources speak no TLS."""
        self.is_possible = is_plain and sys.platform == "linux"
        self._kept: list[Pair] = []
        self._in_use = 0

    def close(self) -> None:
        while self._kept:
            _close(self._kept.pop())

    async def move(self, source: asyncio.Transport, taker: Taker, length: int, silence_seconds: float) -> int:
        """Move so many bytes. `source` must be paused, the taker's transport have nothing unsent; neither may speak
        TLS. Returns how many were moved: none where the kernel cannot, or where too many transfers are under way.
        Raises SourceBroken, TimeoutError where the source falls silent, OSError where the taker ends."""
        assert taker.transport is not None
        if self._in_use >= _TRANSFERS:
            return 0
        ends: list[int] = []
        try:
            ends.append(os.dup(source.get_extra_info("socket").fileno()))
            ends.append(os.dup(taker.transport.get_extra_info("socket").fileno()))
            pipe = self._kept.pop() if self._kept else _open()
        except OSError:  # no descriptors left
            _close(ends)
            return 0
        self._in_use += 1
        moved: int | None = None
        try:
            moved = await _Transfer((ends[0], ends[1]), pipe, taker, length, silence_seconds).run()
        except OSError as error:
            if not isinstance(error, (ConnectionError, TimeoutError)):
                self.is_possible = False  # strange, and not to be met again
            raise
        finally:
            self._in_use -= 1
            _close(ends)
            if moved is not None and len(self._kept) < _KEPT_PIPES:
                self._kept.append(pipe)
            else:  # something may be in it
                _close(pipe)
        if not moved:
            self.is_possible = False
        return moved


class _Transfer:
    """One of them. It waits for the source while the pipe is empty, else for the taker."""

    def __init__(self, ends: Pair, pipe: Pair, taker: Taker, length: int, silence_seconds: float) -> None:
        """`ends`: of the source, of the target; `pipe`: its outlet, its inlet."""
        self._loop = asyncio.get_running_loop()
        self._source, self._target = ends
        self._outlet, self._inlet = pipe
        self._taker = taker
        self._length = length
        self._left = length  # to be taken from the source
        self._held = 0  # in the pipe
        self._silence_seconds = silence_seconds
        self._heard_at = self._loop.time()
        self._waits_for_taker = False
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._looking: asyncio.TimerHandle

    async def run(self) -> int:
        """As Splicer.move."""
        self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)
        try:
            self._go_on()  # mostly there is something already
            if not (self._ended.done() or self._waits_for_taker):
                self._loop.add_reader(self._source, self._go_on)
            return await self._ended
        finally:
            self._ended.cancel()
            self._looking.cancel()
            self._loop.remove_reader(self._source)
            self._let_taker_be()

    def _go_on(self) -> None:
        if self._ended.done():
            return
        try:
            if self._held and not self._give():
                return
            if self._left and self._take():
                self._give()
        except Exception as error:  # noqa: BLE001 - for whoever awaits the transfer
            self._ended.set_exception(error)
            return
        if not self._held and not self._left:
            self._ended.set_result(self._length)

    def _take(self) -> bool:
        """Some of the source's bytes into the pipe, which is empty. False: there are none at the moment."""
        try:
            taken = os.splice(self._source, self._inlet, min(self._left, _PIPE_BYTES), flags=_FLAGS)
        except BlockingIOError:
            return False
        except OSError as error:
            if self._left < self._length or isinstance(error, (ConnectionError, TimeoutError)):
                raise SourceBroken(repr(error)) from error
            self._ended.set_result(0)  # no splice here
            return False
        if not taken:
            raise SourceBroken("the end came too early")
        self._left -= taken
        self._held = taken
        self._heard_at = self._loop.time()
        return True

    def _give(self) -> bool:
        """What the pipe holds to the taker. False: it does not take all of it at the moment. Raises OSError."""
        try:
            self._held -= os.splice(self._outlet, self._target, self._held, flags=_FLAGS)
        except BlockingIOError:
            pass
        except TimeoutError as error:  # the kernel's word for a client that it has not heard of for long
            raise ConnectionResetError(repr(error)) from error
        if self._held:
            self._wait_for_taker()
        else:
            self._let_taker_be()
        return not self._held

    def _wait_for_taker(self) -> None:
        if not self._waits_for_taker:
            self._waits_for_taker = True
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._target, self._go_on)
            self._taker.expect()

    def _let_taker_be(self) -> None:
        if self._waits_for_taker:
            self._waits_for_taker = False
            self._taker.relax()
            self._loop.remove_writer(self._target)
            if not self._ended.done():
                self._heard_at = self._loop.time()  # the source was not asked meanwhile
                self._loop.add_reader(self._source, self._go_on)

    def _look(self) -> None:
        """Nobody is woken by a source that is silent, nor by a taker whose transport is gone: the duplicate outlives
        it."""
        transport = self._taker.transport
        if self._ended.done():
            return
        if transport is None or transport.is_closing():
            self._ended.set_exception(ConnectionResetError("closed by the client"))
        elif not self._waits_for_taker and self._loop.time() > self._heard_at + self._silence_seconds:
            self._ended.set_exception(TimeoutError("the storage is silent"))
        else:
            self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)


def _open() -> Pair:
    pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # others have many pipes open: then it is small
        fcntl.fcntl(pipe[0], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return pipe


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
