"""Turns single EXIF tags, as exifread gives them, into JSON-safe values; every file is taken for hostile.

Strings end at their first NUL, are trimmed and cut at 1 kB; numbers are finite; a zero denominator is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

Tags = Mapping[str, Any]  # tag name -> exifread's IfdTag

_MAX_TEXT_BYTES: Final = 1_024
_MAX_RAW_TAGS: Final = 400
_MAX_RAW_ITEMS: Final = 64
_MAX_RAW_TEXT: Final = 32_768  # characters of all raw strings together
_NOT_SHOWN: Final = ("EXIF MakerNote", "JPEGThumbnail", "TIFFThumbnail", "EXIF UserComment")
_UNDEFINED: Final = 7


def text(tags: Tags, name: str) -> str | None:
    """The tag's text, or None where it is absent, empty or no text."""
    tag = tags.get(name)
    if tag is None or not isinstance(tag.values, (str, bytes)):
        return None
    return clean(tag.values) or None


def clean(value: str | bytes) -> str:
    """Printable text that survives JSON and Postgres: no NUL, no lone surrogate, no control character."""
    if isinstance(value, bytes):
        value = value[: 4 * _MAX_TEXT_BYTES].decode("utf-8", "replace")
    shown = value[: 4 * _MAX_TEXT_BYTES].split("\0", 1)[0]
    shown = "".join(" " if ord(letter) < 32 or ord(letter) == 127 else letter for letter in shown).strip()
    return shown.encode("utf-8", "replace")[:_MAX_TEXT_BYTES].decode("utf-8", "ignore")


def number(tags: Tags, name: str) -> float | None:
    """The tag's first value as a finite number, rounded as ExifTool rounds: 10 significant digits of a
    rational.
    """
    tag = tags.get(name)
    if tag is None or isinstance(tag.values, (str, bytes)) or not tag.values:
        return None
    return _number(tag.values[0])


def rational(tags: Tags, name: str) -> float | None:
    """Like `number`, for quantities that are only known when positive: 0/1 is what cameras write for
    unknown.
    """
    value = number(tags, name)
    return value if value is not None and value > 0 else None


def integer(tags: Tags, name: str, *, low: int, high: int) -> int | None:
    """The tag's first value as an integer within the range."""
    value = number(tags, name)
    if value is None or value != int(value) or not low <= value <= high:
        return None
    return int(value)


def sexagesimal(tags: Tags, name: str) -> float | None:
    """Degrees (or hours), minutes and seconds as one number of degrees; missing parts count as 0."""
    tag = tags.get(name)
    if tag is None or isinstance(tag.values, (str, bytes)) or not 1 <= len(tag.values) <= 3:
        return None
    parts = [exact(value) for value in tag.values]
    if parts[0] is None or any(part is not None and part < 0 for part in parts):
        return None
    return sum((part or 0.0) / 60.0**place for place, part in enumerate(parts))


def exact(value: Any) -> float | None:
    """A rational, integer or float as a finite number, unrounded; None where it is none."""
    if isinstance(value, tuple):
        value = value[0] if len(value) == 1 else None  # exifread gives floats as 1-tuples
    try:
        result: float = float(value.num / value.den) if hasattr(value, "den") else float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return result if math.isfinite(result) else None


def raw(tags: Tags) -> dict[str, Any]:
    """All tags by exifread's names, capped in count and size."""
    shown: dict[str, Any] = {}
    budget = _MAX_RAW_TEXT
    for name in sorted(tags)[:_MAX_RAW_TAGS]:
        if name in _NOT_SHOWN or budget <= 0:
            continue
        value = _raw_value(tags[name])
        budget -= len(str(value)) + len(name)
        shown[clean(name)] = value
    return shown


def _number(value: Any) -> float | None:
    result = exact(value)
    if result is None or not hasattr(value, "den"):
        return result
    return float(f"{result:.10g}")


def _raw_value(tag: Any) -> Any:
    values = tag.values
    if isinstance(values, (str, bytes)):
        return clean(values)
    values = values[:_MAX_RAW_ITEMS]
    if tag.field_type == _UNDEFINED and values and all(isinstance(v, int) and 32 <= v < 127 for v in values):
        return clean(bytes(values))
    numbers = [value if isinstance(value, int) else _number(value) for value in values]
    return numbers[0] if len(numbers) == 1 else numbers
