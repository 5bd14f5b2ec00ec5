"""Files that try to hurt a decoder, each as small as its trick allows. Made here, never taken from
anywhere.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.photos import make_gif, make_jpeg, make_png, make_tiff, make_webp, picture, png_chunk


def makernote_bomb(kind: int = 4, count: int = 1_006_641_184) -> bytes:
    """A MakerNote of a billion values in 122 bytes: an EXIF reader that opens MakerNotes never comes back."""
    ifd0 = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    exif = struct.pack("<HHHIII", 1, 0x927C, kind, count, 60, 0)
    return jpeg_with_exif(b"II*\0\x08\0\0\0" + ifd0 + exif + bytes(40))


def jpeg_with_exif(block: bytes, *, width: int = 64, height: int = 48) -> bytes:
    """A sound JPEG that carries this TIFF block, whatever it is."""
    payload = b"Exif\0\0" + block
    jpeg = make_jpeg(width, height)
    return jpeg[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + jpeg[2:]


def scan_bomb(scans: int, side_px: int = 1000) -> bytes:
    """A progressive JPEG whose last scan is repeated: each repetition costs a pass over the whole image."""
    file = io.BytesIO()
    Image.new("L", (side_px, side_px), 128).save(file, "JPEG", progressive=True)
    jpeg = file.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * scans + b"\xff\xd9"


def png_of_zeros(width: int, height: int, *, bit_depth: int, colour_type: int, before: bytes = b"") -> bytes:
    """A valid PNG of zero rows; `before` are chunks put in front of the pixels."""
    channels = {0: 1, 2: 3, 6: 4}[colour_type]
    row = bytes(1 + (width * channels * bit_depth + 7) // 8)
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + before
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def pixel_bomb() -> bytes:
    """3.6 thousand million pixels in half a megabyte."""
    return png_of_zeros(60_000, 60_000, bit_depth=1, colour_type=0)


def rgba16_near_the_limit() -> bytes:
    """49 million pixels of 8 bytes: 392 MB once decoded."""
    return png_of_zeros(7_000, 7_000, bit_depth=16, colour_type=6)


def text_bomb(kind: bytes = b"zTXt", size_bytes: int = 300_000_000) -> bytes:
    """A compressed text (or, as iCCP, a profile) of 300 MB in a small PNG."""
    packer = zlib.compressobj(9)
    zeros = bytes(1_000_000)
    packed = b"".join(packer.compress(zeros) for _ in range(size_bytes // len(zeros))) + packer.flush()
    return png_of_zeros(10, 10, bit_depth=8, colour_type=2, before=png_chunk(kind, b"a\0\0" + packed))


def exif_bomb(entries: int = 60_000, count: int = 60_000_000) -> bytes:
    """A directory of 60,000 entries that each claim 60 million values."""
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", entries)
    block += struct.pack("<HHII", 0x010E, 4, count, 8) * entries + bytes(4)
    return png_of_zeros(10, 10, bit_depth=8, colour_type=2, before=png_chunk(b"eXIf", block))


def pointer_bomb(pointers: int = 900) -> bytes:
    """A GPS directory whose entries all point to itself: following them never ends."""
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", pointers)
    return jpeg_with_exif(block + struct.pack("<HHII", 0x8825, 4, 1, 8) * pointers + bytes(4))


def huge_text_count() -> bytes:
    """An ImageDescription that claims 2,000,000,000 characters."""
    return jpeg_with_exif(b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x010E, 2, 2_000_000_000, 26, 0) + b"hello\0")


def circular_tiff() -> bytes:
    """A TIFF whose EXIF pointer and next directory both lead back to its first directory."""
    entries = struct.pack("<HHHII", 1, 0x8769, 4, 1, 8)
    return b"II*\0\x08\0\0\0" + entries + struct.pack("<I", 8)


def tiff_of_huge_counts() -> bytes:
    entries = struct.pack("<HHII", 273, 4, 0x7FFFFFFF, 8) + struct.pack("<HHII", 279, 4, 0x3FFFFFFF, 8)
    sizes = struct.pack("<HHIHH", 256, 3, 1, 100, 0) + struct.pack("<HHIHH", 257, 3, 1, 100, 0)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 4) + sizes + entries + bytes(4)


def heic_that_lies() -> bytes:
    """An Exif item whose length field says 2,000,000,000 bytes."""

    def box(kind: bytes, payload: bytes) -> bytes:
        return (8 + len(payload)).to_bytes(4, "big") + kind + payload

    infe = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"Exif\0")
    ispe = box(b"ispe", bytes(4) + struct.pack(">II", 64, 48))
    ipma = box(b"ipma", bytes(4) + struct.pack(">IHBB", 1, 1, 1, 1))
    iloc = box(b"iloc", b"\0\0\0\0\x44\0" + struct.pack(">HHHHII", 1, 1, 0, 1, 300, 2_000_000_000))
    parts = box(b"pitm", bytes(4) + b"\0\1") + box(b"iinf", bytes(4) + b"\0\1" + infe)
    parts += box(b"iprp", box(b"ipco", ispe) + ipma) + iloc
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(4) + parts) + bytes(120)


def many_frames_gif(frames: int = 100_000, side_px: int = 6_000) -> bytes:
    """Frames of one pixel on a large screen."""
    head = b"GIF89a" + struct.pack("<HHBBB", side_px, side_px, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b"\x3b"


def polyglots() -> dict[str, bytes]:
    """Sound JPEGs that are something else too. Only re-encoding removes the other half."""
    script = b"<script>alert(1)</script>"
    return {
        "html": make_jpeg(comment=script) + b"<html>" + script,
        "zip": make_jpeg() + b"PK\x03\x04" + script + b"PK\x05\x06" + bytes(18),
        "pdf": make_jpeg(comment=b"%PDF-1.4 " + script),
        "three": make_jpeg() * 3 + script,
    }


def not_photos() -> dict[str, tuple[bytes, str]]:
    """Files with a photo's name at best, and the code they must be rejected with."""
    return {
        "nothing": (b"", "empty"),
        "php": (b"<?php echo 1; ?>" + make_jpeg(), "not_an_image"),
        "html": (b"<!doctype html><script>alert(1)</script>", "not_an_image"),
        "zeros": (bytes(5000), "not_an_image"),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        "xml svg": (b'<?xml version="1.0"?><svg/>', "unsupported_format"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n/x 1 def", "unsupported_format"),
        "bmp": (_bmp(), "unsupported_format"),
        "video": (b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2avc1", "not_an_image"),
    }


def sound_photos() -> dict[str, bytes]:
    """One small photo of each format that can be made in a few milliseconds: the seeds of `mutations`."""
    return {
        "jpeg": make_jpeg(160, 120, noise=20),
        "progressive": make_jpeg(160, 120, noise=20, progressive=True),
        "png": make_png(160, 120),
        "webp": make_webp(160, 120),
        "gif": make_gif(160, 120),
        "tiff": make_tiff(80, 60),
    }


def mutations(seeds: dict[str, bytes], number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, file): cut, bytes changed, two formats spliced; the same for the same seed."""
    dice = random.Random(seed)
    names = sorted(seeds)
    for index in range(number):
        name = names[index % len(names)]
        data = bytearray(seeds[name])
        kind = dice.choice(("cut", "flip", "head", "splice"))
        if kind == "cut":
            del data[dice.randrange(len(data)) :]
        elif kind == "splice":
            other = seeds[dice.choice(names)]
            data[dice.randrange(len(data)) :] = other[dice.randrange(len(other)) :]
        else:  # flips in the first 200 bytes hit structure, elsewhere mostly pixels
            reach = len(data) if kind == "flip" else min(200, len(data))
            for _ in range(dice.randrange(1, 20)):
                data[dice.randrange(reach)] = dice.randrange(256)
        yield f"{name} {kind} #{index}", bytes(data)


def _bmp() -> bytes:
    file = io.BytesIO()
    picture(8, 8).save(file, "BMP")
    return file.getvalue()
