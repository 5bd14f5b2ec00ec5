"""Walks a WebP's RIFF chunks: canvas size, EXIF, profile size, frames, and whether the file is
as long as it says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from processors.contract import Limits
from processors.photos.formats import Format, rejection
from processors.photos.headers import Header, bare_exif
from processors.photos.window import Window

_MAX_CHUNKS: Final = 100_000
_HAS_EXIF: Final = 0x08


def read(window: Window, found: Format, limits: Limits) -> Header:
    """The header. EXIF comes last in a WebP: a head is enough only where the flags deny any. Raises as
    read_header.
    """
    end = 8 + window.number(4, 4, "little")
    if end > window.end:
        raise rejection("truncated")
    first = window.read(12, 4)
    width, height = _size(window, first)
    header = Header(format=found, width_px=width, height_px=height)
    if first == b"VP8X" and (window.complete or window.number(20, 1) & _HAS_EXIF):
        return _walk(window, header, end, limits)
    return header


def _size(window: Window, first: bytes) -> tuple[int, int]:
    if first == b"VP8X":
        return window.number(24, 3, "little") + 1, window.number(27, 3, "little") + 1
    if first == b"VP8L":
        bits = window.number(21, 4, "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if first == b"VP8 " and window.read(23, 3) == b"\x9d\x01\x2a":
        return window.number(26, 2, "little") & 0x3FFF, window.number(28, 2, "little") & 0x3FFF
    raise rejection("malformed")


def _walk(window: Window, header: Header, end: int, limits: Limits) -> Header:
    """The header with what the chunks say: up to EXIF on a head, to the end of the whole file."""
    exif: bytes | None = None
    exif_bytes = icc_bytes = frames = 0
    position = 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > end or frames > limits.max_frames or (exif_bytes and not window.complete):
            return replace(header, exif=exif, exif_bytes=exif_bytes, icc_bytes=icc_bytes, frames=max(1, frames))
        kind, size = window.read(position, 4), window.number(position + 4, 4, "little")
        if kind == b"ICCP":
            icc_bytes = size
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF" and not exif_bytes:
            exif_bytes = size
            exif = bare_exif(window.read(position + 8, size)) if size <= limits.max_exif_bytes else None
        position += 8 + size + (size & 1)
    raise rejection("too_many_parts")
