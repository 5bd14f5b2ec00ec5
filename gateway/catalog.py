"""Reading photos back: lists, facts, previews, originals; and deleting them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import quote

import structlog
from aiohttp import web

from gateway import ranges, rendering
from gateway.context import Context
from gateway.errors import Problem
from gateway.ranges import Span
from gateway.routing import Call
from gateway.schemas import ExifSchema, PhotoDetailSchema, PhotoPageSchema, encode_cursor
from storage import facts, failpoints, garbage, objects, quarantine
from storage.blobs import BlobChanged, BlobsUnavailable, NoSuchBlob
from storage.database import Connection
from storage.objects import PhotoFilter

log = structlog.get_logger(__name__)

# What a photo's bytes are served with: never guessed at, never run, never embedded by other sites unasked.
_CLOSED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Accept-Ranges": "bytes",
}


async def list_photos(call: Call) -> web.StreamResponse:
    query = dict(call.query)
    limit, after = query.pop("limit"), query.pop("cursor", None)
    async with call.context.database.connection() as conn:
        wanted = PhotoFilter(**query, places=call.reach.places)
        rows = await objects.list_current(conn, wanted, after=after, limit=limit + 1)
        photos = await rendering.load_photos(conn, rows[:limit], call.context.jobs, traces=_traces(call))
    more = len(rows) > limit
    last = rows[limit - 1] if more else None
    cursor = encode_cursor(f"{last['created_at'].isoformat()}|{last['id']}") if last else None
    return rendering.answer(PhotoPageSchema, {"photos": photos, "next_cursor": cursor})


async def get_photo(call: Call) -> web.StreamResponse:
    """At once, or with ?wait= when it has settled, or after that many seconds."""
    context, photo_id = call.context, _photo_id(call)
    seconds = min(call.query["wait"], context.settings.max_wait_seconds)
    if seconds > 0:
        await _find(call)  # nobody waits for what they may not see
        await context.watch.wait(photo_id, partial(is_settled, context, photo_id), seconds=seconds)
    async with context.database.connection() as conn:
        photo = await rendering.load_photo(conn, photo_id, call.context.jobs, traces=_traces(call))
    if photo is None or not call.reach.covers(photo["bucket"], photo["key"]):
        raise _no_such_photo()
    return rendering.answer(PhotoDetailSchema, photo)


async def is_settled(context: Context, photo_id: uuid.UUID) -> bool:
    """Whether nothing more is to be done for it, or it is gone."""
    async with context.database.connection() as conn:
        row = await objects.get(conn, photo_id)
    return row is None or row["settled_at"] is not None


async def get_exif(call: Call) -> web.StreamResponse:
    photo = await _find(call)
    async with call.context.database.connection() as conn:
        found = await facts.get_facts(conn, photo["id"])
    if "exif" not in found:
        raise Problem("no_facts", _why_not_yet(photo, "EXIF"), status_of_photo=photo["status"])
    return rendering.answer(ExifSchema, found["exif"])


async def get_preview(call: Call) -> web.StreamResponse:
    photo = await _find_current(call)
    preset = call.request.match_info["preset"]
    async with call.context.database.connection() as conn:
        artifact = await facts.get_artifact(conn, photo["id"], preset)
    if artifact is None:
        known = [item.name for item in call.context.jobs.previews_for(photo["bucket"], photo["key"])]
        if preset not in known:
            there = f"There are {', '.join(known)}." if known else "None are made of what lies there (SAFELIGHT_HOOKS)."
            raise Problem("no_such_preview", there)
        raise Problem("no_such_preview", _why_not_yet(photo, "preview"), status_of_photo=photo["status"])
    headers = {
        **_CLOSED,
        "Content-Type": artifact["content_type"],
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": f'inline; filename="{artifact["key"].rsplit("/", 1)[-1]}"',
    }
    return await _send(call, artifact, tag=artifact["sha256"].hex(), modified=artifact["created_at"], headers=headers)


async def get_original(call: Call) -> web.StreamResponse:
    photo = await _find_current(call)
    name = photo["filename"] or photo["key"].rsplit("/", 1)[-1]
    headers = {
        **_CLOSED,
        "Content-Type": photo["content_type"],
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    tag = photo["sha256"].hex() if photo["sha256"] else photo["etag"]
    if photo["status"] == "rejected":
        async with call.context.database.connection() as conn:
            if place := await quarantine.find(conn, photo["id"]):
                photo |= {"bucket": place.bucket, "key": place.key, "etag": place.etag}
    return await _send(call, photo, tag=tag, modified=photo["created_at"], headers=headers)


async def delete_photo(call: Call) -> web.StreamResponse:
    """The original goes first, then the row; the previews follow, now or by the sweep of what is left over."""
    photo = await _find_current(call)
    context, bucket, key = call.context, photo["bucket"], photo["key"]
    async with context.database.transaction() as conn:
        await objects.lock_key(conn, bucket, key)
        current = await objects.find_current(conn, bucket, key)
        if current is None or current["id"] != photo["id"]:
            raise _superseded()
        await _delete_original(conn, context, current)
        await objects.mark_deleted(conn, bucket, key, from_quarantine=True)
    log.info("photo.deleted", message="A photo was deleted.", photo_id=str(photo["id"]), actor=call.actor)
    try:
        await sweep_garbage(context, bucket=bucket, key=key)
    except BlobsUnavailable:
        log.warning("photo.previews_left", message="Its previews are deleted later.", photo_id=str(photo["id"]))
    return web.Response(status=204)


async def _delete_original(conn: Connection, context: Context, photo: dict[str, Any]) -> None:
    """Delete a photo's bytes, in quarantine too. What lies under the key of a quarantined photo may be another's."""
    copy = await quarantine.find_plan(conn, photo["id"])
    if copy is None:
        await context.blobs.delete(photo["bucket"], photo["key"])
        return
    await context.blobs.delete(*copy)
    with contextlib.suppress(NoSuchBlob):
        if (await context.blobs.head(photo["bucket"], photo["key"])).etag == photo["etag"]:
            await context.blobs.delete(photo["bucket"], photo["key"])


async def sweep_garbage(context: Context, *, bucket: str | None = None, key: str | None = None) -> int:
    """Delete the derived objects of one deleted photo, of any where none is named. Returns how many."""
    async with context.database.transaction() as conn:
        found = await garbage.pick(conn, bucket=bucket, key=key)
        for item in found:
            await failpoints.reach("sweep.before_delete")
            await context.blobs.delete(item.bucket, item.key)
        await garbage.forget(conn, found)
    return len(found)


async def _send(
    call: Call, stored: dict[str, Any], *, tag: str, modified: Any, headers: dict[str, str]
) -> web.StreamResponse:
    """Stream an object: conditional and ranged, held in memory a piece at a time."""
    request = call.request
    headers |= {"ETag": f'"{tag}"', "Last-Modified": ranges.http_date(modified)}
    if ranges.not_modified(request, tag, modified):
        return web.Response(status=304, headers={k: v for k, v in headers.items() if k != "Content-Type"})
    span = ranges.wanted(request, tag, stored["size_bytes"])
    whole = span is None
    span = span or Span(first=0, last=stored["size_bytes"] - 1)
    headers["Content-Length"] = str(span.size_bytes)
    if not whole:
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{stored['size_bytes']}"
    status = 200 if whole else 206
    if request.method == "HEAD":
        return web.Response(status=status, headers=headers)
    try:
        async with call.context.blobs.open(
            stored["bucket"],
            stored["key"],
            etag=stored["etag"],
            byte_range=None if whole else f"bytes={span.first}-{span.last}",
        ) as reading:
            response = web.StreamResponse(status=status, headers=headers)
            await response.prepare(request)
            await _copy(reading.pieces, response, request)
            return response
    except (NoSuchBlob, BlobChanged):
        raise Problem(
            "original_missing", "It was deleted or replaced in the storage. `safelight reconcile` repairs that."
        ) from None


async def _copy(pieces: AsyncIterator[bytes], response: web.StreamResponse, request: web.Request) -> None:
    """Send the body. Once its head is sent, a failure can only be told by breaking the connection."""
    try:
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
    except BlobsUnavailable as error:
        log.warning(
            "answer.broken", message="The storage failed during an answer.", path=request.path, error=repr(error)
        )
        response.force_close()
        if request.transport is not None:
            request.transport.abort()


async def _find(call: Call) -> dict[str, Any]:
    async with call.context.database.connection() as conn:
        photo = await objects.get(conn, _photo_id(call))
    if photo is None or not call.reach.covers(photo["bucket"], photo["key"]):
        raise _no_such_photo()
    return photo


async def _find_current(call: Call) -> dict[str, Any]:
    photo = await _find(call)
    if photo["superseded_at"] is not None:
        raise _superseded()
    return photo


def _photo_id(call: Call) -> uuid.UUID:
    try:
        return uuid.UUID(call.request.match_info["photo_id"])
    except ValueError:
        raise _no_such_photo() from None


def _no_such_photo() -> Problem:
    return Problem("no_such_photo", "GET /v1/photos lists those that there are.")


def _superseded() -> Problem:
    return Problem("photo_superseded", "GET /v1/photos?prefix=<its key> finds the one that is there now.")


def _why_not_yet(photo: dict[str, Any], what: str) -> str:
    match photo["status"]:
        case "processing":
            return f"The {what} is not ready yet. Ask again in a moment."
        case "rejected":
            return f"The photo was rejected: {photo['rejection']['code']}."
        case _:
            return f"The {what} could not be made. GET /v1/photos/{photo['id']} shows which job failed, and why."


def _traces(call: Call) -> bool:
    return call.principal is not None and "admin" in call.principal.scopes
