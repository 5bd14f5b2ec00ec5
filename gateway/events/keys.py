"""How the sources write an object's key, and which keys can be one. Which source uses which rule is told by its module.

Whether we want the key (our buckets, our prefixes, what every storage keeps) is not decided here.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_plus

from gateway.events.bucket_event import Ignored, Reason
from gateway.events.fields import is_storable

MAX_KEY_BYTES = 1024  # S3
MAX_BUCKET_BYTES = 255  # S3's bound of old; other storages keep to it or below

_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def raw_key(value: Any) -> str:
    """The key, written as it is. Raises Ignored."""
    return _check_key(value)


def form_key(value: Any) -> str:
    """The key, written form-urlencoded: `+` is a space. A raw `/` and %2F mean the same. Raises Ignored."""
    if not isinstance(value, str):
        raise Ignored(Reason.MISSING_KEY)
    if len(value) > 3 * MAX_KEY_BYTES:  # decoding is slow, and at best it leaves a third
        raise Ignored(Reason.LONG_KEY)
    if _BARE_PERCENT.search(value):
        raise Ignored(Reason.UNDECODABLE_KEY)
    try:
        return _check_key(unquote_plus(value, errors="strict"))
    except UnicodeDecodeError:
        raise Ignored(Reason.UNDECODABLE_KEY) from None


def bucket_name(value: Any) -> str:
    """The bucket's name, if it can be one. Raises Ignored."""
    if not isinstance(value, str) or not is_storable(value) or not 1 <= len(value.encode()) <= MAX_BUCKET_BYTES:
        raise Ignored(Reason.BAD_BUCKET)
    if "/" in value:
        raise Ignored(Reason.BAD_BUCKET)
    return value


def _check_key(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Ignored(Reason.MISSING_KEY)
    if not is_storable(value):
        raise Ignored(Reason.UNSTORABLE_KEY)
    if len(value.encode()) > MAX_KEY_BYTES:
        raise Ignored(Reason.LONG_KEY)
    return value
