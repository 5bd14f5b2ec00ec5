"""Walks a JPEG's markers: size, EXIF, profile size, number of scans, and whether it ends.

Pure Python over markers only; entropy-coded data is skipped by one regular expression at C speed.
"""

from __future__ import annotations

import re
from typing import Final

from processors.contract import Limits
from processors.photos.formats import Format, rejection
from processors.photos.headers import Header
from processors.photos.window import Window

_MAX_SEGMENTS: Final = 20_000
# Not stuffing (00), not a restart (D0-D7). One FF: with FF+ a run of fill bytes that ends otherwise is read anew from
# each of its bytes.
_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_SOF_DECODABLE: Final = (0xC0, 0xC1, 0xC2)
_SOF_OTHER: Final = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_SOI, _EOI, _SOS, _APP1, _APP2, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0x01
_EXIF: Final = b"Exif\0\0"
_ICC: Final = b"ICC_PROFILE\0"


def read(window: Window, found: Format, limits: Limits) -> Header:
    """The header, from the start of the file to its first scan. Raises as headers.read_header does."""
    width = height = icc_bytes = exif_bytes = 0
    exif: bytes | None = None
    for marker, offset, size in _segments(window):
        if marker == _APP1 and exif is None and size > 6 and window.read(offset, 6) == _EXIF:
            exif_bytes = size - 6
            exif = window.read(offset + 6, exif_bytes) if exif_bytes <= limits.max_exif_bytes else b""
        elif marker == _APP2 and size > 14 and window.read(offset, 12) == _ICC:
            icc_bytes += size - 14
        elif marker in _SOF_OTHER:
            raise rejection("unsupported_format", "It is a lossless or arithmetic-coded JPEG.")
        elif marker in _SOF_DECODABLE:
            height, width = window.number(offset + 1, 2), window.number(offset + 3, 2)
        elif marker == _SOS:
            break
    return Header(
        format=found,
        width_px=width,
        height_px=height,
        exif=exif or None,
        exif_bytes=exif_bytes,
        icc_bytes=icc_bytes,
    )


def count_scans(window: Window, limit: int) -> int:
    """How many scans the whole file has. Raises Unprocessable `too_many_scans`, and `truncated` if it has
    no end.
    """
    scans, position = 0, 2
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.search(window.view, position)
        if match is None:
            raise rejection("truncated")
        marker, position = match[1][0], match.end()
        if marker == _EOI:
            return scans
        if marker in (_SOI, _TEM):
            continue
        if marker == _SOS:
            scans += 1
            if scans > limit:
                raise rejection("too_many_scans", f"{limit} are allowed.")
        position += max(2, window.number(position, 2))
    raise rejection("too_many_parts")


def _segments(window: Window) -> list[tuple[int, int, int]]:
    """(marker, offset of its payload, size of its payload) up to and including the first scan's header."""
    found: list[tuple[int, int, int]] = []
    position = 2
    for _ in range(_MAX_SEGMENTS):
        if window.number(position, 1) != 0xFF:
            raise rejection("malformed")
        marker = window.number(position + 1, 1)
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in (0x00, _SOI, _EOI):
            raise rejection("malformed")
        if marker == _TEM or 0xD0 <= marker <= 0xD7:
            position += 2
            continue
        size = window.number(position + 2, 2)
        if size < 2:
            raise rejection("malformed")
        found.append((marker, position + 4, size - 2))
        if marker == _SOS:
            return found
        position += 2 + size
    raise rejection("too_many_parts")
