"""Reads a TIFF's first directory, counts its pages, and judges whether a TIFF structure is safe to hand to an EXIF
reader.

EXIF blocks are TIFF structures too, so `is_sound` serves every format. No pixel and no tag value is read
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from processors.contract import Limits
from processors.photos.formats import Format, rejection
from processors.photos.headers import Header
from processors.photos.window import Window

_MAX_ENTRIES: Final = 1_000  # of one directory; real ones have fewer than 100
_MAX_DIRECTORIES: Final = 16
_MAX_VALUES: Final = 50_000
_WIDTH, _HEIGHT, _ICC = 256, 257, 34675
_POINTERS: Final = (0x8769, 0x8825, 0xA005)  # EXIF, GPS, interoperability
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

Order = Literal["little", "big"]
Entry = tuple[int, int, int, bytes]  # tag, type, count, the four bytes of value or offset


def read(window: Window, found: Format, limits: Limits) -> Header:
    """The header; its `exif` is the whole file, so a head is never enough. Raises as headers.read_header
    does.
    """
    if not window.complete:
        window.read(len(window.view), 1)  # raises Incomplete, or `truncated` where there is nothing more
    order: Order = "little" if window.view[0] == 0x49 else "big"
    values: dict[int, int] = {}
    for tag, kind, count, value in _entries(window, window.number(4, 4, order), order):
        if tag in (_WIDTH, _HEIGHT) and count == 1 and kind in (3, 4):
            values[tag] = int.from_bytes(value[: _TYPE_BYTES[kind]], order)
        elif tag == _ICC:
            values[tag] = count * _TYPE_BYTES.get(kind, 1)
    return Header(
        format=found,
        width_px=values.get(_WIDTH, 0),
        height_px=values.get(_HEIGHT, 0),
        exif=window.view,
        icc_bytes=values.get(_ICC, 0),
        frames=_count_pages(window, order, limits.max_frames),
    )


def is_sound(window: Window) -> bool:
    """Whether the directories of a TIFF structure are few, small and free of loops.

    An EXIF reader follows every pointer and reads every value one by one: a thousand pointers to one
    directory would cost it minutes. Raises Unprocessable `truncated` or `malformed` where a directory lies
    outside or is too long.
    """
    order: Order = "little" if window.read(0, 2) == b"II" else "big"
    chain, waiting = window.number(4, 4, order), list[int]()
    values = directories = 0
    while chain or waiting:
        directories += 1
        offset, on_chain = (chain, True) if chain else (waiting.pop(), False)
        entries = list(_entries(window, offset, order))
        values += sum(min(count, 1_000) for _, kind, count, _ in entries if kind != 2)
        if directories > _MAX_DIRECTORIES or values > _MAX_VALUES:
            return False
        waiting += [int.from_bytes(value, order) for tag, _, _, value in entries if tag in _POINTERS]
        if on_chain:
            chain = _next_directory(window, offset + 2 + 12 * len(entries), order)
    return True


def _count_pages(window: Window, order: Order, most: int) -> int:
    """The directories of the chain, or most + 1. Where it leaves the file or runs in a circle, it ends."""
    offset, seen = window.number(4, 4, order), set[int]()
    while offset and offset not in seen and offset + 2 <= window.end and len(seen) <= most:
        seen.add(offset)
        offset = _next_directory(window, offset + 2 + 12 * window.number(offset, 2, order), order)
    return len(seen)


def _entries(window: Window, offset: int, order: Order) -> Iterator[Entry]:
    count = window.number(offset, 2, order)
    if count > _MAX_ENTRIES:
        raise rejection("malformed")
    table = window.read(offset + 2, 12 * count)
    for at in range(0, len(table), 12):
        entry = table[at : at + 12]
        yield (
            int.from_bytes(entry[:2], order),
            int.from_bytes(entry[2:4], order),
            int.from_bytes(entry[4:8], order),
            entry[8:12],
        )


def _next_directory(window: Window, offset: int, order: Order) -> int:
    """Where the next directory is; many blocks end without saying so, which means none."""
    return window.number(offset, 4, order) if offset + 4 <= window.end else 0
