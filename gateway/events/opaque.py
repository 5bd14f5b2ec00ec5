"""The secret that a topic's owner gave to Ceph RGW: opaqueData in every record, in place of a header."""

from __future__ import annotations

import json
import re

from gateway.events import ceph

_WRITTEN = re.compile(rb'("opaqueData"\s*:\s*)"(?:[^"\\]|\\.)*"?', re.IGNORECASE | re.DOTALL)


def read_opaque_data(body: bytes) -> str | None:
    """The one secret that all records of a Ceph body carry. None: not Ceph's, none, or not the same in all of them."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    records = document.get("Records") if isinstance(document, dict) else None
    if not isinstance(records, list) or not records:
        return None
    found = {_secret(record) for record in records}
    return found.pop() if len(found) == 1 else None


def hide_opaque_data(body: bytes) -> bytes:
    """The body as it may be shown: with no such secret in it, whatever else it is, and wherever it is cut off."""
    return _WRITTEN.sub(rb'\1"***"', body)


def _secret(record: object) -> str | None:
    if not isinstance(record, dict) or record.get("eventSource") != ceph.EVENT_SOURCE:
        return None
    secret = record.get("opaqueData")
    return secret if isinstance(secret, str) and secret else None
