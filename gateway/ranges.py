"""Conditional and ranged requests (RFC 9110): what the client has already, and which part it wants. Pure, but for
reading the request's headers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from aiohttp import web

from gateway.errors import Problem

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True, kw_only=True)
class Span:
    """Bytes `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        return self.last - self.first + 1


def not_modified(request: web.Request, tag: str, modified: datetime) -> bool:
    """Whether the client's copy is still good. If-None-Match goes before If-Modified-Since."""
    if (given := request.headers.get("If-None-Match")) is not None:
        tags = {item.strip().removeprefix("W/").strip('"') for item in given.split(",")}
        return "*" in tags or tag in tags
    since = request.if_modified_since
    return since is not None and modified.replace(microsecond=0) <= since


def wanted(request: web.Request, tag: str, size_bytes: int) -> Span | None:
    """The single range that was asked for; None: everything. Several ranges, other units and a failed If-Range mean
    everything, as RFC 9110 allows. Raises Problem range_not_satisfiable."""
    match = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if not match or not (match[1] or match[2]):
        return None
    if request.headers.get("If-Range", f'"{tag}"') != f'"{tag}"':
        return None
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size_bytes - 1), size_bytes - 1)
        if match[2] and int(match[2]) < int(match[1]):
            return None
    else:
        first, last = max(0, size_bytes - int(match[2])), size_bytes - 1
    if first > last:
        raise Problem(
            "range_not_satisfiable",
            f"The object has {size_bytes} bytes.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return Span(first=first, last=last)


def http_date(at: datetime) -> str:
    return format_datetime(at.replace(microsecond=0), usegmt=True)
