"""What an object in the storage is recorded as, and whether it keeps what its direct upload promised. Pure.

One rule for every way that bytes are found by (the client's `complete`, the storage's event, reconciling): whichever
comes first records the photo, and the others take its word for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from processors.contract import Unprocessable
from processors.photos import formats
from storage import keys
from storage.blobs import Head
from storage.objects import StoredObject
from storage.uploads import Upload

_SAME_FAMILY: Final = ({formats.HEIC.content_type, formats.HEIF.content_type},)  # cameras name either


def describe(bucket: str, key: str, head: Head, first: bytes, *, upload: Upload | None, max_bytes: int) -> StoredObject:
    """The row of what lies there. `first`: its first SNIFF_BYTES, or all that it has; `upload`: the direct upload that
    it came by, which is held to its promise; `max_bytes`: that such a one may have."""
    found = formats.sniff(first)
    return StoredObject(
        id=keys.new_id(datetime.now(UTC)),
        bucket=bucket,
        key=key,
        etag=head.etag,
        version_id=head.version_id,
        size_bytes=head.size_bytes,
        content_type=found.content_type if found else head.content_type,
        filename=upload.filename if upload else keys.safe_filename(key),
        upload_id=upload.id if upload else None,
        rejection=find_breach(upload, head, first, max_bytes=max_bytes) if upload else None,
    )


def find_breach(upload: Upload, head: Head, first: bytes, *, max_bytes: int) -> Mapping[str, str] | None:
    """Why what arrived is rejected; None where it is what was promised, as far as that shows without decoding it."""
    if upload.size_bytes is not None and head.size_bytes != upload.size_bytes:
        return _rejection("wrong_size", f"{upload.size_bytes} bytes were promised, {head.size_bytes} arrived.")
    if head.size_bytes > max_bytes:
        return _rejection("too_large", f"It has {head.size_bytes} bytes; {max_bytes} are allowed.")
    try:
        found = formats.recognise(first).content_type
    except Unprocessable as error:
        return _rejection(error.code, error.detail)
    if upload.content_type and not _is_same_kind(upload.content_type, found):
        return _rejection("wrong_type", f"{upload.content_type} was promised, the file is {found}.")
    return None


def _is_same_kind(promised: str, found: str) -> bool:
    return promised == found or any({promised, found} <= family for family in _SAME_FAMILY)


def _rejection(code: str, detail: str) -> dict[str, str]:
    return {"code": code, "detail": detail}
