"""The storage behind the door: requests signed anew with its credentials and streamed over kept connections.

Promises that a request whose body fails underway reaches the storage cut short, never complete; and that a storage that
falls silent costs a request some seconds, not its whole timeout. Knows nothing of photos or hooks; errors of the
storage are answers, not exceptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import structlog

from gateway.door.connection import Connection, ConnectionBroken
from gateway.door.splicing import Splicer, Taker
from gateway.s3.request import Header, RawRequest
from gateway.s3.scope import Signer
from gateway.s3.signing import sign_request
from storage.pulse import ASK_SECONDS, Pulse
from storage.settings import StorageSettings

log = structlog.get_logger(__name__)

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

_REDIRECTS = frozenset({301, 302, 307, 308})
_KEPT_CONNECTIONS = 64
_KEPT_SECONDS = 15.0  # storages close idle connections after a minute or so

Body = bytes | AsyncIterator[bytes]


class BackendUnavailable(Exception):
    """The storage is down, out of reach, silent, broke the connection, or sends us elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A request to the storage. `path` and `query` in canonical encoding; `headers` without host, length and
    signature. `payload`: the body's sha256 in hexadecimal digits, or UNSIGNED-PAYLOAD."""

    method: str
    path: bytes
    query: bytes = b""
    headers: tuple[Header, ...] = ()
    body: Body = b""
    length: int | None = None  # bytes of the body where it is an iterator; None: sent in HTTP's chunks
    states_length: bool = True  # also where there is no body
    asks_leave: bool = False  # the body is sent only once the storage says that it wants it
    payload: str = EMPTY_SHA256


class Answer:
    """What the storage answered; its body has to be read inside of the exchange."""

    def __init__(self, connection: Connection, splicer: Splicer, silence_seconds: float) -> None:
        self._connection = connection
        self._splicer = splicer
        self._silence_seconds = silence_seconds
        self.status = connection.status
        self.headers = tuple(connection.headers)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises BackendUnavailable where it breaks off."""
        try:
            async for piece in self._connection.pieces(self._silence_seconds):
                yield piece
        except (ConnectionBroken, TimeoutError) as error:
            raise BackendUnavailable(repr(error)) from error

    async def pour(self, taker: Taker) -> None:
        """The body, as it comes, straight to that client. Raises BackendUnavailable where it breaks off, OSError where
        the client does."""
        try:
            await self._connection.pour(taker, self._splicer, self._silence_seconds)
        except (ConnectionBroken, TimeoutError) as error:
            raise BackendUnavailable(repr(error)) from error

    async def read(self, limit: int) -> bytes:
        """The body, if it is no longer than that many bytes. Raises BackendUnavailable where it is."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > limit:
                raise BackendUnavailable("the answer is too long")
        return bytes(body)


class Backend:
    """The connections of one process. Opened once; survives any outage of the storage."""

    def __init__(self, settings: StorageSettings) -> None:
        url = urlsplit(settings.s3_endpoint or f"https://s3.{settings.s3_region}.amazonaws.com")
        assert url.hostname is not None
        self._is_tls = url.scheme == "https"
        self._address = (url.hostname, url.port or (443 if self._is_tls else 80))
        self._tls = ssl.create_default_context() if self._is_tls else None
        self._settings = settings
        self._kept: list[Connection] = []
        self._splicer = Splicer(is_plain=not self._is_tls)
        self.base_url = f"{url.scheme}://{url.netloc}"
        self.host = url.netloc
        self.signer = Signer(
            access_key=settings.s3_access_key, secret_key=settings.s3_secret_key, region=settings.s3_region
        )
        self.down_since: float | None = None
        self._pulse = Pulse(self._answers)
        self._watching = asyncio.create_task(self._pulse.watch())

    def close(self) -> None:
        self._watching.cancel()
        while self._kept:
            self._kept.pop().abort()
        self._splicer.close()

    @contextlib.asynccontextmanager
    async def send(self, outgoing: Outgoing, signer: Signer | None) -> AsyncIterator[Answer]:
        """One exchange. `signer` None: the request stays anonymous. Raises BackendUnavailable, and whatever the body's
        iterator raises; the storage then stores nothing."""
        head = self._head(outgoing, signer)
        connection, is_whole = await self._exchange(outgoing, head)
        try:
            if connection.status in _REDIRECTS:
                log.error(
                    "storage.redirects",
                    message="The storage redirects. Set SAFELIGHT_S3_ENDPOINT and SAFELIGHT_S3_REGION to the bucket's.",
                    status=connection.status,
                )
                raise BackendUnavailable("the storage answers from elsewhere")
            yield Answer(connection, self._splicer, self._settings.s3_read_timeout_seconds)
        finally:
            if is_whole and connection.is_complete and connection.keeps_alive and connection.is_open:
                self._keep(connection)
            else:
                connection.abort()

    async def _exchange(self, outgoing: Outgoing, head: bytes) -> tuple[Connection, bool]:
        """Send, and wait for the answer's head. A kept connection that turns out to be closed is replaced once, where
        nothing of the body is spent."""
        for may_be_kept in (True, False):
            if self._pulse.silent:
                raise self._unavailable(TimeoutError("the storage is silent"))
            connection, was_kept = await self._connection(may_be_kept)
            try:
                connection.begin(has_body=outgoing.method != "HEAD")
                is_whole = await self._transmit(connection, head, outgoing)
                async with self._waiting():
                    await connection.wait_for_head()
            except ConnectionBroken as error:
                connection.abort()
                if was_kept and error.is_untouched and isinstance(outgoing.body, bytes):
                    continue
                raise self._unavailable(error) from error
            except TimeoutError as error:
                connection.abort()
                raise self._unavailable(error) from error
            except BaseException:
                connection.abort()
                raise
            self._back()
            return connection, is_whole
        raise BackendUnavailable("closed twice")

    async def _transmit(self, connection: Connection, head: bytes, outgoing: Outgoing) -> bool:
        """Send head and body. False where the storage answered before it had all of the body. Raises
        ConnectionBroken, unless an answer is there."""
        body = outgoing.body
        if isinstance(body, bytes):
            connection.write(head + body if body else head)
            return True
        try:
            if outgoing.asks_leave:
                connection.write(head)
                async with self._waiting():
                    await connection.wait_for_leave()
                if connection.has_head:
                    return False
                head = b""
            async for piece in body if outgoing.length is not None else _in_chunks(body):
                if connection.has_head:
                    return False
                connection.write(head + piece if head else piece)
                head = b""
                if connection.is_full:  # seldom: a clock for every piece would cost more than the piece
                    async with self._waiting():
                        await connection.wait_for_room()
        except ConnectionBroken:
            if connection.has_head:
                return False
            raise
        return True

    def _waiting(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Round what only the storage can end. Raises TimeoutError."""
        return self._pulse.calling(within_seconds=self._settings.s3_read_timeout_seconds)

    async def _answers(self) -> bool:
        """Whether the storage answers anything at all, on a connection of its own."""
        head = b"HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % self.host.encode("ascii")
        connection: Connection | None = None
        try:
            async with asyncio.timeout(ASK_SECONDS):
                connection = await self._open()
                connection.begin(has_body=False)
                connection.write(head)
                await connection.wait_for_head()
        except (OSError, ConnectionBroken, TimeoutError):
            return False
        finally:
            if connection is not None:
                connection.abort()
        return True

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, *self._address, ssl=self._tls)
        return connection

    async def _connection(self, may_be_kept: bool) -> tuple[Connection, bool]:
        oldest = time.monotonic() - _KEPT_SECONDS
        while may_be_kept and self._kept:
            connection = self._kept.pop()
            if connection.is_open and connection.idle_since > oldest:
                return connection, True
            connection.abort()
        try:
            async with asyncio.timeout(self._settings.s3_connect_timeout_seconds):
                connection = await self._open()
        except (OSError, TimeoutError) as error:
            raise self._unavailable(error) from error
        return connection, False

    def _keep(self, connection: Connection) -> None:
        if len(self._kept) >= _KEPT_CONNECTIONS:
            self._kept.pop(0).abort()
        connection.idle_since = time.monotonic()
        self._kept.append(connection)

    def _head(self, outgoing: Outgoing, signer: Signer | None) -> bytes:
        length = len(outgoing.body) if isinstance(outgoing.body, bytes) else outgoing.length
        headers = outgoing.headers
        if length is None:
            headers = (*headers, (b"Transfer-Encoding", b"chunked"))
        elif length or (outgoing.method in ("PUT", "POST") and outgoing.states_length):
            headers = (*headers, (b"Content-Length", str(length).encode("ascii")))
        if outgoing.asks_leave:
            headers = (*headers, (b"Expect", b"100-continue"))
        if signer is None:
            headers = ((b"Host", self.host.encode("ascii")), *headers)
        else:
            request = RawRequest(
                method=outgoing.method, path=outgoing.path, query=outgoing.query, headers=headers, host=self.host
            )
            headers = sign_request(request, signer, payload=outgoing.payload, now=datetime.now(UTC))
        target = outgoing.path + (b"?" + outgoing.query if outgoing.query else b"")
        lines = [b"%s %s HTTP/1.1" % (outgoing.method.encode("ascii"), target)]
        lines += [b"%s: %s" % header for header in headers]
        head = b"\r\n".join([*lines, b"", b""])
        if head.count(b"\r") + head.count(b"\n") != 2 * (len(lines) + 1) or b"\0" in head:
            raise ValueError("a line break in a request")
        return head

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        if self.down_since is None:
            self.down_since = time.time()
            log.warning(
                "dependency.down", message="The storage cannot be used.", dependency="storage", error=repr(error)
            )
        return BackendUnavailable(repr(error))

    def _back(self) -> None:
        if self.down_since is not None:
            log.info("dependency.up", message="The storage is back.", dependency="storage")
            self.down_since = None


async def _in_chunks(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """In HTTP's own framing, which ends only where the body has come to its end."""
    async for piece in body:
        if piece:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
