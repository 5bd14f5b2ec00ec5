"""Makes photos whose pixels and metadata are known, in every accepted format, and the metadata they must
read as.

The picture is four quadrants, seen upright: red and green above, blue and white below. So an orientation
can be told from pixel colours. Everything is deterministic; nothing is read from disk. Hostile files are in
hostile_photos.py.
"""

from __future__ import annotations

import io
import random
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pillow_heif
import pyvips
from PIL import Image, ImageCms, TiffImagePlugin

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 180, 40), (30, 50, 210), (240, 240, 240)
QUADRANTS = (RED, GREEN, BLUE, WHITE)  # top left, top right, bottom left, bottom right
_UPRIGHT_TO_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, kw_only=True)
class Gps:
    """Degrees, north and east positive; metres; UTC as (date, hour, minute, second) or None."""

    latitude: float = 48.8925
    longitude: float = -2.2364
    altitude_m: float = 35.5
    time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Exif:
    """What a camera writes. `block()` is the TIFF structure, `facts()` what the exif processor must make of
    it.
    """

    make: str | None = "Lumen"
    model: str | None = "Lumen Q2"
    lens: str | None = "Lumen 35mm F2"
    software: str | None = "Q2 1.04"
    artist: str | None = None
    copyright: str | None = None
    description: str | None = None
    taken_at: str | None = "2021-06-05T14:03:02"
    offset: str | None = None
    subsec: str | None = None
    exposure: Fraction = Fraction(1, 250)
    f_number: Fraction = Fraction(28, 10)
    iso: int = 400
    focal_length_mm: Fraction = Fraction(35)
    focal_length_35mm: int = 35
    flash: int = 16
    orientation: int = 1
    gps: Gps | None = None

    def block(self) -> bytes:
        exif = Image.Exif()
        texts = {0x010E: self.description, 0x010F: self.make, 0x0110: self.model, 0x0131: self.software}
        texts |= {0x013B: self.artist, 0x8298: self.copyright}
        exif.update({tag: text for tag, text in texts.items() if text is not None})
        exif[0x0112] = self.orientation
        exif.get_ifd(0x8769).update(self._camera())
        if self.gps is not None:
            exif.get_ifd(0x8825).update(_gps_tags(self.gps))
        return exif.tobytes()[6:]

    def facts(self) -> dict[str, Any]:
        gps = self.gps
        return {
            "make": self.make,
            "model": self.model,
            "lens": self.lens,
            "software": self.software,
            "artist": self.artist,
            "copyright": self.copyright,
            "description": self.description,
            "taken_at_local": self.taken_at,
            "taken_at_subsec": self.subsec,
            "exposure_time_s": float(f"{float(self.exposure):.10g}"),
            "f_number": float(self.f_number),
            "iso": self.iso,
            "focal_length_mm": float(self.focal_length_mm),
            "focal_length_35mm": self.focal_length_35mm,
            "flash": self.flash,
            "flash_fired": bool(self.flash & 1),
            "orientation": self.orientation,
            "gps_lat": gps and gps.latitude,
            "gps_lon": gps and gps.longitude,
            "gps_alt": gps and gps.altitude_m,
        }

    def _camera(self) -> dict[int, Any]:
        taken = self.taken_at and datetime.fromisoformat(self.taken_at).strftime("%Y:%m:%d %H:%M:%S")
        tags = {
            0x829A: _rational(self.exposure),
            0x829D: _rational(self.f_number),
            0x8827: self.iso,
            0x9003: taken,
            0x9004: taken,
            0x9011: self.offset,
            0x9209: self.flash,
            0x920A: _rational(self.focal_length_mm),
            0x9291: self.subsec,
            0xA405: self.focal_length_35mm,
            0xA434: self.lens,
        }
        return {tag: value for tag, value in tags.items() if value is not None}


def picture(width: int, height: int, *, mode: str = "RGB", noise: int = 0, seed: int = 1) -> Image.Image:
    """The four quadrants; `noise` is the largest deviation per channel, which makes a file large."""
    image = Image.new("RGB", (width, height))
    for index, colour in enumerate(QUADRANTS):
        left, top = (index % 2) * (width // 2), (index // 2) * (height // 2)
        image.paste(colour, (left, top, width if index % 2 else width // 2, height if index > 1 else height // 2))
    if noise:
        grain = Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3))
        image = Image.blend(image, grain, noise / 255)
    if mode == "RGBA":  # the white quadrant is fully transparent
        image.putalpha(255)
        image.paste((0, 0, 0, 0), (width // 2, height // 2, width, height))
        return image
    return image if mode == "RGB" else image.convert(mode)


def make_jpeg(
    width: int = 640,
    height: int = 480,
    *,
    exif: Exif | None = None,
    gps: Gps | None = None,
    orientation: int | None = None,
    icc: bytes | None = None,
    mode: str = "RGB",
    quality: int = 90,
    progressive: bool = False,
    comment: bytes | None = None,
    noise: int = 0,
    seed: int = 1,
    size_bytes: int | None = None,
) -> bytes:
    """A JPEG. Width and height are those of the upright picture; `mode` may be RGB, L or CMYK (Adobe's,
    inverted).

    `size_bytes` fills the file with comments of noise to exactly that size.
    """
    image = stored(picture(width, height, mode=mode, noise=noise, seed=seed), _orientation(exif, orientation))
    more = _metadata(exif, gps, orientation, icc)
    if comment is not None:
        more["comment"] = comment
    data = _saved(image, "JPEG", quality=quality, progressive=progressive, **more)
    return data if size_bytes is None else padded(data, size_bytes, seed=seed)


def make_png(
    width: int = 640,
    height: int = 480,
    *,
    exif: Exif | None = None,
    icc: bytes | None = None,
    mode: str = "RGB",
    noise: int = 0,
    bits: int = 8,
) -> bytes:
    """A PNG of mode RGB, RGBA, L or P; with `bits=16` written by libvips, without metadata."""
    if bits == 16:
        return bytes(_vips(picture(width, height, mode=mode, noise=noise), 16).pngsave_buffer(bitdepth=16))
    image = stored(picture(width, height, mode=mode, noise=noise), _orientation(exif, None))
    return _saved(image, "PNG", compress_level=1, **_metadata(exif, None, None, icc))


def make_webp(
    width: int = 640,
    height: int = 480,
    *,
    exif: Exif | None = None,
    icc: bytes | None = None,
    mode: str = "RGB",
    lossless: bool = False,
    frames: int = 1,
) -> bytes:
    """A WebP; with more frames an animation whose later frames are black."""
    image = stored(picture(width, height, mode=mode), _orientation(exif, None))
    return _saved(
        image,
        "WEBP",
        lossless=lossless,
        method=0,
        **_metadata(exif, None, None, icc),
        **_black_frames(image, frames),
    )


def make_gif(width: int = 640, height: int = 480, *, frames: int = 3) -> bytes:
    """A GIF, animated by default: the first frame is the picture, the others are black."""
    image = picture(width, height)
    return _saved(image, "GIF", **_black_frames(image, frames))


def make_tiff(
    width: int = 640,
    height: int = 480,
    *,
    exif: Exif | None = None,
    icc: bytes | None = None,
    mode: str = "RGB",
    bits: int = 8,
) -> bytes:
    """A TIFF of mode RGB, RGBA, L or CMYK; with `bits=16` written by libvips, without EXIF."""
    if bits == 16:
        return bytes(_vips(picture(width, height, mode=mode), 16).tiffsave_buffer())
    image = stored(picture(width, height, mode=mode), _orientation(exif, None))
    return _saved(image, "TIFF", **_metadata(exif, None, None, icc))


def make_heic(width: int = 640, height: int = 480, *, exif: Exif | None = None, icc: bytes | None = None) -> bytes:
    """A HEIC (HEVC). An orientation is written as HEIF's own rotation, as phones do."""
    pillow_heif.register_heif_opener()
    image = stored(picture(width, height), _orientation(exif, None))
    return _saved(image, "HEIF", quality=80, **_metadata(exif, None, None, icc))


def make_avif(width: int = 640, height: int = 480, *, exif: Exif | None = None, icc: bytes | None = None) -> bytes:
    """An AVIF. An orientation is written as HEIF's own rotation."""
    image = stored(picture(width, height), _orientation(exif, None))
    return _saved(image, "AVIF", quality=80, speed=10, **_metadata(exif, None, None, icc))


def wide_gamut_profile() -> bytes:
    """An ICC profile whose colours are far from sRGB: Display P3."""
    return pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_transform("p3").get("icc-profile-data")


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """The pixels as a camera stores them that was held so that `orientation` turns them upright."""
    return upright.transpose(_UPRIGHT_TO_STORED[orientation]) if orientation != 1 else upright


def padded(jpeg: bytes, size_bytes: int, *, seed: int = 1) -> bytes:
    """The JPEG with comment segments of noise after its start, exactly `size_bytes` long."""
    missing, segments, noise = size_bytes - len(jpeg), b"", random.Random(seed)
    if missing and missing < 4:
        raise ValueError(f"a JPEG of {len(jpeg)} bytes cannot be padded to {size_bytes}")
    while missing:
        length = min(missing, 65_000)
        if 0 < missing - length < 4:
            length -= 4
        segments += b"\xff\xfe" + (length - 2).to_bytes(2, "big") + noise.randbytes(length - 4)
        missing -= length
    return jpeg[:2] + segments + jpeg[2:]


def corners(data: bytes) -> tuple[tuple[int, int, int], ...]:
    """The colours in the middle of the four quadrants, in QUADRANTS' order, as Pillow sees them."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    places = ((1, 1), (3, 1), (1, 3), (3, 3))
    return tuple(image.getpixel((x * width // 4, y * height // 4)) for x, y in places)  # type: ignore[misc]


def distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """The largest difference of a channel."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def gps_moment(local: str, offset_hours: float, late_seconds: int = 0) -> datetime:
    """The GPS time of a fix `late_seconds` before a local time at that offset."""
    return datetime.fromisoformat(local) - timedelta(hours=offset_hours, seconds=late_seconds)


def _orientation(exif: Exif | None, orientation: int | None) -> int:
    return orientation or (exif.orientation if exif else 1)


def _metadata(exif: Exif | None, gps: Gps | None, orientation: int | None, icc: bytes | None) -> dict[str, Any]:
    if exif is None and (gps is not None or orientation is not None):
        exif = Exif()
    if exif is not None and gps is not None:
        exif = Exif(**{**exif.__dict__, "gps": gps})
    if exif is not None and orientation is not None:
        exif = Exif(**{**exif.__dict__, "orientation": orientation})
    found: dict[str, Any] = {} if icc is None else {"icc_profile": icc}
    if exif is not None:
        loaded = Image.Exif()
        loaded.load(exif.block())
        found["exif"] = loaded
    return found


def _saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    if file_format in ("JPEG", "WEBP", "HEIF", "AVIF", "PNG") and "exif" in options:
        options["exif"] = options["exif"].tobytes()
    image.save(file, file_format, **options)
    return file.getvalue()


def _black_frames(image: Image.Image, frames: int) -> dict[str, Any]:
    if frames == 1:
        return {}
    return {"save_all": True, "append_images": [Image.new("RGB", image.size)] * (frames - 1), "duration": 100}


def _vips(image: Image.Image, bits: int) -> Any:
    made = pyvips.Image.new_from_memory(image.tobytes(), image.width, image.height, len(image.getbands()), "uchar")
    made = made.copy(interpretation="srgb" if made.bands > 2 else "b-w")
    return made.colourspace("rgb16" if made.bands > 2 else "grey16") if bits == 16 else made


def _rational(value: Fraction) -> TiffImagePlugin.IFDRational:
    return TiffImagePlugin.IFDRational(value.numerator, value.denominator)


def _gps_tags(gps: Gps) -> dict[int, Any]:
    tags: dict[int, Any] = {
        1: "N" if gps.latitude >= 0 else "S",
        2: _degrees(abs(gps.latitude)),
        3: "E" if gps.longitude >= 0 else "W",
        4: _degrees(abs(gps.longitude)),
        5: b"\1" if gps.altitude_m < 0 else b"\0",
        6: _rational(Fraction(abs(gps.altitude_m)).limit_denominator(1000)),
    }
    if gps.time is not None:
        tags[7] = tuple(_rational(Fraction(part)) for part in (gps.time.hour, gps.time.minute, gps.time.second))
        tags[29] = gps.time.strftime("%Y:%m:%d")
    return tags


def _degrees(value: float) -> tuple[TiffImagePlugin.IFDRational, ...]:
    seconds = Fraction(value).limit_denominator(10**9) * 3600
    whole, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return (
        _rational(Fraction(whole)),
        _rational(Fraction(minutes)),
        _rational(seconds.limit_denominator(10**6)),
    )
