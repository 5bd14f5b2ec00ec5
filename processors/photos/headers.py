"""What a photo says of itself before it is decoded, and whether that is within the limits.

One entry, `read_header`; how each format is walked is in its own module. Promises to read a bounded part of
the file in pure Python and to copy no more EXIF than the limit; does not promise that the pixels are sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from processors.contract import Limits, Source
from processors.photos.formats import SNIFF_BYTES, Format, recognise, rejection
from processors.photos.window import Window

# Of an image as wide, or with as many pixels, as is allowed; a smaller one may have more.
_MAX_SAMPLES: Final = 16
_MAX_PIXEL_BYTES: Final = 16


@dataclass(frozen=True, kw_only=True)
class Header:
    """Width and height in pixels as stored, before any orientation is applied.

    `exif` is the TIFF block of the EXIF data, None if there is none or it is larger than the limit; for a
    TIFF it is the file itself. `exif_bytes`, `icc_bytes` and `text_bytes` are the sizes that the file states. `frames`
    are those of the bytes at hand, counted to one more than the limit.
    """

    format: Format
    width_px: int
    height_px: int
    exif: bytes | memoryview | None = None
    exif_bytes: int = 0
    icc_bytes: int = 0
    text_bytes: int = 0
    frames: int = 1


def read_header(source: Source, limits: Limits) -> Header:
    """The header of an accepted photo within the limits.

    Raises Unprocessable with any of formats.CODES but those of `count_scans` and `admit_samples`, and Incomplete where
    a head is not enough.
    """
    from processors.photos import gif, isobmff, jpeg, png, tiff, webp

    walkers = {
        "jpeg": jpeg.read,
        "png": png.read,
        "webp": webp.read,
        "gif": gif.read,
        "tiff": tiff.read,
        "avif": isobmff.read,
        "heic": isobmff.read,
        "heif": isobmff.read,
    }
    window = Window(source)
    found = recognise(bytes(window.view[:SNIFF_BYTES]))
    header = walkers[found.name](window, found, limits)
    admit_size(header.width_px, header.height_px, limits)
    if header.frames > limits.max_frames:
        raise rejection("too_many_frames", f"{limits.max_frames} are allowed.")
    metadata = (
        (header.exif_bytes, limits.max_exif_bytes),
        (header.icc_bytes, limits.max_icc_bytes),
        (header.text_bytes, limits.max_text_bytes),
    )
    if any(size > most for size, most in metadata):
        raise rejection("metadata_too_large")
    return header


def admit_size(width_px: int, height_px: int, limits: Limits) -> None:
    """Raises Unprocessable `malformed` (a side of nothing), `side_too_long` or `too_many_pixels`."""
    if width_px < 1 or height_px < 1:
        raise rejection("malformed", "It states a width or height of nothing.")
    if max(width_px, height_px) > limits.max_side_px:
        raise rejection("side_too_long", f"It is {width_px} x {height_px}; {limits.max_side_px} per side are allowed.")
    if width_px * height_px > limits.max_pixels:
        raise rejection("too_many_pixels", f"It is {width_px} x {height_px}; {limits.max_pixels} are allowed.")


def admit_samples(width_px: int, height_px: int, samples: int, sample_bytes: int, limits: Limits) -> None:
    """Raises Unprocessable `too_many_samples` for what a decoder cannot hold in memory: it holds some rows with every
    sample as a float, and takes time for them all.
    """
    if (
        width_px * samples > _MAX_SAMPLES * limits.max_side_px
        or width_px * height_px * samples * sample_bytes > _MAX_PIXEL_BYTES * limits.max_pixels
    ):
        raise rejection("too_many_samples", f"It has {samples} of {8 * sample_bytes} bits per pixel.")


def bare_exif(block: bytes) -> bytes:
    """The block without the JPEG-style prefix that some writers also put into PNG, WebP and HEIC."""
    return block[6:] if block.startswith(b"Exif\0\0") else block
