"""Bytes that the kernel moves from one socket to another, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.door import splicing
from gateway.door.splicing import SourceBroken, splice

SIZE_BYTES = 3_000_001


@dataclass(frozen=True, kw_only=True)
class Line:
    """A storage, the two sockets of ours, and a client: what the storage sends is spliced to the client."""

    storage: socket.socket
    source: asyncio.Transport
    target: asyncio.Transport
    client: socket.socket

    async def splice(self, length: int = SIZE_BYTES, *, silence_seconds: float = 20) -> int:
        return await splice(
            self.source, self.target, length, silence_seconds=silence_seconds, expecting=contextlib.nullcontext
        )


async def connect() -> tuple[socket.socket, asyncio.Transport]:
    """A socket, and a transport of the event loop's at its other end."""
    theirs, ours = await asyncio.to_thread(make_pair)
    theirs.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    return theirs, transport


def make_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return theirs, ours


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    storage, source = await connect()
    client, target = await connect()
    source.pause_reading()
    yield Line(storage=storage, source=source, target=target, client=client)
    for item in (storage, source, target, client):
        item.close()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No descriptor stays open, no transfer counts as under way."""
    yield
    assert splicing._State.in_use == 0


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def send(line: Line, data: bytes, *, pause: Callable[[], float] = lambda: 0) -> None:
    loop, left = asyncio.get_running_loop(), memoryview(data)
    while left:
        size_bytes = random.choice((1, 100, 70_000, 300_000))
        await loop.sock_sendall(line.storage, left[:size_bytes])
        left = left[size_bytes:]
        await asyncio.sleep(pause())


async def receive(line: Line, size_bytes: int, *, at_most: int = 1 << 20) -> bytes:
    loop, found = asyncio.get_running_loop(), bytearray()
    while len(found) < size_bytes:
        piece = await loop.sock_recv(line.client, min(at_most, size_bytes - len(found)))
        assert piece
        found += piece
    return bytes(found)


@pytest.mark.parametrize("at_most", [4_000, 1 << 20], ids=["slow client", "fast client"])
async def test_every_byte_arrives_once_and_in_order(line: Line, at_most: int) -> None:
    """In pieces of any size; what follows in the source stays there, and the source goes on as before."""
    data, before = os.urandom(SIZE_BYTES), open_files()
    sending = asyncio.create_task(send(line, data + b"next"))
    receiving = asyncio.create_task(receive(line, SIZE_BYTES, at_most=at_most))
    assert await line.splice() == SIZE_BYTES
    assert await receiving == data
    await sending
    assert open_files() == before
    plain = line.source.get_extra_info("socket")
    assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
    assert os.read(plain.fileno(), 10) == b"next"


async def test_little_is_passed_on_before_more_comes(line: Line) -> None:
    """A storage that sends less than a wait is worth, and then nothing for a while: the client has it meanwhile."""
    moving = asyncio.create_task(line.splice(200_000))
    await asyncio.get_running_loop().sock_sendall(line.storage, b"a" * 10)
    assert await receive(line, 10) == b"a" * 10
    assert not moving.done()
    await asyncio.get_running_loop().sock_sendall(line.storage, b"b" * 199_990)
    assert await receive(line, 199_990) == b"b" * 199_990
    assert await moving == 200_000


async def test_a_storage_that_ends_or_falls_silent_is_told(line: Line) -> None:
    """The first by SourceBroken, the second by TimeoutError after its time; what had come is with the client."""
    await asyncio.get_running_loop().sock_sendall(line.storage, b"a" * 1000)
    with pytest.raises(TimeoutError):
        await line.splice(silence_seconds=0.2)
    assert await receive(line, 1000) == b"a" * 1000
    line.storage.close()
    with pytest.raises(SourceBroken):
        await line.splice()


async def test_a_client_that_goes_ends_it(line: Line) -> None:
    """With an error of the operating system's, whether it was waited for or not."""
    sending = asyncio.create_task(send(line, bytes(8 << 20)))
    moving = asyncio.create_task(line.splice(8 << 20))
    await receive(line, 1 << 20)
    line.client.close()
    with pytest.raises((ConnectionError, SourceBroken)):
        await asyncio.wait_for(moving, 10)
    sending.cancel()


async def test_a_client_that_is_cut_off_by_others_ends_it(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches clients that take nothing closes the transport; that is noticed although the socket lives on."""
    monkeypatch.setattr(splicing, "_LOOK_SECONDS", 0.05)
    expected = asyncio.Event()

    @contextlib.contextmanager
    def expecting() -> Iterator[None]:
        expected.set()
        yield

    sending = asyncio.create_task(send(line, bytes(32 << 20)))
    moving = asyncio.create_task(
        splice(line.source, line.target, 32 << 20, silence_seconds=20, expecting=expecting)  # nobody receives
    )
    await asyncio.wait_for(expected.wait(), 20)
    line.target.abort()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(moving, 10)
    sending.cancel()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
async def test_where_the_kernel_cannot_nothing_is_lost(
    line: Line, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It says that it moved nothing, and does not try again."""

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(splicing._State, "is_possible", True)
    monkeypatch.setattr(os, "splice", refuse)
    assert await line.splice() == 0
    assert splicing._State.is_possible is False


async def test_only_so_many_at_a_time_and_none_without_descriptors(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are copied: nobody waits for a pipe."""
    with monkeypatch.context() as patch:
        patch.setattr(splicing._State, "in_use", splicing._PIPES)
        assert await line.splice() == 0

    def refuse(_: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    before = open_files()
    assert await line.splice() == 0
    assert open_files() == before
