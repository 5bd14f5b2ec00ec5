"""What follows the opening of a direct upload: more addresses, its state, `complete`, and its abortion."""

from __future__ import annotations

import contextlib
import uuid
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import web

from gateway import rendering
from gateway import uploads as rest
from gateway.context import Context
from gateway.direct import arrival
from gateway.direct.addresses import Addresses
from gateway.direct.opening import show
from gateway.direct.schemas import PartAddressesSchema, UploadDetailSchema, UploadPageSchema
from gateway.errors import Problem
from gateway.routing import Call
from gateway.schemas import encode_cursor
from storage import objects, quarantine, uploads
from storage.blobs import BlobRefused, BlobsUnavailable, Head, NoSuchBlob, NoSuchBucket, OpenUpload
from storage.uploads import Upload

log = structlog.get_logger(__name__)


async def list_uploads(call: Call) -> web.StreamResponse:
    """GET /v1/uploads."""
    query = dict(call.query)
    limit, after = query.pop("limit"), query.pop("cursor", None)
    async with call.context.database.connection() as conn:
        found = await uploads.list_page(conn, **query, places=call.reach.places, after=after, limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    cursor = encode_cursor(f"{last.created_at.isoformat()}|{last.id}") if last else None
    return rendering.answer(
        UploadPageSchema, {"uploads": [show(upload) for upload in found[:limit]], "next_cursor": cursor}
    )


async def get_upload(call: Call) -> web.StreamResponse:
    """GET /v1/uploads/{upload_id}."""
    upload = await _find(call)
    content = show(upload)
    if upload.object_id is not None:
        content |= await _describe_photo(upload.object_id, call.context)
    elif upload.method == "multipart":
        content["arrived_parts"] = await _list_parts(upload, call.context)
    return rendering.answer(UploadDetailSchema, content)


async def sign_parts(call: Call) -> web.StreamResponse:
    """POST /v1/uploads/{upload_id}/parts."""
    upload, body = await _find(call), call.body
    if upload.method != "multipart":
        raise Problem("upload_not_open", "Only multipart uploads have parts.")
    addresses = _addresses(upload, call.context)
    if upload.status != "open" or addresses.seconds_left < 1:
        raise Problem("upload_not_open", "It is stored, or its time is over. Open a new one for other bytes.")
    if "numbers" in body:
        if max(body["numbers"]) > upload.parts:
            raise Problem(
                "invalid_request", f"numbers: It has {upload.parts} parts.", errors={"numbers": ["Too high."]}
            )
        content: dict[str, Any] = {"parts": addresses.parts(sorted(set(body["numbers"]))), "next_after": None}
    else:
        content = addresses.parts_after(body["after"], body["limit"])
    return rendering.answer(PartAddressesSchema, {**content, "expires_at": upload.expires_at})


async def complete_upload(call: Call) -> web.StreamResponse:
    """POST /v1/uploads/{upload_id}/complete."""
    upload = await _find(call)
    if upload.object_id is not None:
        return await rest.answer_one(call, upload.object_id, status=200)
    etags = {part["number"]: part["etag"].strip('"') for part in call.body.get("parts", ())}
    recorded = await arrival.take(upload, call.context, etags=etags)
    return await rest.answer_one(call, recorded.id, status=201 if recorded.created else 200)


async def abort_upload(call: Call) -> web.StreamResponse:
    """DELETE /v1/uploads/{upload_id}."""
    upload, context = await _find(call), call.context
    async with context.database.transaction() as conn:
        await objects.lock_key(conn, upload.bucket, upload.key)
        current = await objects.find_current(conn, upload.bucket, upload.key)
        head = await _find_arrived(upload, context)
        if current is not None and head is not None and current["etag"] == head.etag:
            await uploads.settle(conn, upload.id, upload.bucket, upload.key, current["id"])
            upload_photo_id = current["id"]
        else:
            upload_photo_id = upload.object_id
        if upload_photo_id is None:
            if head is not None:
                await context.blobs.delete(upload.bucket, upload.key, etag=head.etag)
            await uploads.abort(conn, upload.id)
    if upload_photo_id is not None:
        raise Problem(
            "upload_stored", f"DELETE /v1/photos/{upload_photo_id} deletes it.", photo_id=str(upload_photo_id)
        )
    with contextlib.suppress(BlobsUnavailable, BlobRefused):  # the sweep does it, later
        await abort_multipart(upload, context)
    log.info("upload.aborted", message="A direct upload was aborted.", upload_id=str(upload.id), actor=call.actor)
    return web.Response(status=204)


async def abort_multipart(upload: Upload, context: Context) -> None:
    """Have the storage forget the parts, if it has any."""
    if upload.multipart_id is None:
        return
    begun = OpenUpload(key=upload.key, upload_id=upload.multipart_id, begun_at=datetime.now(UTC))
    with contextlib.suppress(NoSuchBucket):
        await context.blobs.abort_upload(upload.bucket, begun)


async def _find(call: Call) -> Upload:
    """The upload of the address. One that was aborted, or that lies out of reach, does not exist."""
    try:
        upload_id = uuid.UUID(call.request.match_info["upload_id"])
    except ValueError:
        raise _no_such_upload() from None
    async with call.context.database.connection() as conn:
        upload = await uploads.find(conn, upload_id)
    if upload is None or upload.status == "aborted" or not call.reach.covers(upload.bucket, upload.key):
        raise _no_such_upload()
    return upload


def _no_such_upload() -> Problem:
    return Problem("no_such_upload", "POST /v1/uploads opens one; GET /v1/uploads lists those that there are.")


def _addresses(upload: Upload, context: Context) -> Addresses:
    return Addresses(upload, context.storage, max_bytes=context.settings.max_upload_bytes)


async def _find_arrived(upload: Upload, context: Context) -> Head | None:
    try:
        return await arrival.find(upload, context)
    except (NoSuchBlob, NoSuchBucket, Problem):
        return None


async def _list_parts(upload: Upload, context: Context) -> list[dict[str, Any]]:
    assert upload.multipart_id is not None
    try:
        parts = await context.blobs.list_parts(upload.bucket, upload.key, upload.multipart_id)
    except (NoSuchBlob, NoSuchBucket):
        return []
    return [{"number": part.number, "size_bytes": part.size_bytes, "etag": part.etag} for part in parts]


async def _describe_photo(photo_id: uuid.UUID, context: Context) -> dict[str, Any]:
    async with context.database.connection() as conn:
        photo = await objects.get(conn, photo_id)
        place = await quarantine.find(conn, photo_id)
    return {
        "photo_status": photo["status"] if photo else None,
        "rejection": photo["rejection"] if photo else None,
        "quarantine": {"bucket": place.bucket, "key": place.key} if place and photo else None,
    }
