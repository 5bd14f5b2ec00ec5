"""A TCP proxy on 127.0.0.1 that can be cut, silenced, slowed and made to lie, for live connections too.

One stands in front of each dependency. It knows nothing of what it carries. Latency is added to each read of at most
64 KiB, so it also bounds the rate; a fault that is limited to one link leaves all others alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

from safelight.embedded.folder import LOCALHOST, choose_port

Direction = Literal["up", "down"]  # client to server, server to client
Mode = Literal["pass", "reset", "blackhole", "latency", "cut_after", "cut_when", "throttle", "flip", "half_close"]

_READ_BYTES = 64 << 10
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s; closing then sends RST


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is done to a link. `cut_when`, `cut_after`, `flip` and `half_close` act `times` times over all links (None:
    always), then the proxy passes everything again."""

    mode: Mode = "pass"
    direction: Direction = "up"
    seconds: float = 0
    jitter_seconds: float = 0
    n_bytes: int = 0  # cut_after: passed before the cut; flip: offset of the byte; throttle: per second
    pattern: bytes = b""
    when: Literal["before", "after"] = "before"
    times: int | None = 1


PASS = Fault()


@dataclass(eq=False)
class Link:
    """One connection through the proxy. `index` counts from 0 over the proxy's life."""

    index: int
    fault: Fault | None = None  # of this link alone; None: the proxy's
    passed: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    marks: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})  # `passed` when the fault began
    tails: dict[Direction, bytes] = field(default_factory=lambda: {"up": b"", "down": b""})
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    answer_is_cut: bool = False
    closed_half: set[Direction] = field(default_factory=set)

    def mark(self) -> None:
        self.marks = dict(self.passed)
        self.tails = {"up": b"", "down": b""}

    def reset(self) -> None:
        """RST to both sides; what was not sent yet is lost."""
        for writer in self.writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class _Cut(Exception):
    """The link was cut by a fault."""


class Proxy:
    """`async with Proxy(port) as proxy:` listens on `proxy.port`, which stays the same over `refuse` and `heal`."""

    def __init__(self, upstream_port: int, *, seed: int = 0) -> None:
        self._upstream_port = upstream_port
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._next: Fault | None = None
        self._fault = PASS
        self.port = choose_port()
        self.links: list[Link] = []
        self.connections = 0
        self.passed_bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self.fired = 0  # cuts, flips and half closes since the fault was set

    async def __aenter__(self) -> Proxy:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def total_bytes(self) -> int:
        return self.passed_bytes["up"] + self.passed_bytes["down"]

    def set(self, fault: Fault, *, only: Link | None = None) -> None:
        """Put every link, or only one, under a fault, from now on."""
        self.fired = 0
        if only is None:
            self._fault = fault
        else:
            only.fault = fault
        for link in self.links:
            link.mark()
        self._change()
        if fault.mode == "reset":
            for link in [only] if only else list(self.links):
                link.reset()
        if fault.mode == "half_close":
            for link in [only] if only else list(self.links):
                self._half_close(link, fault.direction)

    def set_next(self, fault: Fault) -> None:
        """Put the next new connection alone under a fault."""
        self.fired = 0
        self._next = fault

    def refuse(self) -> None:
        """Close the listener: new connections are refused, live ones stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def drop(self) -> None:
        """RST on every live connection; new ones are unaffected."""
        for link in list(self.links):
            link.reset()

    async def heal(self) -> None:
        """Pass everything again, on live connections too, and listen again."""
        self._next, self._fault = None, PASS
        for link in self.links:
            link.fault = None
        self._change()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOCALHOST, self.port, reuse_address=True, backlog=512)

    def _change(self) -> None:
        """Wake every pump that holds bytes back."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _fault_of(self, link: Link) -> Fault:
        return link.fault or self._fault

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(index=self.connections, fault=self._next, writers=[writer])
        self._next = None
        self.connections += 1
        self.links.append(link)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(link, reader, writer)
        except asyncio.CancelledError:
            link.reset()  # the end of the proxy; the stream's own callback must not see a cancelled task
        finally:
            self.links.remove(link)
            self._tasks.discard(task)

    async def _carry(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._fault_of(link).mode == "blackhole":
            await self._changed.wait()
        if self._fault_of(link).mode == "reset":
            link.reset()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(LOCALHOST, self._upstream_port)
        except OSError:
            link.reset()
            return
        link.writers.append(server_writer)
        for each in link.writers:
            each.transport.set_write_buffer_limits(0)  # then drain() means that the kernel has it all
        up = asyncio.create_task(self._pump(link, "up", reader, server_writer))
        down = asyncio.create_task(self._pump(link, "down", server_reader, writer))
        try:
            await asyncio.gather(up, down)
        except _Cut:
            pass  # closed below, in good order, so that what was passed arrives
        except OSError:
            link.reset()
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            for each in link.writers:
                each.close()

    async def _pump(
        self, link: Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_READ_BYTES):
            while (fault := self._fault_of(link)).mode == "blackhole":
                await self._changed.wait()
            if link.answer_is_cut and direction == "down":
                raise _Cut
            if direction not in link.closed_half:
                await self._forward(link, direction, data, writer, fault)
        if direction not in link.closed_half and not writer.is_closing():
            writer.write_eof()

    async def _forward(
        self, link: Link, direction: Direction, data: bytes, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        if fault.mode == "latency":
            await asyncio.sleep(fault.seconds + self._random.uniform(0, fault.jitter_seconds))
        elif fault.mode == "throttle":
            await self._trickle(link, direction, data, writer, fault)
            return
        elif direction == fault.direction and fault.mode in ("cut_after", "cut_when", "flip") and self._may_fire(fault):
            data, cut = self._spoil(link, direction, data, fault)
            if cut:
                await self._write(link, direction, data, writer)
                raise _Cut
        await self._write(link, direction, data, writer)

    def _spoil(self, link: Link, direction: Direction, data: bytes, fault: Fault) -> tuple[bytes, bool]:
        """What is passed of these bytes, and whether the link is cut after that."""
        begun_at = link.passed[direction] - link.marks[direction]
        if fault.mode == "cut_after":
            if begun_at + len(data) < fault.n_bytes:
                return data, False
            self.fired += 1
            return data[: fault.n_bytes - begun_at], True
        if fault.mode == "flip":
            place = fault.n_bytes - begun_at
            if not 0 <= place < len(data):
                return data, False
            self.fired += 1
            return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], False
        seen = link.tails[direction] + data
        link.tails[direction] = seen[max(0, len(seen) - len(fault.pattern) + 1) :]
        if fault.pattern not in seen:
            return data, False
        self.fired += 1
        if fault.when == "before":
            return b"", True
        # What was asked has been done once the server answers; only then is the link cut.
        link.answer_is_cut = direction == "up"
        return data, direction == "down"

    async def _trickle(
        self, link: Link, direction: Direction, data: bytes, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        size = max(1, fault.n_bytes // 20)
        for begin in range(0, len(data), size):
            if self._fault_of(link) is not fault:
                await self._write(link, direction, data[begin:], writer)
                return
            await self._write(link, direction, data[begin : begin + size], writer)
            await asyncio.sleep(size / fault.n_bytes)

    async def _write(self, link: Link, direction: Direction, data: bytes, writer: asyncio.StreamWriter) -> None:
        link.passed[direction] += len(data)
        self.passed_bytes[direction] += len(data)
        writer.write(data)
        await writer.drain()

    def _may_fire(self, fault: Fault) -> bool:
        return fault.times is None or self.fired < fault.times

    def _half_close(self, link: Link, direction: Direction) -> None:
        """No more in this direction: its receiver sees the end, the other direction goes on."""
        if len(link.writers) == 2 and direction not in link.closed_half:
            self.fired += 1
            link.closed_half.add(direction)
            link.writers[1 if direction == "up" else 0].write_eof()
