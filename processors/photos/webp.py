"""Walks a WebP's RIFF chunks: canvas size, EXIF, profile size, and whether the file is as long as it says."""

from __future__ import annotations

from typing import Final

from processors.photos.formats import Format, rejection
from processors.photos.headers import Header, bare_exif
from processors.photos.window import Window

_MAX_CHUNKS: Final = 100_000
_HAS_EXIF: Final = 0x08


def read(window: Window, found: Format, max_exif_bytes: int) -> Header:
    """The header. EXIF comes last in a WebP: a head is enough only where the flags deny any. Raises as
    read_header.
    """
    end = 8 + window.number(4, 4, "little")
    if end > window.end:
        raise rejection("truncated")
    first = window.read(12, 4)
    width, height = _size(window, first)
    extended = first == b"VP8X"
    wants_exif = extended and (window.complete or bool(window.number(20, 1) & _HAS_EXIF))
    exif, exif_bytes, icc_bytes = _metadata(window, end, max_exif_bytes) if wants_exif else (None, 0, 0)
    return Header(
        format=found,
        width_px=width,
        height_px=height,
        exif=exif,
        exif_bytes=exif_bytes,
        icc_bytes=icc_bytes,
    )


def _size(window: Window, first: bytes) -> tuple[int, int]:
    if first == b"VP8X":
        return window.number(24, 3, "little") + 1, window.number(27, 3, "little") + 1
    if first == b"VP8L":
        bits = window.number(21, 4, "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if first == b"VP8 " and window.read(23, 3) == b"\x9d\x01\x2a":
        return window.number(26, 2, "little") & 0x3FFF, window.number(28, 2, "little") & 0x3FFF
    raise rejection("malformed")


def _metadata(window: Window, end: int, max_exif_bytes: int) -> tuple[bytes | None, int, int]:
    icc_bytes, position = 0, 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > end:
            return None, 0, icc_bytes
        kind, size = window.read(position, 4), window.number(position + 4, 4, "little")
        if kind == b"ICCP":
            icc_bytes = size
        if kind == b"EXIF":
            block = bare_exif(window.read(position + 8, size)) if size <= max_exif_bytes else None
            return block, size, icc_bytes
        position += 8 + size + (size & 1)
    raise rejection("too_many_parts")
