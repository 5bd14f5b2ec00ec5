"""What nobody completes is seen to: bytes that arrived are recorded, the rest is aborted and closed. Part of the
housekeeping of every gateway; each step may be done by several at once."""

from __future__ import annotations

import structlog

from gateway.context import Context
from gateway.direct import arrival
from gateway.direct.following import abort_multipart
from gateway.errors import Problem
from gateway.quarantine import move_rejected
from storage import uploads
from storage.blobs import BlobRefused
from storage.uploads import Upload

log = structlog.get_logger(__name__)

_KEPT_HOURS = 7 * 24.0


async def sweep(context: Context) -> None:
    """One turn. Raises BlobsUnavailable, DatabaseUnavailable."""
    async with context.database.connection() as conn:
        overdue = await uploads.list_overdue(conn, grace_seconds=context.settings.reconcile_grace_seconds)
    for upload in overdue:
        try:
            await _end(upload, context)
        except BlobRefused as error:
            log.warning(
                "upload.stuck",
                message="The storage refuses what would end a direct upload.",
                upload_id=str(upload.id),
                error=repr(error),
            )
    async with context.database.connection() as conn:
        await uploads.close_settled(conn, keep_rejected=bool(context.storage.quarantine_bucket))
        await uploads.prune(conn, older_than_hours=_KEPT_HOURS)
    await move_rejected(context)


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
