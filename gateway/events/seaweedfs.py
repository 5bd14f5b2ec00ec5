"""SeaweedFS' filer webhook: it tells of files, not of S3 objects, so paths become buckets and keys here.

An old and a new entry at one path are an overwrite; at two they are a rename, which removes one key and creates
another. `event_type` is not asked: some releases say "rename" of both. A version of an object lies under
`<key>.versions/v_<id>` and is told as its object. Values in `extended` are base64.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.events import fields
from gateway.events.bucket_event import BucketEvent, Ignored, Kind, Reason
from gateway.events.fields import Json
from gateway.events.keys import bucket_name, raw_key

_ROOT = "/buckets/"
_UPLOADS = ".uploads/"  # the parts of multipart uploads, in every bucket
_VERSION = re.compile(r"(.+)\.versions/v_([0-9a-f]{16,64})", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One file that came or went. `path` is not checked yet."""

    path: Json
    kind: Kind
    entry: Mapping[str, Json]


def is_notification(document: Json) -> bool:
    """Whether the filer's webhook wrote this."""
    return isinstance(document, dict) and "event_type" in document and "message" in document


def changes(document: Mapping[str, Json]) -> list[Change]:
    """What a notification tells of: one change, or the two of a rename; none where it names no entry."""
    path = document.get("key")
    message = fields.within(document, "message")
    old, new = fields.within(message, "old_entry"), fields.within(message, "new_entry")
    if not old:
        return [Change(path=path, kind="created", entry=new)] if new else []
    if not new:
        return [Change(path=path, kind="removed", entry=old)]
    new_path = _new_path(message, new) or path
    created = Change(path=new_path, kind="created", entry=new)
    return [created] if new_path == path else [Change(path=path, kind="removed", entry=old), created]


def normalise(change: Change) -> BucketEvent:
    """The event of a change. Raises Ignored."""
    if change.entry.get("is_directory") not in (None, False):
        raise Ignored(Reason.DIRECTORY)
    bucket, key, version_id = _split(change.path)
    attributes = fields.within(change.entry, "attributes")
    extended = {name.lower(): value for name, value in fields.within(change.entry, "extended").items()}
    kind: Kind = "removed" if "seaweed-x-amz-delete-marker" in extended else change.kind
    is_created = kind == "created"
    return BucketEvent(
        source="seaweedfs",
        bucket=bucket,
        key=key,
        kind=kind,
        size_bytes=fields.size_bytes(attributes.get("file_size")) if is_created else None,
        etag=_etag(extended, attributes),
        version_id=version_id,
        # The filer tells when a file was written, not when it was removed.
        occurred_at=fields.utc_time(attributes.get("mtime")) if is_created else None,
        metadata=fields.user_metadata((name, _decoded(value)) for name, value in extended.items()),
    )


def _new_path(message: Mapping[str, Json], entry: Mapping[str, Json]) -> str | None:
    parent, name = message.get("new_parent_path"), entry.get("name")
    if not isinstance(parent, str) or not isinstance(name, str) or not parent or not name:
        return None
    return f"{parent.removesuffix('/')}/{name}"


def _split(path: Json) -> tuple[str, str, str | None]:
    """(bucket, key, version or None)."""
    if not isinstance(path, str):
        raise Ignored(Reason.MISSING_KEY)
    if not path.startswith(_ROOT) or path.startswith(_ROOT + "."):  # no bucket's name begins with a dot
        raise Ignored(Reason.SYSTEM_PATH)
    bucket, _, key = path.removeprefix(_ROOT).partition("/")
    if key.startswith(_UPLOADS):
        raise Ignored(Reason.UPLOAD_PART)
    version = _VERSION.fullmatch(key)
    if version:
        return bucket_name(bucket), raw_key(version[1]), version[2]
    return bucket_name(bucket), raw_key(key), None


def _etag(extended: Mapping[str, Json], attributes: Mapping[str, Json]) -> str | None:
    stated = _decoded(extended.get("seaweed-x-amz-etag"))
    if stated is not None:
        return fields.etag({"etag": stated})
    digest = _bytes(attributes.get("md5"))
    return digest.hex() if digest is not None and len(digest) == 16 else None


def _decoded(value: Json) -> str | None:
    data = _bytes(value)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _bytes(value: Json) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
