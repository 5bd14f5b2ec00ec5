"""Reads the optional fields of a message: total, on whatever JSON lies there. What cannot be used reads as absent,
because an event is a hint and the storage is asked for these values anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

Json = Any  # what json.loads gives

MAX_TEXT_BYTES = 1024
MAX_SIZE_BYTES = (1 << 63) - 1  # Postgres' bigint
MAX_METADATA = 100  # entries; S3 allows 2 KiB of metadata in all

_USER_PREFIX = "x-amz-meta-"
_UNSTORABLE = re.compile("[\\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether Postgres can keep the text: no NUL, no lone surrogate."""
    return _UNSTORABLE.search(text) is None


def within(document: Json, *names: str) -> dict[str, Json]:
    """The object under these names; empty where there is none."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def text(document: Mapping[str, Json], *names: str) -> str | None:
    """The first of these fields that is a usable text: storable, 1 to 1,024 bytes."""
    for name in names:
        value = document.get(name)
        if isinstance(value, str) and value and is_storable(value) and len(value.encode()) <= MAX_TEXT_BYTES:
            return value
    return None


def etag(document: Mapping[str, Json]) -> str | None:
    """The ETag without its quotes, by any of its three spellings."""
    value = text(document, "eTag", "etag", "ETag")
    return (value.strip('"') or None) if value else None


def version_id(document: Mapping[str, Json], *names: str) -> str | None:
    """The version; None for an object without one, which storages also write as "" or "null"."""
    value = text(document, *names)
    return None if value == "null" else value


def size_bytes(value: Json) -> int | None:
    """A size, written as a number or, as some JSON writers do with 64 bits, as its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MAX_SIZE_BYTES else None


def utc_time(value: Json) -> datetime | None:
    """A time, written in ISO 8601 (without a zone: UTC) or as Unix seconds."""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def user_metadata(pairs: Iterable[tuple[Json, Json]]) -> dict[str, str]:
    """The user's own metadata among these headers: storages also list x-amz-date, content-type and the like."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str) or len(found) == MAX_METADATA:
            continue
        lower = name.lower()
        own = lower.removeprefix(_USER_PREFIX)
        if own and own != lower and is_storable(own) and is_storable(value):
            found[own] = value
    return found
