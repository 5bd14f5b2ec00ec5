"""Moves rejected photos of direct uploads to the bucket for such, one safe step at a time.

The original may be the only copy of somebody's wedding. So it is deleted only after a copy was made, compared with it
and committed; each step may be repeated after a crash; and where anything is not as expected, nothing is deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from datetime import datetime

import structlog

from gateway.context import Context
from storage import failpoints, keys, objects, quarantine
from storage.blobs import BlobChanged, BlobRefused, Blobs, BlobsDenied, NoSuchBlob, NoSuchBucket
from storage.denials import refuses_all
from storage.quarantine import Place, Rejected

log = structlog.get_logger(__name__)

PAGE_PHOTOS = 20
_MAX_COPY_BYTES = 5 << 30  # of one request; what is larger stays where it is


async def move_rejected(
    context: Context, *, after: tuple[datetime, uuid.UUID] | None = None
) -> tuple[datetime, uuid.UUID] | None:
    """Move a page of what waits for it, if there is a bucket for it. Returns where to go on; None: at the beginning.
    Raises BlobsUnavailable, DatabaseUnavailable."""
    if not context.storage.quarantine_bucket:
        return None
    async with context.database.connection() as conn:
        waiting = await quarantine.pick(conn, after=after, limit=PAGE_PHOTOS)
    if waiting:
        await context.blobs.ensure_bucket(context.storage.quarantine_bucket)
    for photo in waiting:
        try:
            await _move(photo, context)
        except (BlobRefused, BlobsDenied, NoSuchBucket) as error:
            if isinstance(error, BlobsDenied) and await refuses_all(context.blobs, photo.bucket):
                raise
            log.warning(
                "quarantine.refused",
                message="The storage does not let a rejected photo be moved; it stays where it is.",
                photo_id=str(photo.object_id),
                error=repr(error),
            )
    return (waiting[-1].expires_at, waiting[-1].object_id) if len(waiting) == PAGE_PHOTOS else None


async def _move(photo: Rejected, context: Context) -> None:
    if photo.size_bytes > _MAX_COPY_BYTES:
        log.warning("quarantine.too_large", message="It stays where it is.", photo_id=str(photo.object_id))
        return
    if not photo.copied and not await _copy(photo, context):
        return
    await _remove(photo, context)
    log.info(
        "photo.quarantined",
        message="A rejected photo was moved.",
        photo_id=str(photo.object_id),
        bucket=photo.bucket,
        key=photo.key,
    )


async def _copy(photo: Rejected, context: Context) -> bool:
    """A copy that is proven to hold the same bytes, and is committed as such. False: other bytes lie there by now."""
    async with context.database.connection() as conn:
        planned = keys.quarantine_key(photo.bucket, photo.filename or photo.key, photo.object_id)
        await quarantine.plan(conn, photo.object_id, context.storage.quarantine_bucket, planned)
        target = await quarantine.find_plan(conn, photo.object_id)
        assert target is not None
    await failpoints.reach("quarantine.planned")
    source = (photo.bucket, photo.key)
    try:
        etag = await context.blobs.copy(source, target, etag=photo.etag)
        await failpoints.reach("quarantine.copied")
        if etag != photo.etag and not await _is_same(context.blobs, (*source, photo.etag), (*target, etag)):
            log.error("quarantine.differs", message="The copy differs.", photo_id=str(photo.object_id))
            return False
    except (NoSuchBlob, BlobChanged):
        return False  # replaced or deleted meanwhile: reconciling sees to it
    async with context.database.connection() as conn:
        await quarantine.mark_copied(conn, photo.object_id, etag)
    await failpoints.reach("quarantine.copy_committed")
    return True


async def _remove(photo: Rejected, context: Context) -> None:
    """Delete the original, if it is still the one that was copied, and the copy is still there."""
    async with context.database.transaction() as conn:
        await objects.lock_key(conn, photo.bucket, photo.key)
        place = await quarantine.find(conn, photo.object_id)
        assert place is not None
        if not await _is_there(context.blobs, place, photo.size_bytes):
            raise BlobRefused("QuarantinedCopyMissing")
        try:
            head = await context.blobs.head(photo.bucket, photo.key)
            if head.etag == photo.etag:
                await context.blobs.delete(photo.bucket, photo.key, etag=photo.etag)
                await failpoints.reach("quarantine.original_deleted")
        except (NoSuchBlob, BlobChanged):
            pass  # an earlier try deleted it, or something new lies there
        await quarantine.mark_removed(conn, photo.object_id)


async def _is_there(blobs: Blobs, place: Place, size_bytes: int) -> bool:
    """Whether the copy is what it was when it was compared."""
    try:
        copy = await blobs.head(place.bucket, place.key)
    except NoSuchBlob:
        return False
    return (copy.etag, copy.size_bytes) == (place.etag, size_bytes)


async def _is_same(blobs: Blobs, one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
    """Whether two objects, as (bucket, key, etag), hold the same bytes. Etags alone do not tell: parts change them."""
    return await _hash(blobs, *one) == await _hash(blobs, *other)


async def _hash(blobs: Blobs, bucket: str, key: str, etag: str) -> tuple[int, bytes]:
    digest, size_bytes = hashlib.sha256(), 0
    async with blobs.open(bucket, key, etag=etag) as reading:
        async for piece in reading.pieces:
            await asyncio.to_thread(digest.update, piece)
            size_bytes += len(piece)
    return size_bytes, digest.digest()
