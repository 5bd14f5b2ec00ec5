"""Reading what a client sends: in pieces, against a size cap and a clock, its first bytes looked at before any is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import BodyPartReader, web

from gateway.errors import Problem
from gateway.settings import GatewaySettings
from processors.contract import Unprocessable
from processors.photos import formats
from processors.photos.formats import Format

_FIELD_BYTES = 64 << 10
_GRACE_SECONDS = 10.0  # before the minimum rate is asked for


@dataclass(frozen=True, kw_only=True)
class PhotoBody:
    """A body that begins like a photo."""

    format: Format
    pieces: AsyncIterator[bytes]


async def open_photo(read: Callable[[], Awaitable[bytes]], settings: GatewaySettings) -> PhotoBody:
    """Look at the first bytes. `read` gives the next piece, b"" at the end. Raises Problem not_an_image,
    unsupported_format, empty; and while the pieces are read too_large, body_timeout, body_cut_short."""
    pieces = _guarded(read, settings)
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) >= formats.SNIFF_BYTES:
            break
    try:
        found = formats.recognise(head)
    except Unprocessable as error:
        accepted = ", ".join(item.name.upper() for item in formats.FORMATS)
        raise Problem(error.code, f"Nothing was stored. Accepted are {accepted}.") from None
    return PhotoBody(format=found, pieces=_chain(head, pieces))


async def drain_field(part: BodyPartReader) -> None:
    """Pass over a form's field that is no file. Raises Problem invalid_form where it is long."""
    size_bytes = 0
    while piece := await part.read_chunk(_FIELD_BYTES):
        size_bytes += len(piece)
        if size_bytes > _FIELD_BYTES:
            raise Problem("invalid_form", f"A field that is no file has at most {_FIELD_BYTES} bytes.")


async def drain_rest(part: BodyPartReader, settings: GatewaySettings) -> None:
    """Pass over what is left of a file that was refused."""

    async def read() -> bytes:
        return bytes(await part.read_chunk(_FIELD_BYTES))

    async for _ in _guarded(read, settings):
        pass


def check_length(request: web.Request, settings: GatewaySettings) -> None:
    """Refuse what says itself that it is too long or compressed, before any of it is read."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("encoding_not_supported", "Send the photo as it is, without Content-Encoding.")
    if request.content_length is not None and request.content_length > settings.max_upload_bytes:
        raise _too_large(settings)


async def _guarded(read: Callable[[], Awaitable[bytes]], settings: GatewaySettings) -> AsyncIterator[bytes]:
    """Pieces, none of which may come too late, nor the whole too slowly, nor be too large."""
    size_bytes, waited_seconds = 0, 0.0
    while True:
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(settings.chunk_timeout_seconds):
                piece = await read()
        except TimeoutError:
            raise _too_slow() from None
        except (aiohttp.ClientError, ConnectionError, web.RequestPayloadError):
            raise Problem("body_cut_short", "Nothing was stored. Send it again.") from None
        waited_seconds += time.monotonic() - asked_at  # the client's time alone, not the storage's
        if not piece:
            return
        size_bytes += len(piece)
        if size_bytes > settings.max_upload_bytes:
            raise _too_large(settings)
        if waited_seconds > _GRACE_SECONDS and size_bytes < settings.min_bytes_per_second * waited_seconds:
            raise _too_slow()
        yield piece


async def _chain(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for piece in pieces:
        yield piece


def _too_large(settings: GatewaySettings) -> Problem:
    return Problem(
        "too_large",
        f"Nothing was stored. At most {settings.max_upload_bytes} bytes are taken; SAFELIGHT_MAX_UPLOAD_BYTES sets that.",
        max_bytes=settings.max_upload_bytes,
    )


def _too_slow() -> Problem:
    return Problem("body_timeout", "Nothing was stored. Send it again over a faster connection.")
