"""The REST door: photos come in as a form or as a raw body, are streamed to S3 in bounded memory, and are recorded.

The way of an upload: check what can be checked unread -> look at its first bytes -> stream it to S3, hashing ->
ingest.record and, with it, the answer of the Idempotency-Key, in one transaction -> answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from aiohttp import web

from gateway import bodies, catalog, forms, ingest, rendering, retries
from gateway.context import Context
from gateway.errors import RETRY_AFTER_SECONDS, Problem, translate
from gateway.reach import Reach
from gateway.retries import Attempt
from gateway.routing import Call
from gateway.schemas import PhotoDetailSchema, UploadedSchema
from storage import failpoints, keys, multiparts, objects
from storage.blobs import LOCKED_SECONDS, BlobRefused, BlobsUnavailable, NoSuchBlob
from storage.database import Connection, DatabaseUnavailable
from storage.keys import InvalidKey
from storage.memory import MemoryBusy
from storage.objects import StoredObject

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Stored:
    photo_id: uuid.UUID
    sha256: bytes


class MultipartJournal:
    """Names a multipart upload in Postgres while it is under way."""

    def __init__(self, context: Context, bucket: str, key: str) -> None:
        self._context = context
        self._where = (bucket, key)
        self._id = keys.new_id(datetime.now(UTC))

    async def begin(self) -> None:
        async with self._context.database.connection() as conn:
            await multiparts.begin(conn, self._id, *self._where, self._context.gateway_id)

    async def end(self) -> None:
        with contextlib.suppress(DatabaseUnavailable):
            async with self._context.database.connection() as conn:
                await multiparts.finish(conn, self._id)

    async def give_up(self) -> None:
        with contextlib.suppress(DatabaseUnavailable):
            async with self._context.database.connection() as conn:
                await multiparts.give_up(conn, self._id)


async def put_photo(call: Call) -> web.StreamResponse:
    """PUT /v1/photos/{bucket}/{key}: the body is the photo."""
    request, context = call.request, call.context
    bucket = check_bucket(request.match_info["bucket"], context)
    try:
        key = keys.check_key(request.match_info["key"])
    except InvalidKey as error:
        raise Problem("invalid_key", f"{str(error).capitalize()}.") from None
    check_reach(call.reach, bucket, key)
    bodies.check_length(request, context.settings)
    principal = call.principal
    assert principal is not None
    async with (
        context.limits.upload(principal.access_key),
        retries.attempt(request, principal, context.database) as attempt,
    ):
        if attempt.answer is not None:
            retries.check_same(attempt.answer, [await _hash(request.content.read, context)])
            return await answer_one(call, uuid.UUID(attempt.answer[0]["id"]), replayed=True)
        await require_bucket(bucket, context)
        stored = await _store(
            context,
            call.reach,
            attempt,
            request.content.read,
            bucket=bucket,
            key=key,
            filename=keys.safe_filename(key),
            size_bytes=request.content_length,
            last=True,
        )
    return await answer_one(call, stored.photo_id, replayed=False)


async def post_photos(call: Call) -> web.StreamResponse:
    """POST /v1/photos: a form with one or many files."""
    request, context = call.request, call.context
    if request.content_type != "multipart/form-data":
        raise Problem("not_a_form", "Send multipart/form-data, or PUT the bytes to /v1/photos/{bucket}/{key}.")
    bodies.check_encoding(request)
    bucket = check_bucket(call.query.get("bucket", context.storage.default_bucket), context)
    if not call.reach.touches(bucket):
        raise _out_of_reach(call.reach, bucket)
    principal = call.principal
    assert principal is not None
    async with (
        context.limits.upload(principal.access_key),
        retries.attempt(request, principal, context.database) as attempt,
    ):
        if attempt.answer is not None:
            hashes = [await _hash(forms.part_reader(part), context) async for part in forms.files(request, context)]
            retries.check_same(attempt.answer, hashes)
            stored = [Stored(photo_id=uuid.UUID(item["id"]), sha256=b"") for item in attempt.answer]
            return await _answer_many(call, stored, [], replayed=True)
        await require_bucket(bucket, context)
        stored, errors = await _store_form(call, attempt, bucket)
    return await _answer_many(call, stored, errors, replayed=False)


async def _store_form(call: Call, attempt: Attempt, bucket: str) -> tuple[list[Stored], list[dict[str, Any]]]:
    """Store the form's files one after the other. A file at fault is noted and the next one read; where none could be
    stored, the first fault is the answer."""
    stored: list[Stored] = []
    errors: list[dict[str, Any]] = []
    index = 0
    async for part in forms.files(call.request, call.context):
        filename = keys.safe_filename(part.filename)
        try:
            stored.append(
                await _store(
                    call.context,
                    call.reach,
                    attempt,
                    forms.part_reader(part),
                    bucket=bucket,
                    key=None,
                    filename=filename,
                    index=index,
                )
            )
        except (Problem, BlobRefused, BlobsUnavailable, DatabaseUnavailable, MemoryBusy) as error:
            problem = translate(error)
            hopeless = problem.status >= 500 or problem.code == "forbidden"  # for the next files too
            if problem.code in ("body_timeout", "body_cut_short") or (hopeless and not stored):
                raise problem from error
            errors.append({**problem.as_json(), "filename": filename, "index": index})
        index += 1
    if not stored:
        if not errors:
            raise Problem("no_files", "Add a file to the form: curl -F file=@photo.jpg ...")
        first = errors[0]
        raise Problem(first["code"], first["detail"], errors=errors)

    async def keep_answer(conn: Connection) -> None:
        await attempt.finish(conn, [(item.photo_id, item.sha256) for item in stored])

    try:
        await call.context.database.persist(keep_answer, for_seconds=call.context.settings.record_seconds)
    except DatabaseUnavailable as error:
        raise _stored_unseen([item.photo_id for item in stored]) from error
    return stored, errors


async def _store(
    context: Context,
    reach: Reach,
    attempt: Attempt,
    read: bodies.Read,
    *,
    bucket: str,
    key: str | None,
    filename: str | None,
    size_bytes: int | None = None,
    index: int = 0,
    last: bool = False,
) -> Stored:
    """One photo into S3 and the database. `last`: it ends the request, so its transaction keeps the answer too."""
    body = await bodies.open_photo(read, context)
    key = await attempt.assign(
        context.database, index, bucket=bucket, key=key, filename=filename, extension=body.format.extension
    )
    check_reach(reach, bucket, key)  # again: where the client named none, the key is known only now
    written = await context.blobs.store(
        bucket,
        key,
        body.pieces,
        content_type=body.format.content_type,
        memory=context.memory,
        size_bytes=size_bytes,
        journal=MultipartJournal(context, bucket, key),
    )
    stored = StoredObject(
        id=keys.new_id(datetime.now(UTC)),
        bucket=bucket,
        key=key,
        etag=written.etag,
        version_id=written.version_id,
        sha256=written.sha256,
        size_bytes=written.size_bytes,
        content_type=body.format.content_type,
        filename=filename,
    )

    async def read_etag() -> str | None:
        with contextlib.suppress(NoSuchBlob):
            return (await context.blobs.head(bucket, key, within_seconds=LOCKED_SECONDS)).etag
        return None

    async def record(conn: Connection) -> objects.Recorded:
        recorded = await ingest.record(conn, stored, context.jobs, asked_for=True, read_etag=read_etag)
        assert recorded is not None
        if last:
            await attempt.finish(conn, [(recorded.id, written.sha256)])
        await failpoints.reach("tx.before_commit")
        return recorded

    recorded = await context.database.persist(record, for_seconds=context.settings.record_seconds)
    await failpoints.reach("tx.after_commit")
    context.dispatcher.wake()
    log.info(
        "photo.stored",
        message="A photo was stored.",
        photo_id=str(recorded.id),
        bucket=bucket,
        key=key,
        size_bytes=written.size_bytes,
        new=recorded.created,
    )
    return Stored(photo_id=recorded.id, sha256=written.sha256)


async def _hash(read: bodies.Read, context: Context) -> bytes:
    body = await bodies.open_photo(read, context)
    digest = hashlib.sha256()
    async for piece in body.pieces:
        await asyncio.to_thread(digest.update, piece)
    return digest.digest()


def check_bucket(bucket: str, context: Context) -> str:
    """The bucket's name, if photos may be stored there. Raises Problem invalid_key, derived_bucket_is_read_only."""
    try:
        keys.check_bucket(bucket)
    except InvalidKey as error:
        raise Problem("invalid_key", f"{str(error).capitalize()}.") from None
    if bucket in context.storage.closed_buckets:
        raise Problem("derived_bucket_is_read_only", "Name another bucket.")
    return bucket


def check_reach(reach: Reach, bucket: str, key: str) -> None:
    """Raises Problem forbidden where a limited key may not store there."""
    if not reach.covers(bucket, key):
        raise _out_of_reach(reach, f"{bucket}/{key}")


def _out_of_reach(reach: Reach, what: str) -> Problem:
    return Problem("forbidden", f"This key is limited to {', '.join(reach.places)}, and {what} lies outside.")


async def require_bucket(bucket: str, context: Context) -> None:
    """Raises Problem no_such_bucket."""
    if not await context.blobs.has_bucket(bucket):
        raise Problem("no_such_bucket", "Create the bucket in the storage, or name one that exists.")


async def answer_one(
    call: Call, photo_id: uuid.UUID, *, replayed: bool = False, status: int = 201
) -> web.StreamResponse:
    """The photo, once it has settled or ?wait= is over. Raises Problem no_such_photo."""
    (photo,) = await _load(call, [photo_id])
    headers = {"Location": photo["links"]["self"]} | _replayed(replayed)
    return rendering.answer(PhotoDetailSchema, photo, status=status, headers=headers)


async def _answer_many(
    call: Call, stored: list[Stored], errors: list[dict[str, Any]], *, replayed: bool
) -> web.StreamResponse:
    photos = await _load(call, [item.photo_id for item in stored])
    headers = _replayed(replayed)
    if len(photos) == 1:
        headers["Location"] = photos[0]["links"]["self"]
    return rendering.answer(
        UploadedSchema, {"photos": photos, "errors": errors}, status=207 if errors else 201, headers=headers
    )


async def _load(call: Call, photo_ids: list[uuid.UUID]) -> list[dict[str, Any]]:
    """The photos as they are answered: when they have settled, or ?wait= seconds from now."""
    await failpoints.reach("reply.before")
    deadline = time.monotonic() + min(call.query["wait"], call.context.settings.max_wait_seconds)
    try:
        return [await _load_one(call, photo_id, deadline) for photo_id in photo_ids]
    except DatabaseUnavailable as error:
        raise _stored_unseen(photo_ids) from error


async def _load_one(call: Call, photo_id: uuid.UUID, deadline: float) -> dict[str, Any]:
    context, left_seconds = call.context, deadline - time.monotonic()
    if left_seconds > 0:
        await context.watch.wait(photo_id, partial(catalog.is_settled, context, photo_id), seconds=left_seconds)
    load = partial(rendering.load_photo, photo_id=photo_id, settings=context.jobs, traces=False)
    # It is stored: Postgres is waited for, as when it was recorded, before the client is sent to try again.
    photo = await context.database.persist(load, for_seconds=context.settings.record_seconds)
    if photo is None or not call.reach.covers(photo["bucket"], photo["key"]):
        raise Problem("no_such_photo", "It was deleted in the meantime, or this key was limited to other places.")
    return photo


def _stored_unseen(photo_ids: list[uuid.UUID]) -> Problem:
    """Postgres went away after the commit: whoever is told that nothing was accepted might send another photo."""
    return Problem(
        "database_unavailable",
        "What was sent is stored, and cannot be shown at the moment. Ask for it later, or send the same again with the "
        "same Idempotency-Key.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        stored=[str(photo_id) for photo_id in photo_ids],
    )


def _replayed(replayed: bool) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if replayed else {}
