"""The only place that builds an object key. Pure.

Originals keep the client's bucket and key; an upload without one gets `uploads/yyyy/mm/dd/<uuid7>/<name>`.
Artifacts lie in one separate bucket under `<source bucket>/<source key>/<preset>.<ext>`, so that any S3 client
finds them unaided.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import uuid
from datetime import UTC, datetime

MAX_KEY_BYTES = 1024  # S3
_BUCKET = re.compile(r"(?!xn--)(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class InvalidKey(ValueError):
    """This key would not come back the same from every S3 storage. The message says why."""


def make_id(at_ms: int, randomness: bytes) -> uuid.UUID:
    """A version 7 UUID: sorts by time. `at_ms`: Unix time in ms; `randomness`: 10 bytes."""
    value = (at_ms & (1 << 48) - 1) << 80 | int.from_bytes(randomness)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return uuid.UUID(int=value)


def new_id(now: datetime) -> uuid.UUID:
    """A fresh version 7 UUID (RFC 9562) for that time."""
    return make_id(int(now.timestamp() * 1000), os.urandom(10))


def upload_key(upload_id: uuid.UUID, filename: str | None, extension: str, at: datetime) -> str:
    """The key of an upload that named none."""
    day = at.astimezone(UTC).strftime("%Y/%m/%d")
    return f"uploads/{day}/{upload_id}/{safe_filename(filename) or f'photo.{extension}'}"


def artifact_key(source_bucket: str, source_key: str, preset: str, extension: str) -> str:
    """Where the preview of a photo lies in the derived bucket. A source key that would make it longer than S3 allows is
    replaced by its SHA-256, so the rule stays computable by anyone."""
    key = f"{source_bucket}/{source_key}/{preset}.{extension}"
    if len(key.encode()) <= MAX_KEY_BYTES:
        return key
    digest = hashlib.sha256(source_key.encode()).hexdigest()
    return f"{source_bucket}/sha256-{digest}/{preset}.{extension}"


def quarantine_key(source_bucket: str, source_key: str, photo_id: uuid.UUID) -> str:
    """Where a rejected photo lies in the bucket for such: by its id, because its key may be another photo's by then."""
    return f"{source_bucket}/{photo_id}/{safe_filename(source_key) or 'photo'}"


def safe_filename(name: str | None) -> str | None:
    """The last part of a client's file name, free of control characters and of what some storages refuse; None where
    nothing is left. At most 200 bytes, its extension kept."""
    if not name:
        return None
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    name = "".join("_" if _is_control(char) else char for char in name).strip(" .")
    stem, dot, extension = name.rpartition(".")
    if dot and len(extension.encode()) <= 16:
        while len(stem.encode()) > 180:
            stem = stem[:-1]
        name = f"{stem}.{extension}"
    while len(name.encode()) > 200:
        name = name[:-1]
    return name or None


def check_bucket(bucket: str) -> str:
    """The bucket's name, if S3 could have such a bucket. Raises InvalidKey."""
    if not _BUCKET.fullmatch(bucket):
        raise InvalidKey("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")
    return bucket


def check_key(key: str) -> str:
    """The key, if every S3 storage that we know keeps it as it is. Raises InvalidKey."""
    check_listed_key(key)
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidKey("a key must not begin or end with a slash, nor hold //, /./ or /../")
    return key


def check_listed_key(key: str) -> str:
    """The key, if it can be one of ours where the storage itself has listed it: so it keeps even `//`. Raises
    InvalidKey."""
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKey("a key must be valid UTF-8") from None
    if not 1 <= size_bytes <= MAX_KEY_BYTES:
        raise InvalidKey(f"a key has 1 to {MAX_KEY_BYTES} bytes of UTF-8")
    if any(_is_control(char) for char in key):
        raise InvalidKey("a key must not hold control characters")
    if "\\" in key:  # SeaweedFS stores it as a slash, under another photo's key
        raise InvalidKey("a key must not hold a backslash")
    return key


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in "\ufffe\uffff"
