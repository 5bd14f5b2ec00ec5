"""The files of a form, one after the other. What else it holds (text fields, headers, lines before the first boundary)
is passed over, bounded in size, in number and in time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http import HttpProcessingError

from gateway import bodies
from gateway.context import Context
from gateway.errors import Problem

_PIECE_BYTES = 8 << 10
_FIELD_BYTES = 64 << 10
_FIELDS_BYTES = 256 << 10
_FIELDS = 100


async def files(request: web.Request, context: Context) -> AsyncIterator[BodyPartReader]:
    """The files, each to be read before the next is asked for. Raises Problem invalid_form, too_many_files,
    body_timeout, body_cut_short."""
    settings, count = context.settings, 0
    try:
        form = _Form(await request.multipart(), settings.chunk_timeout_seconds)
        # Each wait within has its own limit; this one is for a client that keeps all of them, piece by piece.
        while (part := await bodies.in_time(form.next_file(), 3 * settings.chunk_timeout_seconds)) is not None:
            count += 1
            if count > settings.max_form_files:
                raise Problem("too_many_files", f"Send at most {settings.max_form_files} files at once.")
            yield part
            await bodies.drain(part_reader(part), context)
    except (ValueError, AssertionError, LookupError, RuntimeError, HttpProcessingError):
        raise Problem("invalid_form", "Its parts, headers or boundary are malformed.") from None


def part_reader(part: BodyPartReader) -> bodies.Read:
    """Reads a file of a form. aiohttp wants room for a boundary, so a piece may be larger than asked for."""

    async def read(size_bytes: int) -> bytes:
        piece = bytes(await part.read_chunk(max(size_bytes, _PIECE_BYTES)))
        if not piece and not part.at_eof():  # the body ended, but not with a boundary
            raise Problem("body_cut_short", "The form lacks its last boundary. Send it again.")
        return piece

    return read


class _Form:
    """The parts of one form, and how much of it was no file so far."""

    def __init__(self, reader: MultipartReader, chunk_timeout_seconds: float) -> None:
        self._reader = reader
        self._seconds = chunk_timeout_seconds
        self._fields = 0
        self._fields_bytes = 0

    async def next_file(self) -> BodyPartReader | None:
        while (part := await bodies.in_time(self._reader.next(), self._seconds)) is not None:
            if not isinstance(part, BodyPartReader):
                raise Problem("invalid_form", "Forms within forms are not read.")
            if part.filename is not None:
                return part
            await self._drain_field(part)
        return None

    async def _drain_field(self, part: BodyPartReader) -> None:
        self._fields += 1
        if self._fields > _FIELDS:
            raise Problem("invalid_form", f"At most {_FIELDS} of a form's fields may be no files.")
        size_bytes = 0
        while piece := await bodies.in_time(part.read_chunk(_PIECE_BYTES), self._seconds):
            size_bytes += len(piece)
            self._fields_bytes += len(piece)
            if size_bytes > _FIELD_BYTES or self._fields_bytes > _FIELDS_BYTES:
                raise Problem(
                    "invalid_form",
                    f"A field that is no file has at most {_FIELD_BYTES} bytes, all of them {_FIELDS_BYTES}.",
                )
