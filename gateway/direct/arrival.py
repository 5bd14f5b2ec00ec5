"""What a direct upload left in the storage becomes its photo: proven to be this upload's, looked at, recorded.

May be done any number of times, by whoever comes by: the client's `complete`, the sweep. What is no photo, or not the
one that was promised, is recorded as rejected: it is in the storage, and nobody shall have to wonder what it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC
from typing import Final

import structlog

from gateway import ingest
from gateway.context import Context
from gateway.direct import promises
from gateway.errors import Problem
from processors.photos import formats
from storage import failpoints, objects, uploads
from storage.blobs import BlobChanged, Head, NoSuchBlob, NoSuchBucket, Part
from storage.database import Connection
from storage.objects import Recorded, StoredObject
from storage.uploads import Upload

log = structlog.get_logger(__name__)

_SHOWN_PARTS: Final = 100


async def take(upload: Upload, context: Context, *, etags: Mapping[int, str] | None = None) -> Recorded:
    """The upload's photo, committed. `etags`: of parts by number, without quotes, to be compared with what arrived.
    Raises Problem upload_incomplete, upload_not_arrived, key_taken; BlobsUnavailable, DatabaseUnavailable."""
    if upload.method == "multipart":
        await _assemble(upload, context, etags or {})
    try:
        head = await find(upload, context)
        first = await _read_first(upload, head, context)
        max_bytes = context.settings.max_upload_bytes
        stored = promises.describe(upload.bucket, upload.key, head, first, upload=upload, max_bytes=max_bytes)
        recorded = await _record(stored, context)
    except (NoSuchBlob, BlobChanged, NoSuchBucket):
        raise _not_arrived(upload) from None
    context.dispatcher.wake()
    log.info(
        "photo.stored",
        message="A direct upload was recorded.",
        photo_id=str(recorded.id),
        upload_id=str(upload.id),
        bucket=upload.bucket,
        key=upload.key,
        size_bytes=head.size_bytes,
        new=recorded.created,
        rejected=stored.rejection["code"] if stored.rejection else None,
    )
    return recorded


async def find(upload: Upload, context: Context) -> Head:
    """What lies under the key, if it came by this upload. Raises NoSuchBlob, Problem key_taken."""
    head = await context.blobs.head(upload.bucket, upload.key)
    if uploads.read_id(head.metadata) != upload.id:
        raise Problem(
            "key_taken",
            "It did not come by this upload, of which nothing is there. Open a new one, with another key or none.",
        )
    return head


async def _assemble(upload: Upload, context: Context, etags: Mapping[int, str]) -> None:
    """Make the object of its parts, where they are all there. Raises Problem upload_incomplete."""
    assert upload.multipart_id is not None
    try:
        arrived = {
            part.number: part for part in await context.blobs.list_parts(upload.bucket, upload.key, upload.multipart_id)
        }
    except (NoSuchBlob, NoSuchBucket):
        return  # it was completed before, or aborted: what lies under the key will tell
    parts = [_find_part(upload, arrived, number, etags) for number in range(1, upload.parts + 1)]
    missing = [number for number, part in enumerate(parts, 1) if part is None]
    if missing or any(number > upload.parts for number in etags):
        raise Problem(
            "upload_incomplete",
            f"Of {upload.parts} parts {len(missing)} are missing, or are not the ones that were named. "
            "Send them again (POST .../parts gives addresses), then complete again.",
            missing=missing[:_SHOWN_PARTS],
        )
    with contextlib.suppress(NoSuchBlob):
        await find(upload, context)  # some storages would replace what is there (Ceph RGW 16)
    with contextlib.suppress(NoSuchBlob, BlobChanged):  # as above; or somebody was faster
        await context.blobs.complete_upload(
            upload.bucket, upload.key, upload.multipart_id, [part for part in parts if part is not None]
        )
    await failpoints.reach("upload.assembled")


def _find_part(upload: Upload, arrived: Mapping[int, Part], number: int, etags: Mapping[int, str]) -> Part | None:
    part = arrived.get(number)
    if part is None or part.size_bytes != upload.size_of_part(number):
        return None
    return part if etags.get(number, part.etag) == part.etag else None


async def _read_first(upload: Upload, head: Head, context: Context) -> bytes:
    """What its kind is told by. Raises NoSuchBlob, BlobChanged."""
    if not head.size_bytes:
        return b""
    first_bytes = min(formats.SNIFF_BYTES, head.size_bytes)
    return await context.blobs.read(upload.bucket, upload.key, etag=head.etag, first_bytes=first_bytes)


async def _record(stored: StoredObject, context: Context) -> Recorded:
    """Raises NoSuchBlob, BlobChanged where it is there no more."""

    async def record(conn: Connection) -> Recorded:
        # Under the lock that deletions hold, too: what was just deleted must not come back.
        await objects.lock_key(conn, stored.bucket, stored.key)
        now_there = await context.blobs.head(stored.bucket, stored.key)
        if now_there.etag != stored.etag:
            raise BlobChanged
        recorded = await ingest.record(conn, stored, context.jobs, asked_for=True)
        assert recorded is not None
        await failpoints.reach("tx.before_commit")
        return recorded

    recorded = await context.database.persist(record, for_seconds=context.settings.record_seconds)
    await failpoints.reach("tx.after_commit")
    return recorded


def _not_arrived(upload: Upload) -> Problem:
    ways = {
        "put": "PUT the bytes to the address, with its headers",
        "post": "POST the form to the address",
        "multipart": "PUT the parts to their addresses",
    }
    until = upload.expires_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    late = "It is too late for that: open a new upload." if upload.status == "expired" else f"They end at {until}."
    return Problem("upload_not_arrived", f"{ways[upload.method]}, then complete again. {late}")
