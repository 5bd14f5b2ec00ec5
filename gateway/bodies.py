"""Reading what a client sends: in pieces, against a size cap and a clock, its first bytes looked at before any is
stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from aiohttp import web

from gateway.context import Context
from gateway.errors import Problem
from gateway.settings import GatewaySettings
from processors.contract import Unprocessable
from processors.photos import formats
from processors.photos.formats import Format
from storage import failpoints

_PIECE_BYTES = 256 << 10
_GRACE_SECONDS = 10.0  # before the minimum rate is asked for


T = TypeVar("T")
Read = Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, kw_only=True)
class PhotoBody:
    """A body that begins like a photo."""

    format: Format
    pieces: AsyncIterator[bytes]


async def open_photo(read: Read, context: Context) -> PhotoBody:
    """Look at the first bytes. `read` gives at most so many bytes, b"" at the end. Raises Problem not_an_image,
    unsupported_format, empty; and while the pieces are read too_large, body_timeout, body_cut_short."""
    guarded = _Guarded(read, context)
    head = b""
    # Only so much is taken before the storage is ready: the rest waits in the socket, and the client with it.
    while len(head) < formats.SNIFF_BYTES and (piece := await guarded.read(formats.SNIFF_BYTES - len(head))):
        head += piece
    try:
        found = formats.recognise(head)
    except Unprocessable as error:
        accepted = ", ".join(item.name.upper() for item in formats.FORMATS)
        raise Problem(error.code, f"Nothing was stored. Accepted are {accepted}.") from None
    return PhotoBody(format=found, pieces=guarded.pieces(head))


async def drain(read: Read, context: Context) -> None:
    """Pass over what is left of a body, within the limits of a photo."""
    guarded = _Guarded(read, context)
    while await guarded.read(_PIECE_BYTES):
        pass


async def in_time(arriving: Awaitable[T], seconds: float) -> T:
    """What the client is about to send. aiohttp itself waits for it without end. Raises Problem body_timeout,
    body_cut_short."""
    try:
        async with asyncio.timeout(seconds):
            return await arriving
    except TimeoutError:
        raise _too_slow() from None
    except (aiohttp.ClientError, ConnectionError, web.RequestPayloadError):
        raise Problem("body_cut_short", "Nothing was stored. Send it again.") from None


def check_encoding(request: web.Request) -> None:
    """Refuse a compressed body: it could be a bomb."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("encoding_not_supported", "Send the photo as it is, without Content-Encoding.")


def check_length(request: web.Request, settings: GatewaySettings) -> None:
    """Refuse what says itself that it is too long or compressed, before any of it is read."""
    check_encoding(request)
    if request.content_length is not None and request.content_length > settings.max_upload_bytes:
        raise _too_large(settings)


class _Guarded:
    """A body of which no piece may come too late, nor the whole too slowly, nor be too large."""

    def __init__(self, read: Read, context: Context) -> None:
        self._read = read
        self._settings = context.settings
        self._memory = context.memory
        self._size_bytes = 0
        self._waited_seconds = 0.0  # the client's time alone, not the storage's

    async def read(self, size_bytes: int) -> bytes:
        """At most so many bytes, b"" at the end."""
        settings, asked_at = self._settings, time.monotonic()
        piece = await in_time(self._read(size_bytes), settings.chunk_timeout_seconds)
        self._waited_seconds += time.monotonic() - asked_at
        self._size_bytes += len(piece)
        if self._size_bytes > settings.max_upload_bytes:
            raise _too_large(settings)
        # A slow client may take its time, but not while it holds memory that others wait for.
        rate = settings.min_bytes_per_second_crowded if self._memory.waiting else settings.min_bytes_per_second
        if piece and self._waited_seconds > _GRACE_SECONDS and self._size_bytes < rate * self._waited_seconds:
            raise _too_slow()
        return piece

    async def pieces(self, head: bytes) -> AsyncIterator[bytes]:
        """Everything: what was read before, then the rest."""
        piece = head
        await failpoints.reach("body.first_chunk")
        while piece:
            yield piece
            piece = await self.read(_PIECE_BYTES)
            await failpoints.reach("body.middle")


def _too_large(settings: GatewaySettings) -> Problem:
    return Problem(
        "too_large",
        f"Nothing was stored. At most {settings.max_upload_bytes} bytes are taken (SAFELIGHT_MAX_UPLOAD_BYTES).",
        max_bytes=settings.max_upload_bytes,
    )


def _too_slow() -> Problem:
    return Problem("body_timeout", "Nothing was stored. Send it again over a faster connection.")
