"""Bodies that pass from one socket to another inside of the kernel: whole, in order, ended when either side ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.door import splicing
from gateway.door.splicing import SourceBroken, Splicer
from tests.integration.stage import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="splice(2) is Linux'")

SIZE_BYTES = 6_000_001
BODY = random.Random(1).randbytes(SIZE_BYTES)
SILENCE_SECONDS = 20.0

Send = Callable[[asyncio.StreamWriter], Any]


class Client(asyncio.Protocol):
    """The taker, as the door has it."""

    transport: asyncio.Transport | None = None

    def __init__(self) -> None:
        self.expected = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def drain(self) -> None:
        raise AssertionError("nothing is written to it")

    def expect(self) -> None:
        self.expected.set()

    def relax(self) -> None:
        self.expected.clear()


class Way:
    """A source that sends what it is told to, a client that takes, and the transports between them."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self.client = Client()
        self.source: asyncio.Transport
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self, send: Send) -> Way:
        loop = asyncio.get_running_loop()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await send(writer)
            writer.close()

        source_port = await self._listen(serve)
        self.source, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", source_port)
        self.source.pause_reading()
        self._stack.callback(self.source.abort)
        taken: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = loop.create_future()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.set_result((reader, writer))

        await loop.create_connection(lambda: self.client, "127.0.0.1", await self._listen(take))
        assert self.client.transport is not None
        self._stack.callback(self.client.transport.abort)
        # Whatever the machine allows, the kernel is to hold less than a body.
        self.client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 << 10)
        self.reader, self.writer = await taken
        self._stack.callback(self.writer.transport.abort)
        return self

    async def _listen(self, serve: Any) -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])


@pytest.fixture
async def open_way() -> AsyncIterator[Callable[[Send], Any]]:
    async with contextlib.AsyncExitStack() as stack:
        yield lambda send: Way(stack).open(send)


async def send_all(writer: asyncio.StreamWriter) -> None:
    for begin in range(0, SIZE_BYTES, 99_999):
        writer.write(BODY[begin : begin + 99_999])
        await writer.drain()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_bodies_pass_whole_side_by_side(open_way: Any) -> None:
    """Forty of them at once: all that are moved arrive as they were sent, and what is beyond the limit is not begun."""
    splicer = Splicer(is_plain=True)
    ways = [await open_way(send_all) for _ in range(40)]
    moves = [asyncio.create_task(splicer.move(way.source, way.client, SIZE_BYTES, SILENCE_SECONDS)) for way in ways]
    await asyncio.sleep(0)
    begun = [(way, move) for way, move in zip(ways, moves, strict=True) if not move.done()]
    for way, _ in begun:
        assert sha(await way.reader.readexactly(SIZE_BYTES)) == sha(BODY)
    assert sorted(await asyncio.gather(*moves)) == [0] * 8 + [SIZE_BYTES] * 32
    assert splicer.is_possible
    splicer.close()


async def test_pipes_are_kept_and_nothing_else(open_way: Any) -> None:
    """One after the other, the second takes the pipe of the first; closed, no descriptor is left."""
    splicer = Splicer(is_plain=True)
    before = open_descriptors()
    for _ in range(3):
        async with contextlib.AsyncExitStack() as stack:
            way = await Way(stack).open(send_all)
            at_begin = open_descriptors()
            move = asyncio.create_task(splicer.move(way.source, way.client, SIZE_BYTES, SILENCE_SECONDS))
            assert sha(await way.reader.readexactly(SIZE_BYTES)) == sha(BODY)
            await move
            assert len(open_descriptors() - at_begin) <= 2
    splicer.close()

    async def are_closed() -> bool:
        return len(open_descriptors()) <= len(before)

    await until(are_closed, seconds=20, what="no descriptor is left")


async def begin_stalled(splicer: Splicer, way: Way) -> asyncio.Task[int]:
    """A transfer to a client that takes nothing any more."""
    way.writer.transport.pause_reading()
    move = asyncio.create_task(splicer.move(way.source, way.client, SIZE_BYTES, SILENCE_SECONDS))
    async with asyncio.timeout(20):
        await way.client.expected.wait()
    return move


async def test_a_slow_client_is_expected(open_way: Any) -> None:
    """The source waits for it, it is watched meanwhile, and it gets all in the end."""
    splicer = Splicer(is_plain=True)
    way = await open_way(send_all)
    move = await begin_stalled(splicer, way)
    way.writer.transport.resume_reading()
    assert sha(await way.reader.readexactly(SIZE_BYTES)) == sha(BODY)
    assert await move == SIZE_BYTES
    assert not way.client.expected.is_set()
    splicer.close()


async def test_a_source_that_ends_early(open_way: Any) -> None:
    """What it had sent has arrived; then it is told."""

    async def send_half(writer: asyncio.StreamWriter) -> None:
        writer.write(BODY[:1_000_000])
        await writer.drain()
        writer.close()

    splicer = Splicer(is_plain=True)
    way = await open_way(send_half)
    move = asyncio.create_task(splicer.move(way.source, way.client, SIZE_BYTES, SILENCE_SECONDS))
    assert await way.reader.readexactly(1_000_000) == BODY[:1_000_000]
    with pytest.raises(SourceBroken):
        await move
    assert splicer.is_possible
    splicer.close()


async def test_a_source_that_falls_silent(open_way: Any) -> None:
    """It is waited for as long as was said."""

    async def send_little(writer: asyncio.StreamWriter) -> None:
        writer.write(BODY[:100])
        await asyncio.Event().wait()

    splicer = Splicer(is_plain=True)
    way = await open_way(send_little)
    with pytest.raises(TimeoutError):
        await splicer.move(way.source, way.client, SIZE_BYTES, 0.5)
    splicer.close()


@pytest.mark.parametrize("ends", ["the client goes", "the door cuts it off"])
async def test_a_client_that_ends(open_way: Any, ends: str) -> None:
    """Also where the door itself has closed the transport whose socket is moved to."""
    splicer = Splicer(is_plain=True)
    way = await open_way(send_all)
    move = await begin_stalled(splicer, way)
    (way.writer.transport if ends == "the client goes" else way.client.transport).abort()
    with pytest.raises(ConnectionError):
        await move
    assert not way.client.expected.is_set()
    splicer.close()


async def test_a_kernel_that_cannot_give(open_way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken already is lost with this answer, which fails; the next ones are copied."""
    splice = os.splice

    def take_only(source: int, target: int, count: int, **more: Any) -> int:
        if stat.S_ISFIFO(os.fstat(source).st_mode):
            raise OSError(errno.EINVAL, "not here")
        return splice(source, target, count, **more)

    splicer = Splicer(is_plain=True)
    way = await open_way(send_all)
    monkeypatch.setattr(splicing.os, "splice", take_only)
    with pytest.raises(OSError, match="not here"):
        await splicer.move(way.source, way.client, SIZE_BYTES, SILENCE_SECONDS)
    assert not splicer.is_possible
    splicer.close()


async def test_a_kernel_that_cannot(open_way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is moved, nothing is lost, and it is not asked again."""

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EINVAL, "not here")

    splicer = Splicer(is_plain=True)
    way = await open_way(send_all)
    with monkeypatch.context() as patched:
        patched.setattr(splicing.os, "splice", refuse)
        assert await splicer.move(way.source, way.client, SIZE_BYTES, SILENCE_SECONDS) == 0
    assert not splicer.is_possible
    splicer.close()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))
