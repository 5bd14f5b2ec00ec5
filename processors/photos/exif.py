"""Reads a photo's EXIF into flat, JSON-safe facts, from the head of the file where that is enough.

Promises the values that ExifTool reads (`-n`), null for what the file does not say or says impossibly, and
one time in UTC only where the file itself gives an offset or GPS time. MakerNotes are never opened: they
hang EXIF readers. A photo whose EXIF block is damaged is still a photo: `exif_status` says "damaged" and
the other facts are null.
"""

from __future__ import annotations

import io
import logging
from typing import Any, Final

import exifread

from processors.contract import Options, Outcome, Source, Unprocessable
from processors.photos.exif_times import taken_at
from processors.photos.exif_values import Tags, integer, number, rational, raw, sexagesimal, text
from processors.photos.headers import Header, read_header
from processors.photos.tiff import is_sound
from processors.photos.window import Window

logging.getLogger("exifread").setLevel(logging.CRITICAL)  # it logs every oddity of every file

_MAX_ALTITUDE_M: Final = 100_000


def run(source: Source, options: Options) -> Outcome:
    """Facts only. Raises Unprocessable with one of formats.CODES, Incomplete where the head is not enough."""
    header = read_header(source, options.limits)
    tags, status = _read_tags(header)
    return Outcome(facts=_facts(header, tags, status))


def _read_tags(header: Header) -> tuple[Tags, str]:
    if header.exif is None:
        return {}, "none"
    try:
        if not is_sound(Window(Source(data=header.exif, size_bytes=len(header.exif)))):
            return {}, "damaged"
        read: Any = exifread.process_file(io.BytesIO(header.exif), details=False, extract_thumbnail=False)
    except Unprocessable:
        return {}, "damaged"
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  exifread leaks a dozen kinds of error on hostile blocks
        return {}, "damaged"
    tags = {name: tag for name, tag in read.items() if hasattr(tag, "values")}
    return tags, "read" if tags else "none"


def _facts(header: Header, tags: Tags, status: str) -> dict[str, Any]:
    flash = integer(tags, "EXIF Flash", low=0, high=0xFFFF)
    return {
        "exif_status": status,
        "width": header.width_px,
        "height": header.height_px,
        "orientation": integer(tags, "Image Orientation", low=1, high=8) or 1,
        "make": text(tags, "Image Make"),
        "model": text(tags, "Image Model"),
        "lens": text(tags, "EXIF LensModel"),
        "software": text(tags, "Image Software"),
        "artist": text(tags, "Image Artist"),
        "copyright": text(tags, "Image Copyright"),
        "description": text(tags, "Image ImageDescription"),
        **taken_at(tags),
        "exposure_time_s": rational(tags, "EXIF ExposureTime"),
        "f_number": rational(tags, "EXIF FNumber"),
        "iso": integer(tags, "EXIF ISOSpeedRatings", low=1, high=0xFFFFFFFF),
        "focal_length_mm": rational(tags, "EXIF FocalLength"),
        "focal_length_35mm": integer(tags, "EXIF FocalLengthIn35mmFilm", low=1, high=0xFFFF),
        "flash": flash,
        "flash_fired": None if flash is None else bool(flash & 1),
        **_gps(tags),
        "raw": raw(tags),
    }


def _gps(tags: Tags) -> dict[str, float | None]:
    """Degrees, north and east positive, both or neither; metres above sea level."""
    latitude = sexagesimal(tags, "GPS GPSLatitude")
    longitude = sexagesimal(tags, "GPS GPSLongitude")
    if latitude is None or longitude is None or latitude > 90 or longitude > 180:
        latitude = longitude = None
    else:
        latitude *= -1 if (text(tags, "GPS GPSLatitudeRef") or "N").upper().startswith("S") else 1
        longitude *= -1 if (text(tags, "GPS GPSLongitudeRef") or "E").upper().startswith("W") else 1
    altitude = number(tags, "GPS GPSAltitude")
    if altitude is not None:
        below = integer(tags, "GPS GPSAltitudeRef", low=0, high=255) == 1
        altitude = None if abs(altitude) > _MAX_ALTITUDE_M else -altitude if below and altitude else altitude
    return {"gps_lat": latitude, "gps_lon": longitude, "gps_alt": altitude}
