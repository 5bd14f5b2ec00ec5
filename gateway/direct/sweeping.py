"""What nobody completes is seen to: bytes that arrived are recorded, the rest is aborted and closed. Part of the
housekeeping of every gateway; each step may be done by several at once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

import structlog

from gateway.context import Context
from gateway.direct import arrival
from gateway.direct.following import abort_multipart
from gateway.errors import Problem
from gateway.quarantine import move_rejected
from storage import uploads
from storage.blobs import BlobRefused, BlobsDenied
from storage.denials import refuses_all
from storage.uploads import Upload

log = structlog.get_logger(__name__)

PAGE_UPLOADS = 100
_KEPT_HOURS = 7 * 24.0


@dataclass
class Bookmark:
    """Where the next turn goes on, so that what the storage refuses does not keep the rest from its turn. None: at the
    beginning."""

    overdue: tuple[datetime, uuid.UUID] | None = None
    rejected: tuple[datetime, uuid.UUID] | None = None


async def sweep(context: Context, bookmark: Bookmark | None = None) -> None:
    """One turn: a page of each. Raises BlobsUnavailable, DatabaseUnavailable."""
    bookmark = bookmark or Bookmark()
    async with context.database.connection() as conn:
        grace_seconds = context.settings.reconcile_grace_seconds
        overdue = await uploads.list_overdue(
            conn, grace_seconds=grace_seconds, after=bookmark.overdue, limit=PAGE_UPLOADS
        )
    for upload in overdue:
        try:
            await _end(upload, context)
        except (BlobRefused, BlobsDenied) as error:
            if isinstance(error, BlobsDenied) and await refuses_all(context.blobs, upload.bucket):
                raise
            log.warning(
                "upload.stuck",
                message="The storage refuses what would end a direct upload.",
                upload_id=str(upload.id),
                error=repr(error),
            )
    bookmark.overdue = (overdue[-1].expires_at, overdue[-1].id) if len(overdue) == PAGE_UPLOADS else None
    async with context.database.connection() as conn:
        await uploads.close_settled(conn, keep_rejected=bool(context.storage.quarantine_bucket))
        await uploads.prune(conn, older_than_hours=_KEPT_HOURS)
    bookmark.rejected = await move_rejected(context, after=bookmark.rejected)


async def _end(upload: Upload, context: Context) -> None:
    if upload.status != "aborted":
        try:
            await arrival.take(upload, context)
        except Problem as problem:
            log.info(
                "upload.expired",
                message="A direct upload never arrived.",
                upload_id=str(upload.id),
                code=problem.code,
                bucket=upload.bucket,
                key=upload.key,
            )
        else:
            return  # closed once its photo has settled
    await abort_multipart(upload, context)
    async with context.database.connection() as conn:
        await uploads.close(conn, upload.id)
