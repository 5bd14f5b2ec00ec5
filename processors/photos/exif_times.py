"""When a photo was taken: the camera's local time, its offset from UTC, and the moment in UTC, each with
its source.

A camera's clock alone says nothing about UTC, and nothing is guessed: without an offset or GPS time, UTC is null, and
the offset is only ever what the file says.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from processors.photos.exif_values import Tags, exact, text

# The tags in the order in which they are believed: when taken, when digitized, when last written.
_CLOCKS: Final = (
    ("EXIF DateTimeOriginal", "EXIF OffsetTimeOriginal", "EXIF SubSecTimeOriginal"),
    ("EXIF DateTimeDigitized", "EXIF OffsetTimeDigitized", "EXIF SubSecTimeDigitized"),
    ("Image DateTime", "EXIF OffsetTime", "EXIF SubSecTime"),
)
_DATE: Final = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?!\d)")
_DAY: Final = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)(?!\d)")
_OFFSET: Final = re.compile(r"([+-])(\d\d):?(\d\d)")
_LEAST_OFFSET, _MOST_OFFSET = timedelta(hours=-12), timedelta(hours=14)
_GPS_SLACK: Final = timedelta(minutes=2)  # between the last satellite fix and the shutter
_GPS_SOURCE: Final = "GPS GPSDate + GPS GPSTimeStamp"


def taken_at(tags: Tags) -> dict[str, Any]:
    """The facts taken_at_local, taken_at_subsec, taken_at_offset, taken_at_utc and taken_at_sources."""
    local, subsec, offset, sources = _clock(tags)
    utc: datetime | None = None
    if local is not None and offset is not None:
        utc, sources["utc"] = _shifted(local, -offset), sources["offset"]
    else:
        gps = _gps_time(tags)
        if gps is not None and local is not None and not _near(local, gps):
            gps = None  # a fix of another day, kept by the camera
        if gps is not None:
            utc, sources["utc"] = gps, _GPS_SOURCE
    return {
        "taken_at_local": local.isoformat() if local else None,
        "taken_at_subsec": subsec,
        "taken_at_offset": _offset_text(offset),
        "taken_at_utc": utc.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20) if utc else None,
        "taken_at_sources": sources,
    }


def _clock(tags: Tags) -> tuple[datetime | None, str | None, timedelta | None, dict[str, str | None]]:
    """The first clock that shows a real date (naive: a wall clock has no zone), with its own offset."""
    for clock, offset_tag, subsec_tag in _CLOCKS:
        match = _DATE.match(text(tags, clock) or "")
        local = _datetime(*(int(part) for part in match.groups()[:6])) if match else None
        if match is None or local is None:
            continue
        offset = _offset(text(tags, offset_tag))
        subsec = re.match(r"\d{1,9}", text(tags, subsec_tag) or "")
        sources = {"local": clock, "offset": offset_tag if offset is not None else None, "utc": None}
        return local, subsec[0] if subsec else match[7], offset, sources
    return None, None, None, {"local": None, "offset": None, "utc": None}


def _datetime(*parts: int) -> datetime | None:
    year, month, day, hour, minute, second = parts
    try:
        return datetime(year, month, day, hour, minute, min(second, 59))  # noqa: DTZ001  a leap second is kept as :59
    except ValueError:
        return None


def _offset(value: str | None) -> timedelta | None:
    if value == "Z":
        return timedelta()
    match = _OFFSET.fullmatch(value or "")
    if match is None or int(match[3]) > 59:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3])) * (-1 if match[1] == "-" else 1)
    return offset if _LEAST_OFFSET <= offset <= _MOST_OFFSET else None


def _offset_text(offset: timedelta | None) -> str | None:
    if offset is None:
        return None
    return datetime(2000, 1, 1, tzinfo=timezone(offset)).isoformat()[-6:]


def _gps_time(tags: Tags) -> datetime | None:
    day = _DAY.match(text(tags, "GPS GPSDate") or "")
    stamp = tags.get("GPS GPSTimeStamp")
    if day is None or stamp is None or isinstance(stamp.values, (str, bytes)) or len(stamp.values) != 3:
        return None
    hour, minute, second = (exact(part) for part in stamp.values)
    if hour is None or minute is None or second is None or min(hour, minute, second) < 0:
        return None
    moment = _datetime(int(day[1]), int(day[2]), int(day[3]), int(hour), int(minute), int(second))
    return moment.replace(tzinfo=UTC) if moment else None


def _shifted(local: datetime, by: timedelta) -> datetime | None:
    try:
        return (local + by).replace(tzinfo=UTC)
    except OverflowError:
        return None


def _near(local: datetime, gps: datetime) -> bool:
    difference = local - gps.replace(tzinfo=None)
    return _LEAST_OFFSET - _GPS_SLACK <= difference <= _MOST_OFFSET + _GPS_SLACK
