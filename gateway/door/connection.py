"""One HTTP/1.1 connection to the storage: heads and bodies as bytes, in both directions, with back-pressure.

Header lines pass unchanged, because a signature covers them. What an answer means is none of its business.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

import httptools

from gateway.door.splicing import SourceBroken, Splicer, Taker
from gateway.s3.request import Header

_HIGH_BYTES = 256 << 10  # more than this in hand: the storage has to wait
_LOW_BYTES = 64 << 10
_WRITE_HIGH_BYTES = 128 << 10
_TARGET_BYTES = 64 << 10  # more than this unsent: the transport says that it is full
_SPLICED_BYTES = 512 << 10  # less than this is copied: the kernel's help costs some calls of its own
_RESET = struct.pack("ii", 1, 0)  # linger for no time
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_ACKED_AT = 120  # of tcpi_bytes_acked in the kernel's struct


class ConnectionBroken(Exception):
    """The connection ended, or what came is not HTTP. `is_untouched`: before a single byte of the answer."""

    def __init__(self, reason: str, *, is_untouched: bool = False) -> None:
        super().__init__(reason)
        self.is_untouched = is_untouched


def reset(transport: asyncio.WriteTransport) -> None:
    """End a connection at once; what it holds unsent is forgotten, by the kernel too."""
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def read_taken_bytes(transport: asyncio.WriteTransport) -> int | None:
    """How much the other side has acknowledged so far; None where the kernel does not say."""
    if _TCP_INFO is None:
        return None
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _ACKED_AT + 8)
    except OSError:
        return None
    return int.from_bytes(info[_ACKED_AT:], sys.byteorder) if len(info) == _ACKED_AT + 8 else None


class Connection(asyncio.Protocol):
    """Used for one exchange at a time. `begin`, `write`, then `wait_for_head`, `pieces`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._is_writable = asyncio.Event()
        self._is_writable.set()
        self._wakeup: asyncio.Future[None] | None = None
        self._lost: Exception | None = None
        self.status = 0
        self.headers: list[Header] = []
        self.idle_since = 0.0
        self._reset(has_body=True)

    def _reset(self, *, has_body: bool) -> None:
        self._may_have_body = has_body
        self._is_informational = False
        self._has_leave = False
        self._has_begun = False
        self.has_head = False
        self.is_complete = False
        self.keeps_alive = False
        self._ends_with_connection = False
        self._missing: int | None = None  # bytes of the body that have not come yet, where that is known
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_paused = False
        self._target: asyncio.WriteTransport | None = None  # where pieces go at once
        self._heard_at = self._loop.time()

    # What the exchange calls

    @property
    def is_open(self) -> bool:
        return self._lost is None and self._transport is not None and not self._transport.is_closing()

    def begin(self, *, has_body: bool) -> None:
        """A new exchange. `has_body`: False where an answer to this method never has one (HEAD)."""
        self.headers = []
        self._reset(has_body=has_body)
        self._parser = httptools.HttpResponseParser(self)

    @property
    def is_full(self) -> bool:
        """Whether the storage takes nothing at the moment: then `wait_for_room` comes before the next `write`."""
        return not self._is_writable.is_set()

    def write(self, data: bytes) -> None:
        """Send. Raises ConnectionBroken."""
        if self._lost is not None or self._transport is None:
            raise self._broken()
        self._transport.write(data)

    async def wait_for_room(self) -> None:
        """Until the storage takes more. Raises ConnectionBroken."""
        await self._is_writable.wait()
        if self._lost is not None:
            raise self._broken()

    async def wait_for_head(self) -> None:
        """Until the status and the headers are there. Raises ConnectionBroken."""
        while not self.has_head:
            if self._lost is not None:
                raise self._broken()
            await self._wait()

    async def wait_for_leave(self) -> None:
        """Until the storage asks for the body, or answers without it. Raises ConnectionBroken."""
        while not (self._has_leave or self.has_head):
            if self._lost is not None:
                raise self._broken()
            await self._wait()

    async def pieces(self, silence_seconds: float) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ConnectionBroken, TimeoutError where the storage falls silent."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._held_bytes -= len(piece)
                self._resume()
                yield piece
            if self.is_complete:
                return
            if self._lost is not None:
                raise self._broken()
            self._resume()
            async with asyncio.timeout(silence_seconds):
                await self._wait()

    async def pour(self, taker: Taker, splicer: Splicer, silence_seconds: float) -> None:
        """The body, as it comes, straight to that client, which speaks no TLS: nobody is woken for a piece, unless the
        client is slow. What is long passes inside of the kernel where that can be. Raises ConnectionBroken,
        TimeoutError where the storage falls silent, OSError where the client ends."""
        if taker.transport is None:
            raise ConnectionResetError("closed by the client")
        target = self._target = taker.transport
        may_splice = splicer.is_possible
        try:
            while True:
                while self._pieces and not self._is_choked():
                    piece = self._pieces.popleft()
                    self._held_bytes -= len(piece)
                    target.write(piece)
                if self._is_choked():
                    await taker.drain()
                    await asyncio.sleep(0)
                    if target.is_closing():
                        raise ConnectionResetError("closed by the client")
                    continue
                if self.is_complete:
                    break
                if may_splice and self._is_long:
                    may_splice = False
                    await asyncio.sleep(0)  # what was written last is sent at the end of the loop's turn
                    if not self._pieces and not target.get_write_buffer_size():
                        await self._splice(taker, splicer, silence_seconds)
                    continue
                self._resume()
                if self._lost is not None:
                    raise self._broken()
                await self._wait_for_news(silence_seconds)
            self._resume()
        finally:
            self._target = None

    def abort(self) -> None:
        """End it at once, with a reset: the storage must not take what it has for all there is. SeaweedFS stores an
        empty object where a connection is merely closed before the body's first byte."""
        if self._transport is not None and not self._transport.is_closing():
            reset(self._transport)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc or ConnectionResetError("closed by the storage")
        if self.has_head and not self.is_complete and self._ends_with_connection and exc is None:
            self.is_complete = True
        self._is_writable.set()
        self._wake()

    def pause_writing(self) -> None:
        self._is_writable.clear()

    def resume_writing(self) -> None:
        self._is_writable.set()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self.has_head and self._missing:
            self._take(data)
        elif self._parser is None or self.is_complete:  # nobody asked
            self.keeps_alive = False
            self.abort()
        else:
            self._parse(data)
        if self._target is None or self.is_complete or self._pieces or self._is_choked():
            self._wake()

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        self._has_begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.is_complete:  # an answer to HEAD ends before the parser thinks so
                self._lost = error
            self.abort()
            return
        if self.has_head and not self.is_complete:
            self._acknowledge()
            if self._is_long:  # it is not read on before it is known where to
                self._pause()

    def _acknowledge(self) -> None:
        """At once: a storage whose TCP gathers small pieces (Ceph RGW by default) waits for it with the body, 40 ms."""
        if _QUICKACK is not None and self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self._is_informational = True
            self._has_leave = self.status == 100
            self.headers = []
            return
        self.keeps_alive = self._parser.should_keep_alive()
        names = {name.lower(): value for name, value in self.headers}
        if not self._may_have_body or self.status in (204, 304):
            # Without a body the parser must not be asked whether the connection goes on: it waits for one.
            self.keeps_alive = names.get(b"connection", b"").lower() != b"close"
            self.is_complete = True
        elif b"transfer-encoding" not in names:
            length = names.get(b"content-length")
            self._missing = int(length) if length is not None and length.isdigit() else None
            self._ends_with_connection = self._missing is None
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        if not self.is_complete:
            self._take(body)

    def on_message_complete(self) -> None:
        if self._is_informational:
            self._is_informational = False
        else:
            self.is_complete = True

    # Its own

    def _take(self, piece: bytes) -> None:
        if self._missing is not None:
            if len(piece) > self._missing:
                piece, self.keeps_alive = piece[: self._missing], False
            self._missing -= len(piece)
            self.is_complete = not self._missing
        if self._target is not None and not self._pieces and not self._is_choked():
            self._target.write(piece)
        else:
            self._pieces.append(piece)
            self._held_bytes += len(piece)
        if self._held_bytes > _HIGH_BYTES or self._is_choked():
            self._pause()

    @property
    def _is_long(self) -> bool:
        return self._missing is not None and self._missing >= _SPLICED_BYTES

    async def _splice(self, taker: Taker, splicer: Splicer, silence_seconds: float) -> None:
        """What is missing of the body, inside of the kernel; nothing where that cannot be. All that was read is sent,
        and reading is paused since the head."""
        if self._transport is None or self._missing is None or not self.is_open:
            return
        try:
            self._missing -= await splicer.move(self._transport, taker, self._missing, silence_seconds)
        except SourceBroken as error:
            self._lost = error
            raise self._broken() from error
        self.is_complete = not self._missing

    def _is_choked(self) -> bool:
        """Whether the target has to be waited for."""
        target = self._target
        return target is not None and (target.get_write_buffer_size() > _TARGET_BYTES or target.is_closing())

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self._held_bytes < _LOW_BYTES and self._transport is not None:
            self._is_paused = False
            self._heard_at = self._loop.time()  # it was not asked meanwhile
            if not self._transport.is_closing():
                self._transport.resume_reading()

    async def _wait_for_news(self, silence_seconds: float) -> None:
        """Raises TimeoutError where nothing comes for so long."""
        while True:
            heard_at = self._heard_at
            try:
                async with asyncio.timeout_at(heard_at + silence_seconds):
                    return await self._wait()
            except TimeoutError:
                if self._heard_at == heard_at:
                    raise

    async def _wait(self) -> None:
        self._wakeup = self._loop.create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def _broken(self) -> ConnectionBroken:
        return ConnectionBroken(repr(self._lost), is_untouched=not self._has_begun)
