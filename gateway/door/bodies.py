"""A client's body on its way to the storage: awaited against a clock, unframed, proven, its last piece held back.

What arrives at a time is at most some 256 KB: hashing that takes 0.2 ms, less than a thread costs to be handed it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import aiohttp
from aiohttp import web
from aiohttp.http import HttpProcessingError

from gateway.s3.checksums import Check, read_checks, verify_all
from gateway.s3.chunked import MAX_OBJECT_BYTES, Decoder, read_decoded_length
from gateway.s3.errors import S3Error
from gateway.s3.identity import Verified
from gateway.s3.request import RawRequest
from gateway.settings import GatewaySettings
from storage import failpoints

_GRACE_SECONDS = 10.0  # before the minimum rate is asked for


class Proof(Protocol):
    """Takes a body piece by piece and gives out what may go on. Raises S3Error where the body is false."""

    def feed(self, data: bytes) -> list[bytes]: ...

    def finish(self) -> list[bytes]: ...


class PlainProof:
    """A body without framing: its length, where it is known beforehand, and its checksums."""

    def __init__(self, length: int | None, checks: Sequence[Check]) -> None:
        self._missing = length
        self._checks = checks
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        for check in self._checks:
            check.update(data)
        if self._missing is not None:
            self._missing -= len(data)
        earlier, self._held = self._held, data
        return [earlier] if earlier else []

    def finish(self) -> list[bytes]:
        if self._missing:
            raise S3Error("IncompleteBody")
        verify_all(self._checks)
        return [self._held] if self._held else []


def read_length(request: RawRequest, verified: Verified | None) -> int | None:
    """Bytes of the object in the body; None where HTTP's chunks will tell. Raises S3Error MissingContentLength,
    InvalidArgument, EntityTooLarge, NotImplemented."""
    coding = request.header(b"transfer-encoding")
    if coding is not None and coding.lower() != b"chunked":
        raise S3Error("NotImplemented", "The Transfer-Encoding may be nothing but chunked.")
    if verified is not None and verified.payload_mode.is_chunked:
        return read_decoded_length(request)
    text = request.header(b"content-length")
    if text is None:
        return 0 if coding is None else None
    if not text.isdigit() or len(text) > 15 or int(text) > MAX_OBJECT_BYTES:
        raise S3Error("EntityTooLarge")
    return int(text)


def make_proof(
    request: RawRequest, verified: Verified | None, length: int | None, *, checksums_of_body: bool = True
) -> Proof:
    """What the body must be. `checksums_of_body`: the checksum headers speak of it. Raises S3Error."""
    mode = verified.payload_mode if verified is not None else None
    checks = read_checks(
        request,
        payload_sha256=verified.payload_sha256 if verified is not None else None,
        has_trailer=mode is not None and mode.has_trailer,
        of_body=checksums_of_body,
    )
    if mode is not None and mode.is_chunked:
        assert verified is not None
        assert length is not None
        return Decoder(verified, decoded_length=length, checks=checks)
    return PlainProof(length, checks)


class Arrivals:
    """The raw body of a request as it arrives. 100-continue is sent when it is first asked for: until then the client
    may wait for that leave."""

    def __init__(self, request: web.BaseRequest, settings: GatewaySettings) -> None:
        self._request = request
        self._settings = settings
        self.waits_for_leave = request.headers.get("Expect", "").lower() == "100-continue"

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises S3Error RequestTimeout, IncompleteBody."""
        if self.waits_for_leave:
            self.waits_for_leave = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0
        content = self._request.content
        waited_seconds, size_bytes = 0.0, 0
        while True:
            asked_at = time.monotonic()
            try:
                async with asyncio.timeout(self._settings.chunk_timeout_seconds):
                    piece = await content.readany()
            except TimeoutError:
                raise S3Error("RequestTimeout") from None
            except (aiohttp.ClientError, HttpProcessingError, OSError):
                raise S3Error("IncompleteBody") from None
            if not piece:
                return
            # Only what the client takes counts against it, not what the storage does.
            waited_seconds += time.monotonic() - asked_at
            size_bytes += len(piece)
            if waited_seconds > _GRACE_SECONDS and size_bytes < waited_seconds * self._settings.min_bytes_per_second:
                raise S3Error("RequestTimeout")
            yield piece


class Passage:
    """The proven body of one request. `head`: its first bytes, as far as they have passed; `size_bytes`: how many
    have."""

    def __init__(self, arrivals: Arrivals, proof: Proof, *, head_bytes: int) -> None:
        self._arrivals = arrivals.pieces()
        self._proof = proof
        self._head_bytes = head_bytes
        self.head = b""
        self.size_bytes = 0

    async def begun(self) -> AsyncIterator[bytes]:
        """All pieces, the first of them at hand: the storage need not hear of a request whose body never begins, or is
        false and short. Raises S3Error."""
        pieces = self.pieces()
        return _chain(await anext(pieces, b""), pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        """What may go to the storage; the last piece only once all of it is proven. Raises S3Error."""
        async for data in self._arrivals:
            for piece in self._seen(self._proof.feed(data)):
                yield piece
        await failpoints.reach("door.before_last_piece")
        for piece in self._seen(self._proof.finish()):
            yield piece

    def _seen(self, pieces: list[bytes]) -> list[bytes]:
        self.size_bytes += sum(map(len, pieces))
        if len(self.head) < self._head_bytes:
            self.head = b"".join([self.head, *(piece[: self._head_bytes] for piece in pieces)])[: self._head_bytes]
        return pieces

    async def read(self, limit: int) -> bytes:
        """All of it, proven. Raises S3Error MalformedXML where it is longer than that."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > limit:
                raise S3Error("MalformedXML", "The body is too long.")
        return bytes(body)


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
