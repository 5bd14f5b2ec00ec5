"""Files whose structure multiplies a reader's work or hides the size of what is decoded, each with its verdict.

Made here, like hostile_photos.py, which has the bombs of metadata and pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from tests.hostile_photos import many_frames_gif, png_of_zeros
from tests.photos import make_avif, make_heic, make_jpeg, make_webp, png_chunk


def structures() -> dict[str, tuple[Callable[[], bytes], str]]:
    """How each file is made, and "read" or the code that it must be rejected with."""
    return {
        "fill bytes": (fill_bytes_after_a_scan, "truncated"),
        "associations": (associations_bomb, "truncated"),
        "avif tiles": (avif_of_large_tiles, "too_many_pixels"),
        "avif of another size": (lambda: of_another_size(make_avif(1_600, 1_200)), "malformed"),
        "heic of another size": (lambda: of_another_size(make_heic(1_600, 1_200)), "malformed"),
        "gif frames": (lambda: many_frames_gif(10_001), "too_many_frames"),
        "gif blocks": (gif_of_tiny_blocks, "too_many_parts"),
        "webp frames": (lambda: webp_of_frames(10_001), "too_many_frames"),
        "apng frames": (lambda: apng_of_frames(0x7FFFFFFF), "too_many_frames"),
        "tiff pages": (lambda: tiff_of_pages(10_001), "too_many_frames"),
        "png texts": (lambda: png_of_texts(5, 1 << 20), "metadata_too_large"),
        "png many texts": (lambda: png_of_texts(1_001, 10), "too_many_parts"),
        "tiff of 500 samples": (lambda: tiff_of_zeros(7_000, 7_000, samples=500), "too_many_samples"),
        "tiff of 32 samples": (lambda: tiff_of_zeros(7_000, 7_000, samples=32), "too_many_samples"),
        "tiff of 64 bits": (lambda: tiff_of_zeros(640, 480, samples=4, bits=64, floats=True), "malformed"),
        "1,000 gif frames": (lambda: many_frames_gif(1_000), "read"),
        "1,000 webp frames": (lambda: webp_of_frames(1_000), "read"),
        "1,000 apng frames": (lambda: apng_of_frames(1_000), "read"),
        "1,000 tiff pages": (lambda: tiff_of_pages(1_000), "read"),
        "3 png texts": (lambda: png_of_texts(3, 1 << 20), "read"),
        "float rgba tiff": (lambda: tiff_of_zeros(4_000, 3_000, samples=4, bits=32, floats=True), "read"),
        "cmyk jpeg": (lambda: make_jpeg(mode="CMYK"), "read"),
    }


def fill_bytes_after_a_scan(size_bytes: int = 1_000_000) -> bytes:
    """A JPEG whose scan runs on into FF after FF, as fill bytes before a marker that never comes."""
    return make_jpeg(64, 48)[:-2] + b"\xff" * size_bytes


def associations_bomb(boxes: int = 4_000, items: int = 4_096) -> bytes:
    """A HEIC whose boxes of associations each claim the items of all that follows them."""
    ipma = b"\0\0\0\x10ipma" + bytes(4) + items.to_bytes(4, "big")
    ispe = box(b"ispe", bytes(4) + struct.pack(">II", 64, 48))
    parts = box(b"pitm", bytes(4) + b"\0\1") + box(b"iprp", box(b"ipco", ispe) + ipma * boxes)
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(4) + parts + box(b"free", bytes(4 * items)))


def avif_of_large_tiles() -> bytes:
    """An AVIF of 64 x 48 whose other image, which it could be put together from, has 361 million pixels."""
    sizes = [box(b"ispe", bytes(4) + struct.pack(">II", *size)) for size in ((64, 48), (19_000, 19_000))]
    ipma = box(b"ipma", bytes(4) + struct.pack(">IHBBHBB", 2, 1, 1, 1, 2, 1, 2))
    parts = box(b"pitm", bytes(4) + b"\0\1") + box(b"iprp", box(b"ipco", b"".join(sizes)) + ipma)
    return box(b"ftyp", b"avif\0\0\0\0mif1avif") + box(b"meta", bytes(4) + parts)


def of_another_size(photo: bytes) -> bytes:
    """The HEIC or AVIF with a stated size that is not the one of its image."""
    at = photo.index(b"ispe") + 8
    return photo[:at] + struct.pack(">II", 64, 48) + photo[at + 8 :]


def gif_of_tiny_blocks(blocks: int = 4_000_001) -> bytes:
    """A GIF whose comment is written in blocks of one byte."""
    return many_frames_gif(0)[:-1] + b"\x21\xfe" + b"\x01a" * blocks + b"\0\x3b"


def webp_of_frames(frames: int) -> bytes:
    """An animation whose second frame comes again and again."""
    webp = make_webp(64, 48, frames=2)
    frame = webp[webp.rindex(b"ANMF") :]
    return _riff(webp + frame * (frames - 2))


def _riff(webp: bytes) -> bytes:
    return webp[:4] + (len(webp) - 8).to_bytes(4, "little") + webp[8:]


def apng_of_frames(frames: int) -> bytes:
    """A PNG that says to be an animation of so many frames, and has one."""
    control = png_chunk(b"acTL", struct.pack(">II", frames, 0))
    return png_of_zeros(64, 48, bit_depth=8, colour_type=2, before=control)


def png_of_texts(number: int, size_bytes: int) -> bytes:
    """Deflated texts of zeros: each byte stands for a thousand."""
    packer = zlib.compressobj(9)
    packed = [packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    text = png_chunk(b"zTXt", b"a\0\0" + (packed[0] + packed[1] * (size_bytes // len(packed[1])))[:size_bytes])
    return png_of_zeros(64, 48, bit_depth=8, colour_type=2, before=text * number)


def tiff_of_pages(pages: int) -> bytes:
    """A TIFF of 640 x 480 whose first page comes again and again."""
    first = tiff_of_zeros(640, 480)
    page = first[8 : 10 + 12 * int.from_bytes(first[8:10], "little")]
    start, step = len(first) + len(first) % 2, len(page) + 4
    more = [page + struct.pack("<I", start + step * n if n < pages - 1 else 0) for n in range(1, pages)]
    return tiff_of_zeros(640, 480, next_offset=start).ljust(start, b"\0") + b"".join(more)


def box(kind: bytes, payload: bytes) -> bytes:
    return (8 + len(payload)).to_bytes(4, "big") + kind + payload


def tiff_of_zeros(
    width: int,
    height: int,
    *,
    samples: int = 3,
    bits: int = 8,
    floats: bool = False,
    tile_px: int = 0,
    next_offset: int = 0,
    empty: bool = False,
) -> bytes:
    """A deflated TIFF of zeros whose strips of 16 rows (or tiles) are all the same few bytes of the file."""
    across, down = (-(-width // tile_px), -(-height // tile_px)) if tile_px else (1, -(-height // 16))
    parts, part_rows, part_px = across * down, tile_px or 16, tile_px or width
    packer, row = zlib.compressobj(9), bytes(part_px * samples * bits // 8)
    packed = b"" if empty else b"".join(packer.compress(row) for _ in range(part_rows)) + packer.flush()
    layout = {322: (4, 1, tile_px), 323: (4, 1, tile_px)} if tile_px else {278: (4, 1, part_rows)}
    at = 8 + 2 + 12 * (9 + len(layout)) + 4
    depths, kinds = struct.pack("<H", bits) * samples, struct.pack("<H", 3 if floats else 1) * samples
    tables_at = at + len(depths) + len(kinds)
    packed_at = tables_at + 8 * parts
    offsets_tag, sizes_tag = (324, 325) if tile_px else (273, 279)
    entries = layout | {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, samples, at if samples > 2 else int.from_bytes(depths, "little")),
        259: (3, 1, 8),
        262: (3, 1, 2 if samples > 2 else 1),
        offsets_tag: (4, parts, tables_at if parts > 1 else packed_at),
        277: (3, 1, samples),
        sizes_tag: (4, parts, tables_at + 4 * parts if parts > 1 else len(packed)),
        339: (3, samples, at + len(depths) if samples > 2 else int.from_bytes(kinds, "little")),
    }
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    tables = struct.pack("<I", packed_at) * parts + struct.pack("<I", len(packed)) * parts
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<I", next_offset) + depths + kinds + tables + packed
