"""The storage's XML lists that the door must look into: buckets, and the results of a batch of deletions. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

_BUCKET = re.compile(rb"<Bucket>.*?</Bucket>", re.DOTALL)
_NAME = re.compile(rb"<Name>([^<]*)</Name>")
_FAILURE = re.compile(rb"<Error>.*?</Error>", re.DOTALL)
_KEY = re.compile(rb"<Key>([^<]*)</Key>")


def filter_buckets(listing: bytes, is_shown: Callable[[str], bool]) -> bytes:
    """A ListBuckets answer with only those buckets."""

    def keep(match: re.Match[bytes]) -> bytes:
        name = _NAME.search(match[0])
        return match[0] if name is not None and is_shown(_text(name[1])) else b""

    return _BUCKET.sub(keep, listing)


def find_failed(result: bytes) -> set[str]:
    """The keys that a DeleteObjects answer says were not deleted. Quiet answers name no others."""
    keys = (_KEY.search(match[0]) for match in _FAILURE.finditer(result))
    return {_text(key[1]) for key in keys if key is not None}


def _text(data: bytes) -> str:
    return unescape(data.decode("utf-8", "replace"))
