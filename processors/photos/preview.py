"""Makes every preview of a photo from one decode, with libvips.

Promises: upright, in sRGB, 8 bit, first frame only, never enlarged, no metadata, the same bytes for the
same input. A damaged or truncated file is refused, never half shown. libheif decodes HEIC, which libvips'
wheel cannot.
"""

from __future__ import annotations

from typing import Any, Final

import pyvips

from processors.contract import Artifact, Limits, Options, Outcome, Preset, Source
from processors.photos.formats import rejection
from processors.photos.headers import Header, admit_samples, admit_size, read_header
from processors.photos.jpeg import count_scans
from processors.photos.window import Window

pyvips.block_untrusted_set(True)
pyvips.cache_set_max(0)  # a child never sees the same photo twice
pyvips.concurrency_set(1)

_THROUGH_LIBHEIF: Final = ("heic", "heif")
_SAMPLE_BYTES: Final = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "uint": 4, "int": 4, "float": 4, "double": 8}
_WHITE: Final = 255
_SIGNS_OF_FULL_MEMORY: Final = (
    "out of memory",
    "insufficient memory",
    "memory allocation",
    "unable to allocate",
    "cannot allocate",
)
_SIGNS_OF_TRUNCATION: Final = ("premature end", "unexpected end", "truncated", "read error at", "bad seek")


def run(source: Source, options: Options) -> Outcome:
    """One artifact per preset, in the presets' order.

    Raises Unprocessable with one of formats.CODES, MemoryError where the photo does not fit into memory.
    """
    header = read_header(source, options.limits)
    if header.format.name == "jpeg":
        count_scans(Window(source), options.limits.max_jpeg_scans)
    if not options.presets:
        return Outcome()
    made: dict[str, Artifact] = {}
    try:
        image: Any = None
        for preset in sorted(options.presets, key=lambda preset: -preset.max_side_px):
            image = (
                _decode(source, header, preset.max_side_px, options.limits) if image is None else _shrink(image, preset)
            )
            made[preset.name] = _encode(image, preset)
    except pyvips.Error as error:
        raise _translated(error) from None
    return Outcome(artifacts=tuple(made[preset.name] for preset in options.presets))


def _decode(source: Source, header: Header, max_side_px: int, limits: Limits) -> Any:
    """The photo in memory, upright, sRGB, 8 bit, fitting into a square of `max_side_px`: the only decode."""
    if header.format.name in _THROUGH_LIBHEIF:
        return _thumbnail(_decode_heif(source, limits), max_side_px)
    data = bytes(source.data)  # libvips takes no memoryview; bytes stay the same object
    stated = pyvips.Image.new_from_buffer(data, "", access="sequential")
    admit_size(stated.width, stated.height, limits)  # libvips may see another size than the header reader
    admit_samples(stated.width, stated.height, stated.bands, _SAMPLE_BYTES.get(stated.format, 16), limits)
    if header.format.name == "jpeg":
        shrink = _shrink_on_load(max(stated.width, stated.height), max_side_px)
        # Every damage, even a missing half, is only a warning to libjpeg.
        image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="warning", shrink=shrink)
        return _thumbnail(image, max_side_px)
    image = pyvips.Image.thumbnail_buffer(
        data,
        max_side_px,
        height=max_side_px,
        size="down",
        # In 8.18 the argument fail_on does not reach the loader, the option string does. Not "warning":
        # libtiff warns of every private tag.
        option_string="[fail_on=error]",
        **_colour_options(stated),
    )
    return _to_srgb8(image).copy_memory()


def _shrink_on_load(side_px: int, max_side_px: int) -> int:
    """How far libjpeg may shrink while decoding, for nearly nothing. A quarter of resampling is left to the
    better filter: 44 dB or more from a full decode; libvips' own rule leaves a half and costs 1.5 times
    the CPU.
    """
    return next((shrink for shrink in (8, 4, 2) if side_px >= shrink * max_side_px * 1.25), 1)


def _decode_heif(source: Source, limits: Limits) -> Any:
    """The primary image at full size. libheif has already turned it: EXIF's orientation must not turn it
    again.
    """
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1
    try:
        heif = pillow_heif.open_heif(bytes(source.data), convert_hdr_to_8bit=True)
        width, height = heif.size
        admit_size(width, height, limits)
        bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[heif.mode]
        pixels, stride = bytes(heif.data), heif.stride
    except (ValueError, KeyError, OSError, EOFError, SyntaxError, RuntimeError) as error:
        raise _translated(error) from None
    padded = pyvips.Image.new_from_memory(pixels, stride // bands, height, bands, "uchar")
    image = padded.crop(0, 0, width, height).copy(interpretation="srgb" if bands > 2 else "b-w")
    profile = heif.info.get("icc_profile")
    if profile:
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image


def _thumbnail(image: Any, max_side_px: int) -> Any:
    """Turned upright (by EXIF, if the image has any), shrunk, and converted, in memory."""
    small = image.thumbnail_image(max_side_px, height=max_side_px, size="down", **_colour_options(image))
    return _to_srgb8(small).copy_memory()


def _colour_options(image: Any) -> dict[str, str]:
    """Colour management costs more than the decode: only for what is not sRGB already."""
    managed = image.get_typeof("icc-profile-data") != 0 or image.interpretation == "cmyk"
    return {"export_profile": "srgb"} if managed else {}


def _shrink(image: Any, preset: Preset) -> Any:
    """A smaller size from the one above it, which is already upright and in sRGB."""
    return image.thumbnail_image(preset.max_side_px, height=preset.max_side_px, size="down").copy_memory()


def _to_srgb8(image: Any) -> Any:
    """Grey, 16 bit and whatever had no profile, as 8-bit sRGB of three or four bands."""
    if image.interpretation != "srgb":
        image = image.colourspace("srgb")
    if image.format != "uchar":
        image = image.cast("uchar")
    return image.extract_band(0, n=4) if image.bands > 4 else image


def _encode(image: Any, preset: Preset) -> Artifact:
    if preset.format == "jpeg":
        flat = image.flatten(background=_WHITE) if image.hasalpha() else image
        data = flat.jpegsave_buffer(Q=preset.quality, optimize_coding=True, keep="none")
    else:
        data = image.webpsave_buffer(Q=preset.quality, effort=4, keep="none")
    return Artifact(
        preset=preset.name,
        preset_version=preset.version,
        data=data,
        content_type=preset.content_type,
        extension=preset.extension,
        width_px=image.width,
        height_px=image.height,
    )


def _translated(error: Exception) -> Exception:
    """libvips and libheif tell their errors apart only by their text."""
    text = str(error).lower()
    if "security limit" in text:  # libheif's, from the size that the file states: says "memory allocation error" too
        return rejection("malformed", "Its image is not of the size that it states.")
    if any(sign in text for sign in _SIGNS_OF_FULL_MEMORY):
        return MemoryError()
    if any(sign in text for sign in _SIGNS_OF_TRUNCATION):
        return rejection("truncated")
    if "unsupported" in text or "not been built in" in text or "not in a known format" in text:
        return rejection("unsupported_format")
    return rejection("malformed")
