"""MinIO's Redis target. Format `access` pushes a list of `{"Event": [record]}`; format `namespace` keeps the last
`{"Records": [record]}` of each key in a hash, which reads like the webhook's body. The records are the webhook's.
"""

from __future__ import annotations

from gateway.events.fields import Json


def is_access_entry(document: Json) -> bool:
    """Whether this is an element of the list that format `access` pushes to."""
    return isinstance(document, list) and any(
        isinstance(entry, dict) and isinstance(entry.get("Event"), list) for entry in document
    )


def records(document: list[Json]) -> list[Json]:
    """The records of an access entry. What is no entry stays as it is, so that it is counted as malformed."""
    found: list[Json] = []
    for entry in document:
        inner = entry.get("Event") if isinstance(entry, dict) else None
        found.extend(inner if isinstance(inner, list) else [entry])
    return found
