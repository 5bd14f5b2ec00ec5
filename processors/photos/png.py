"""Walks a PNG's chunks: size, eXIf, sizes of profile and texts, stated frames, and whether it ends.

An eXIf chunk may stand after the pixels, so a head without one is Incomplete rather than a photo without
EXIF.
"""

from __future__ import annotations

from typing import Final

from processors.contract import Limits
from processors.photos.formats import Format, rejection
from processors.photos.headers import Header, bare_exif
from processors.photos.window import Window

_MAX_CHUNKS: Final = 100_000
_MAX_TEXTS: Final = 1_000
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")


def read(window: Window, found: Format, limits: Limits) -> Header:
    """The header, after a walk over all chunks up to eXIf (on a head) or the end. Raises as read_header
    does.
    """
    if window.read(8, 8) != b"\0\0\0\x0dIHDR":
        raise rejection("malformed")
    width, height = window.number(16, 4), window.number(20, 4)
    icc_bytes = exif_bytes = text_bytes = texts = 0
    frames = 1
    exif: bytes | None = None
    position = 8
    for _ in range(_MAX_CHUNKS):
        size, kind = window.number(position, 4), window.read(position + 4, 4)
        if size > 0x7FFFFFFF:
            raise rejection("malformed")
        if kind == b"iCCP":
            icc_bytes = size
        elif kind in _TEXTS:
            text_bytes, texts = text_bytes + size, texts + 1
            if texts > _MAX_TEXTS:
                break
        elif kind == b"acTL":
            frames = window.number(position + 8, 4)
        elif kind == b"eXIf" and exif is None:
            exif_bytes = size
            exif = bare_exif(window.read(position + 8, size)) if size <= limits.max_exif_bytes else b""
        if kind == b"IEND" or (exif is not None and not window.complete):
            return Header(
                format=found,
                width_px=width,
                height_px=height,
                exif=exif or None,
                exif_bytes=exif_bytes,
                icc_bytes=icc_bytes,
                text_bytes=text_bytes,
                frames=frames,
            )
        position += 12 + size
    raise rejection("too_many_parts")
