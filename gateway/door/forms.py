"""The body of a browser's POST form: its fields before the file are read and may be replaced; the file streams through.

Knows multipart/form-data as far as S3's forms need it: fields, then the file, then whatever; nothing behind the file
counts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from gateway.s3.errors import S3Error
from gateway.s3.policy import Field

MAX_FIELDS_BYTES = 20 << 10  # S3's bound on all that comes before the file
_SLACK_BYTES = 12 << 10  # for boundaries and headers of parts

_BOUNDARY = re.compile(rb"""boundary=(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))""", re.IGNORECASE)
_PARAMETER = re.compile(r'(?:^|;)\s*(name|filename)="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FormHead:
    """What comes before the file's bytes. `rest`: bytes of the body that were read beyond it. `part_headers`: the
    file's own header lines, as they came."""

    boundary: bytes
    fields: tuple[Field, ...]
    filename: str
    part_headers: bytes
    size_bytes: int
    rest: bytes


def read_boundary(content_type: bytes) -> bytes:
    """Raises S3Error MalformedPOSTRequest where there is none."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise S3Error("MalformedPOSTRequest")
    return match[1] or match[2]


async def read_head(pieces: AsyncIterator[bytes], boundary: bytes) -> FormHead:
    """Read up to the file's first byte. Raises S3Error MalformedPOSTRequest, InvalidArgument, EntityTooLarge."""
    buffer = bytearray(b"\r\n")  # so that the first boundary looks like the others
    mark = b"\r\n--" + boundary
    fields: list[Field] = []
    position = fields_bytes = 0
    while True:
        end = buffer.find(b"\r\n\r\n", position)
        part_end = buffer.find(mark, end + 4) if end >= 0 else -1
        if end >= 0:
            if not buffer.startswith(mark, position):
                raise S3Error("MalformedPOSTRequest")
            lines = bytes(buffer[position + len(mark) : end])
            name, filename = _read_part(lines)
            if name.lower() == "file":
                return FormHead(
                    boundary=boundary,
                    fields=tuple(fields),
                    filename=filename,
                    part_headers=lines.lstrip(b" \t").removeprefix(b"\r\n"),
                    size_bytes=end + 4 - 2,
                    rest=bytes(buffer[end + 4 :]),
                )
            if part_end >= 0:
                fields.append((name, _decode(bytes(buffer[end + 4 : part_end]))))
                fields_bytes += len(name) + part_end - end
                if fields_bytes > MAX_FIELDS_BYTES:
                    raise S3Error("MalformedPOSTRequest", "The fields before the file are too long.")
                position = part_end
                continue
        if position and buffer.startswith(mark + b"--", position):
            raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.")
        if len(buffer) > MAX_FIELDS_BYTES + _SLACK_BYTES:
            raise S3Error("MalformedPOSTRequest", "The fields before the file are too long.")
        piece = await anext(pieces, b"")
        if not piece:
            raise S3Error("MalformedPOSTRequest")
        buffer += piece


def write_head(head: FormHead, fields: Iterable[Field]) -> bytes:
    """The same form up to the file's first byte, with these fields. Raises S3Error MalformedPOSTRequest."""
    mark = b"--" + head.boundary
    out = bytearray()
    for name, value in fields:
        encoded = value.encode("utf-8", "surrogateescape")
        if mark in encoded:
            raise S3Error("MalformedPOSTRequest")
        quoted = name.encode("utf-8", "surrogateescape").replace(b'"', b'\\"')
        out += mark + b'\r\nContent-Disposition: form-data; name="' + quoted + b'"\r\n\r\n' + encoded + b"\r\n"
    return bytes(out + mark + b"\r\n" + head.part_headers + b"\r\n\r\n")


def _read_part(lines: bytes) -> tuple[str, str]:
    for line in _decode(lines).split("\r\n"):
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            found = {match[1].lower(): _unquote(match[2]) for match in _PARAMETER.finditer(value)}
            if "name" in found:
                return found["name"], found.get("filename", "")
    raise S3Error("MalformedPOSTRequest")


def _unquote(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text)


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
