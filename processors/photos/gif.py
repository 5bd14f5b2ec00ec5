"""Reads a GIF's screen size. A GIF has no EXIF and no profile; only its first frame is ever decoded."""

from __future__ import annotations

from processors.photos.formats import Format
from processors.photos.headers import Header
from processors.photos.window import Window


def read(window: Window, found: Format, max_exif_bytes: int) -> Header:
    """The header. Raises as headers.read_header does."""
    del max_exif_bytes  # no GIF has any
    return Header(format=found, width_px=window.number(6, 2, "little"), height_px=window.number(8, 2, "little"))
