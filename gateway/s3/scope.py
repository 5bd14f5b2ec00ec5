"""The credential scope of SigV4 and the keys derived for it. Secrets are never logged and are no part of any repr."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_DATE = re.compile("[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True, kw_only=True)
class Scope:
    """`date`: like 20130524."""

    date: str
    region: str
    service: str = "s3"

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Whoever signs for the storage: its key, and the region that the storage expects."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str


def format_date(at: datetime) -> str:
    return at.astimezone(UTC).strftime(DATE_FORMAT)


def parse_date(text: str) -> datetime | None:
    """The time of an x-amz-date such as 20130524T000000Z; None where it is not one."""
    if not _DATE.fullmatch(text):
        return None
    try:  # much faster than strptime
        year, month, day = int(text[:4]), int(text[4:6]), int(text[6:8])
        return datetime(year, month, day, int(text[9:11]), int(text[11:13]), int(text[13:15]), tzinfo=UTC)
    except ValueError:
        return None


@lru_cache(maxsize=512)
def signing_key(secret_key: str, date: str, region: str, service: str = "s3") -> bytes:
    """The 32 bytes that sign everything of that date, region and service."""
    key = ("AWS4" + secret_key).encode("utf-8")
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode("utf-8"), hashlib.sha256)
    return key


def sign(key: bytes, text: bytes) -> str:
    """HMAC-SHA256 in lower-case hexadecimal digits."""
    return hmac.digest(key, text, "sha256").hex()


def is_same(ours: str, theirs: str) -> bool:
    """Compared in constant time; any text is allowed."""
    return hmac.compare_digest(ours.encode("utf-8"), theirs.encode("utf-8", "surrogateescape"))
