"""The body of a browser's POST form: its fields before the file are read and may be replaced; the file streams through.

Knows multipart/form-data as far as S3's forms need it: fields, then the file, then whatever. Nothing behind the file
counts, and nothing of it goes on: all that a storage could read otherwise than it was read here is written anew.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from gateway.s3.errors import S3Error
from gateway.s3.policy import Field

MAX_FIELDS_BYTES = 20 << 10  # S3's bound on all that comes before the file
_SLACK_BYTES = 12 << 10  # for boundaries and headers of parts

_MEDIA_TYPE = re.compile(
    rb"""multipart/form-data((?:\s*;\s*[\w-]+=(?:"[^"\\;\r\n]*"|[^\s;,"]+))*)\s*;?""", re.IGNORECASE
)
_BOUNDARY = re.compile(rb""";\s*boundary=(?:"([^"]+)"|([^\s;]+))""", re.IGNORECASE)
_BOUNDARY_CHARACTERS = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046
_TOKEN = re.compile(rb"[0-9A-Za-z'+_.-]+")
_NAME = re.compile(r"[0-9A-Za-z!#$&'*+.^_`|~:-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_PARAMETER = re.compile(r'(?:^|;)\s*(name|filename)="((?:[^"\\\r\n]|\\.)*)"', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FormHead:
    """What comes before the file's bytes. `rest`: bytes of the body that were read beyond it. `content_type`: what the
    file says of itself, or None."""

    boundary: bytes
    fields: tuple[Field, ...]
    filename: str
    content_type: str | None
    size_bytes: int
    rest: bytes


def read_boundary(content_type: bytes) -> bytes:
    """Raises S3Error MalformedPOSTRequest where there is none, or more than one could be meant."""
    whole = _MEDIA_TYPE.fullmatch(content_type)
    found = _BOUNDARY.findall(whole[1]) if whole is not None else []
    boundary = found[0][0] or found[0][1] if len(found) == 1 else b""
    if not _BOUNDARY_CHARACTERS.fullmatch(boundary):
        raise S3Error("MalformedPOSTRequest", "The Content-Type must name one boundary.")
    return boundary


def write_content_type(boundary: bytes) -> bytes:
    """The header of a form with that boundary."""
    return b"multipart/form-data; boundary=" + (boundary if _TOKEN.fullmatch(boundary) else b'"%s"' % boundary)


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
            name, filename, part_type = _read_part(lines)
            if name.lower() == "file":
                return FormHead(
                    boundary=boundary,
                    fields=tuple(fields),
                    filename=filename,
                    content_type=part_type,
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
    """The same form up to the file's first byte, with these fields. What the file is called is said in the key.
    Raises S3Error MalformedPOSTRequest."""
    mark = b"--" + head.boundary
    out = bytearray()
    for name, value in fields:
        encoded = value.encode("utf-8", "surrogateescape")
        if mark in encoded:
            raise S3Error("MalformedPOSTRequest")
        out += mark + b'\r\nContent-Disposition: form-data; name="' + name.encode("ascii") + b'"\r\n\r\n'
        out += encoded + b"\r\n"
    out += mark + b'\r\nContent-Disposition: form-data; name="file"'
    out += b'; filename="file"' if head.filename else b""
    if head.content_type is not None:
        out += b"\r\nContent-Type: " + head.content_type.encode("utf-8", "surrogateescape")
    return bytes(out + b"\r\n\r\n")


async def end_with_file(head: FormHead, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The file's bytes and the form's end, as many bytes as there were: blanks in place of what comes behind the file.
    Raises S3Error MalformedPOSTRequest where the boundary lies within the file."""
    mark = b"\r\n--" + head.boundary
    held = b""
    arriving = _chain(head.rest, pieces)
    async for piece in arriving:
        held += piece
        end = held.find(mark)
        if end < 0:
            end = max(0, len(held) - len(mark) + 1)  # before what may be the beginning of the boundary
            yield held[:end]
            held = held[end:]
        elif len(held) >= end + len(mark) + 2:
            behind = end + len(mark)
            if not held.startswith((b"--", b"\r\n"), behind):
                raise S3Error("MalformedPOSTRequest", "The boundary lies within the file.")
            yield held[:behind]
            held, ending = held[behind:], b"--\r\n"
            async for rest in _chain(held, arriving):
                yield ending[: len(rest)].ljust(len(rest))
                ending = ending[len(rest) :]
            return
    yield held


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _read_part(lines: bytes) -> tuple[str, str, str | None]:
    """Name, name of the file, and Content-Type of a part."""
    headers: dict[str, str] = {}
    blank, *stated = _decode(lines).split("\r\n")
    if blank.strip(" \t"):
        raise S3Error("MalformedPOSTRequest")
    for line in stated:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        if name in headers or not _HEADER_VALUE.fullmatch(line):  # parsers differ in which of two they take
            raise S3Error("MalformedPOSTRequest")
        headers[name] = value.strip()
    matches = [*_PARAMETER.finditer(headers.get("content-disposition", ""))]
    found = {match[1].lower(): _unquote(match[2]) for match in matches}
    if len(found) != len(matches) or not _NAME.fullmatch(found.get("name", "")):
        raise S3Error("MalformedPOSTRequest")
    return found["name"], found.get("filename", ""), headers.get("content-type")


def _unquote(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text)


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
