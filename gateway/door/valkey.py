"""Asks Redis or Valkey one thing at a time, over one connection. As much of its protocol as the rates need.

redis-py is not used here: each process of the door would grow by 5 MB, a fifteenth of all it holds. There are no
retries and no pool: whoever asks must be able to do without an answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

Reply = int | bytes | None | list["Reply"]


class ValkeyUnavailable(Exception):
    """It is down, out of reach, silent, or refuses."""


class Valkey:
    """The connection is opened when it is first asked, and again after every failure."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._url = urlsplit(url)
        self._timeout_seconds = timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def ask(self, *command: str | int) -> Reply:
        """The reply to a command. Raises ValkeyUnavailable."""
        try:
            async with asyncio.timeout(self._timeout_seconds), self._turn:
                try:
                    if self._streams is None:
                        self._streams = await self._connect()
                    return await _exchange(*self._streams, command)
                except BaseException:  # what was asked may be answered yet, to somebody else's question
                    self.close()
                    raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            raise ValkeyUnavailable(repr(error)) from error

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        streams = await _open(self._url)
        try:
            for command in _greeting(self._url):
                await _exchange(*streams, command)
        except BaseException:
            streams[1].transport.abort()
            raise
        return streams


async def _open(url: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.scheme == "unix":
        return await asyncio.open_unix_connection(unquote(url.path))
    context = None
    if url.scheme == "rediss":
        context = ssl.create_default_context(cafile=_parameter(url, "ssl_ca_certs") or None)
    return await asyncio.open_connection(url.hostname, url.port or 6379, ssl=context)


def _greeting(url: SplitResult) -> Iterable[tuple[str, ...]]:
    if url.password:
        user = (unquote(url.username),) if url.username else ()
        yield ("AUTH", *user, unquote(url.password))
    number = _parameter(url, "db") or (url.path.strip("/") if url.scheme != "unix" else "")
    if number not in ("", "0"):
        yield "SELECT", number


def _parameter(url: SplitResult, name: str) -> str:
    return parse_qs(url.query).get(name, [""])[0]


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: tuple[str | int, ...]
) -> Reply:
    parts = [str(part).encode("utf-8") for part in command]
    writer.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    return await _read(reader)


async def _read(reader: asyncio.StreamReader) -> Reply:
    """Raises ConnectionError where the server refuses, ValueError for what is no reply."""
    line = await reader.readuntil(b"\r\n")
    kind, text = line[:1], line[1:-2]
    match kind:
        case b"+":
            return text
        case b":":
            return int(text)
        case b"-":
            raise ConnectionError(text.decode("utf-8", "replace"))
        case b"$":
            return (await reader.readexactly(int(text) + 2))[:-2] if text != b"-1" else None
        case b"*":
            return [await _read(reader) for _ in range(int(text))]
    raise ValueError(line)
