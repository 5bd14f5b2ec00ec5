"""Reads a GIF's screen size and counts its frames. A GIF has no EXIF and no profile; only its first frame is ever
decoded.
"""

from __future__ import annotations

from typing import Final

from processors.contract import Limits
from processors.photos.formats import Format, rejection
from processors.photos.headers import Header
from processors.photos.window import Window

_MAX_BLOCKS: Final = 4_000_000  # of up to 255 bytes: enough for 1 GB
_IMAGE, _EXTENSION = 0x2C, 0x21


def read(window: Window, found: Format, limits: Limits) -> Header:
    """The header. Raises as headers.read_header does."""
    return Header(
        format=found,
        width_px=window.number(6, 2, "little"),
        height_px=window.number(8, 2, "little"),
        frames=_count_frames(window, limits.max_frames),
    )


def _count_frames(window: Window, most: int) -> int:
    """The frames in the bytes at hand, or most + 1. Whether the file ends within one is for the decoder to say."""
    view, position, frames = window.view, 13 + _colour_bytes(window.number(10, 1)), 0
    blocks = _MAX_BLOCKS
    try:
        while frames <= most and view[position] in (_IMAGE, _EXTENSION):
            if view[position] == _IMAGE:
                frames += 1
                position += 11 + _colour_bytes(view[position + 9])
            else:
                position += 2
            while blocks and (size := view[position]):
                position += 1 + size
                blocks -= 1
            if not blocks:
                raise rejection("too_many_parts")
            position += 1
    except IndexError:
        pass
    return frames


def _colour_bytes(flags: int) -> int:
    """The size of the colour table that the flags announce."""
    return 6 << (flags & 7) if flags & 0x80 else 0
