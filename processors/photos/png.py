"""Walks a PNG's chunks: size, eXIf, profile size, and whether it ends.

An eXIf chunk may stand after the pixels, so a head without one is Incomplete rather than a photo without
EXIF.
"""

from __future__ import annotations

from typing import Final

from processors.photos.formats import Format, rejection
from processors.photos.headers import Header, bare_exif
from processors.photos.window import Window

_MAX_CHUNKS: Final = 100_000


def read(window: Window, found: Format, max_exif_bytes: int) -> Header:
    """The header, after a walk over all chunks up to eXIf (on a head) or the end. Raises as read_header
    does.
    """
    if window.read(8, 8) != b"\0\0\0\x0dIHDR":
        raise rejection("malformed")
    width, height = window.number(16, 4), window.number(20, 4)
    icc_bytes = exif_bytes = 0
    exif: bytes | None = None
    position = 8
    for _ in range(_MAX_CHUNKS):
        size, kind = window.number(position, 4), window.read(position + 4, 4)
        if size > 0x7FFFFFFF:
            raise rejection("malformed")
        if kind == b"iCCP":
            icc_bytes = size
        elif kind == b"eXIf" and exif is None:
            exif_bytes = size
            exif = bare_exif(window.read(position + 8, size)) if size <= max_exif_bytes else b""
        if kind == b"IEND" or (exif is not None and not window.complete):
            return Header(
                format=found,
                width_px=width,
                height_px=height,
                exif=exif or None,
                exif_bytes=exif_bytes,
                icc_bytes=icc_bytes,
            )
        position += 12 + size
    raise rejection("too_many_parts")
