"""Walks the boxes of a HEIC, HEIF or AVIF file: size of the primary image, where its EXIF is, profile size.

Only the `meta` box is read, whole but bounded, and each box within it to its own end; nothing is decoded. Image
sequences without a still image are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from processors.contract import Limits, Source
from processors.photos.formats import Format, rejection
from processors.photos.headers import Header, admit_size, bare_exif
from processors.photos.window import Window

_MAX_BOXES: Final = 4_096
_MAX_META_BYTES: Final = 8 << 20
_MAX_ITEMS: Final = 4_096


@dataclass(frozen=True, kw_only=True)
class Box:
    """One box: where its payload starts and ends, in bytes from the start of what was walked."""

    kind: bytes
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Where an item's bytes are: in the file, or (method 1) in the meta box's own `idat`."""

    method: int
    offset: int
    size: int


def read(window: Window, found: Format, limits: Limits) -> Header:
    """The header. Raises as headers.read_header does."""
    meta = _meta(window)
    if window.complete:
        list(_boxes(window, 0, window.end))  # raises `truncated` where a box passes the end
    boxes = {box.kind: box for box in _boxes(meta, 4, meta.end)}
    if b"pitm" not in boxes or b"iprp" not in boxes:
        raise rejection("malformed")
    pitm = _inside(meta, boxes[b"pitm"])
    primary = pitm.number(4, 2 if pitm.number(0, 1) == 0 else 4)
    width, height, icc_bytes = _properties(meta, boxes[b"iprp"], primary, limits)
    exif, exif_bytes = _exif(window, meta, boxes, limits.max_exif_bytes)
    return Header(
        format=found,
        width_px=width,
        height_px=height,
        exif=exif,
        exif_bytes=exif_bytes,
        icc_bytes=icc_bytes,
    )


def _meta(window: Window) -> Window:
    for box in _boxes(window, 0, window.end):
        if box.kind == b"meta":
            if box.end - box.start > _MAX_META_BYTES:
                raise rejection("metadata_too_large")
            data = window.read(box.start, box.end - box.start)
            return Window(Source(data=data, size_bytes=len(data)))
    raise rejection("malformed", "It holds no still image.")


def _boxes(window: Window, start: int, end: int) -> Iterator[Box]:
    position = start
    for _ in range(_MAX_BOXES):
        if position + 8 > end:
            return
        size, kind, header = window.number(position, 4), window.read(position + 4, 4), 8
        if size == 1:
            size, header = window.number(position + 8, 8), 16
        elif size == 0:
            size = end - position
        if size < header:
            raise rejection("malformed")
        if position + size > end:
            raise rejection("truncated")
        yield Box(kind=kind, start=position + header, end=position + size)
        position += size
    raise rejection("too_many_parts")


def _properties(meta: Window, iprp: Box, primary: int, limits: Limits) -> tuple[int, int, int]:
    """Width, height and profile size of the primary item. No other image, such as a tile of it, may be larger than the
    limits either.
    """
    properties: list[Box] = []
    indexes: list[int] = []
    items = 0
    for box in _boxes(meta, iprp.start, iprp.end):
        if box.kind == b"ipco":
            if properties:
                raise rejection("malformed")
            properties = list(_boxes(meta, box.start, box.end))
            for image in properties:
                if image.kind == b"ispe":
                    admit_size(*_size(_inside(meta, image)), limits)
        elif box.kind == b"ipma":
            ipma = _inside(meta, box)
            items = _admit_items(items + ipma.number(4, 4))
            indexes += _associations(ipma, primary)
    width = height = icc_bytes = 0
    for index in indexes[: _admit_items(len(indexes))]:
        if not 1 <= index <= len(properties):
            continue
        box, payload = properties[index - 1], _inside(meta, properties[index - 1])
        if box.kind == b"ispe":
            width, height = _size(payload)
        elif box.kind == b"colr" and payload.read(0, 4) in (b"prof", b"rICC"):
            icc_bytes = payload.end - 4
    return width, height, icc_bytes


def _size(ispe: Window) -> tuple[int, int]:
    return ispe.number(4, 4), ispe.number(8, 4)


def _associations(ipma: Window, primary: int) -> list[int]:
    """The numbers, from 1, of the properties that belong to the primary item."""
    version, wide = ipma.number(0, 1), ipma.number(3, 1) & 1
    id_bytes, step = (2 if version == 0 else 4), (2 if wide else 1)
    position = 8
    for _ in range(ipma.number(4, 4)):
        item, count = ipma.number(position, id_bytes), ipma.number(position + id_bytes, 1)
        position += id_bytes + 1
        if item == primary:
            mask = 0x7FFF if wide else 0x7F
            return [ipma.number(position + step * n, step) & mask for n in range(count)]
        position += step * count
    return []


def _exif(window: Window, meta: Window, boxes: dict[bytes, Box], max_exif_bytes: int) -> tuple[bytes | None, int]:
    """The TIFF block of the first Exif item and its size, or (None, its size)."""
    if b"iinf" not in boxes or b"iloc" not in boxes:
        return None, 0
    item = _exif_item(meta, boxes[b"iinf"])
    extent = _extent(_inside(meta, boxes[b"iloc"]), item) if item is not None else None
    if extent is None or extent.method > 1 or extent.size < 8:
        return None, 0
    if extent.size > max_exif_bytes:
        return None, extent.size
    if extent.method == 0:
        data = window.read(extent.offset, extent.size)
    elif b"idat" in boxes:
        data = _inside(meta, boxes[b"idat"]).read(extent.offset, extent.size)
    else:
        return None, 0
    return bare_exif(data[4 + int.from_bytes(data[:4], "big") :]) or None, extent.size


def _exif_item(meta: Window, iinf: Box) -> int | None:
    start = iinf.start + (6 if _inside(meta, iinf).number(0, 1) == 0 else 8)
    for box in _boxes(meta, start, iinf.end):
        infe = _inside(meta, box)
        version = infe.number(0, 1) if box.kind == b"infe" else 0
        id_bytes = 2 if version == 2 else 4
        if version in (2, 3) and infe.read(4 + id_bytes + 2, 4) == b"Exif":
            return infe.number(4, id_bytes)
    return None


def _extent(iloc: Window, wanted: int) -> Extent | None:
    """The item's first extent. Later extents, which no camera writes for EXIF, are not followed."""
    version, sizes = iloc.number(0, 1), iloc.number(4, 2)
    offset_bytes, length_bytes, base_bytes = sizes >> 12 & 15, sizes >> 8 & 15, sizes >> 4 & 15
    index_bytes = sizes & 15 if version in (1, 2) else 0
    id_bytes = 4 if version == 2 else 2
    position = 6 + id_bytes
    for _ in range(_admit_items(iloc.number(6, id_bytes))):
        item, position = iloc.number(position, id_bytes), position + id_bytes
        method = iloc.number(position, 2) & 15 if version in (1, 2) else 0
        position += (2 if version in (1, 2) else 0) + 2
        base, count = iloc.number(position, base_bytes), iloc.number(position + base_bytes, 2)
        position += base_bytes + 2
        if item == wanted and count:
            at = position + index_bytes
            offset = base + iloc.number(at, offset_bytes)
            return Extent(method=method, offset=offset, size=iloc.number(at + offset_bytes, length_bytes))
        position += count * (index_bytes + offset_bytes + length_bytes)
    return None


def _inside(meta: Window, box: Box) -> Window:
    """The payload of a box alone: what it says is there must be there, not in the box after it."""
    return Window(Source(data=meta.view[box.start : box.end], size_bytes=box.end - box.start))


def _admit_items(count: int) -> int:
    if count > _MAX_ITEMS:
        raise rejection("too_many_parts")
    return count
