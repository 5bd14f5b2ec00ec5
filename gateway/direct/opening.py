"""POST /v1/uploads: agree on what will come, and sign the addresses at which the storage takes it.

A multipart upload is begun in the storage before its row is committed, and is named in the journal of uploads under way
meanwhile, so that one of a gateway that died is aborted like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import web

from gateway import rendering, retries
from gateway import uploads as rest
from gateway.context import Context
from gateway.direct.addresses import UNKNOWN_TYPE, Addresses, signed_type
from gateway.direct.schemas import MAX_PART_BYTES, MAX_PARTS, OpenedUploadSchema
from gateway.errors import Problem
from gateway.retries import Attempt
from gateway.routing import Call
from processors.photos import formats
from storage import failpoints, keys, multiparts, objects, uploads
from storage.blobs import BlobRefused, BlobsUnavailable, NoSuchBlob, OpenUpload
from storage.database import DatabaseUnavailable
from storage.keys import InvalidKey
from storage.uploads import Upload, Wanted

log = structlog.get_logger(__name__)

_PART_BYTES = 8 << 20
_MIB = 1 << 20
_PLACEHOLDER = "${filename}"  # forms replace it within a key by the name of the file that is sent
_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", UNKNOWN_TYPE: None}


async def open_upload(call: Call) -> web.StreamResponse:
    """POST /v1/uploads."""
    context, principal = call.context, call.principal
    assert principal is not None
    body = {name: value for name, value in call.body.items() if value is not None}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    async with retries.attempt(call.request, principal, context.database) as attempt:
        if attempt.answer is not None:
            retries.check_same(attempt.answer, [digest])
            return await _answer_again(call, attempt.answer[0]["id"])
        wanted = _agree(body, principal.access_key, context)
        rest.check_reach(call.reach, wanted.bucket, wanted.key)
        await rest.require_bucket(wanted.bucket, context)
        if "key" in body:
            await _require_free(wanted.bucket, wanted.key, context)
        begin = _begin_multipart if wanted.method == "multipart" else _begin
        upload = await begin(wanted, attempt, digest, context)
    log.info(
        "upload.opened",
        message="A direct upload was opened.",
        upload_id=str(upload.id),
        method=upload.method,
        bucket=upload.bucket,
        key=upload.key,
        actor=call.actor,
    )
    return _answer(upload, context, {})


def show(upload: Upload) -> dict[str, Any]:
    """An upload as clients see it, without addresses."""
    here = f"/v1/uploads/{upload.id}"
    links = {"self": here, "complete": f"{here}/complete"}
    if upload.method == "multipart":
        links["parts"] = f"{here}/parts"
    if upload.object_id is not None:
        links["photo"] = f"/v1/photos/{upload.object_id}"
    return {
        **{name: getattr(upload, name) for name in upload.__dataclass_fields__},
        "part_count": upload.parts if upload.method == "multipart" else None,
        "links": links,
    }


def _agree(body: Mapping[str, Any], principal: str, context: Context) -> Wanted:
    """What the body asks for, with everything decided that it leaves open. Raises Problem."""
    now = datetime.now(UTC)
    upload_id = keys.new_id(now)
    bucket = rest.check_bucket(body.get("bucket", context.storage.default_bucket), context)
    content_type = _check_type(body.get("content_type"))
    filename = keys.safe_filename(body.get("filename"))
    size_bytes = body.get("size_bytes")
    _check_size(body["method"], size_bytes, context)
    if "key" in body:
        key = _check_key(body["key"], body["method"])
        filename = filename or keys.safe_filename(key)
    else:
        kind = signed_type(content_type, filename, "")
        extension = next((item.extension for item in formats.FORMATS if item.content_type == kind), "img")
        plain = filename.replace(_PLACEHOLDER, "filename") if filename else None
        key = keys.upload_key(upload_id, plain, extension, now)
    return Wanted(
        id=upload_id,
        principal=principal,
        method=body["method"],
        bucket=bucket,
        key=key,
        filename=filename,
        content_type=content_type,
        size_bytes=size_bytes,
        part_bytes=_choose_part_bytes(body),
    )


def _check_type(stated: str | None) -> str | None:
    """The promised kind of photo; None for no promise. Raises Problem unsupported_format."""
    if stated is None:
        return None
    plain = stated.strip().lower()
    plain = _ALIASES.get(plain, plain) or ""
    if plain and plain not in {item.content_type for item in formats.FORMATS}:
        accepted = ", ".join(item.content_type for item in formats.FORMATS)
        raise Problem("unsupported_format", f"Accepted are {accepted}; leave content_type out where it is not known.")
    return plain or None


def _check_size(method: str, size_bytes: int | None, context: Context) -> None:
    most = context.settings.max_upload_bytes
    if size_bytes is not None and size_bytes > most:
        raise Problem("too_large", f"At most {most} bytes are taken (SAFELIGHT_MAX_UPLOAD_BYTES).", max_bytes=most)
    if method != "post" and size_bytes is None:
        raise _invalid(
            "size_bytes", f"Needed for {method}: nothing else bounds what its addresses take. A form needs none."
        )
    if method != "multipart" and size_bytes is not None and size_bytes > MAX_PART_BYTES:
        raise _invalid("method", f"More than {MAX_PART_BYTES} bytes need the method multipart.")


def _check_key(stated: str, method: str) -> str:
    try:
        key = keys.check_key(stated)
    except InvalidKey as error:
        raise Problem("invalid_key", f"{str(error).capitalize()}.") from None
    if method == "post" and _PLACEHOLDER in key:
        raise Problem("invalid_key", "Forms replace ${filename} within a key. Name another one.")
    return key


def _choose_part_bytes(body: Mapping[str, Any]) -> int | None:
    if body["method"] != "multipart":
        if "part_bytes" in body:
            raise _invalid("part_bytes", "Only a multipart upload has parts.")
        return None
    size_bytes = body["size_bytes"]
    least = -(-size_bytes // MAX_PARTS)
    part_bytes: int = body.get("part_bytes") or max(_PART_BYTES, -(-least // _MIB) * _MIB)
    if part_bytes < least:
        raise _invalid("part_bytes", f"At most {MAX_PARTS} parts are possible: take {least} bytes or more.")
    return part_bytes


def _invalid(name: str, text: str) -> Problem:
    return Problem("invalid_request", f"{name}: {text}", errors={name: [text]})


async def _require_free(bucket: str, key: str, context: Context) -> None:
    """A direct upload never replaces anything. The storage itself is asked to hold to that, too, where it can."""
    async with context.database.connection() as conn:
        taken = await objects.find_current(conn, bucket, key) is not None
    if not taken:
        with contextlib.suppress(NoSuchBlob):
            await context.blobs.head(bucket, key)
            taken = True
    if taken:
        raise Problem(
            "key_taken", "Name another key, or none. To replace a photo, PUT it to /v1/photos/{bucket}/{key}."
        )


async def _begin(wanted: Wanted, attempt: Attempt, digest: bytes, context: Context) -> Upload:
    """The row, the answer of the Idempotency-Key and the end of the journal's entry, in one transaction."""
    settings = context.settings
    async with context.database.transaction() as conn:
        upload = await uploads.begin(
            conn, wanted, expires_seconds=settings.direct_upload_seconds, max_open=settings.max_open_uploads
        )
        if upload is None:
            raise _too_many(context)
        await multiparts.finish(conn, wanted.id)
        await attempt.finish(conn, [(upload.id, digest)])
        return upload


async def _begin_multipart(wanted: Wanted, attempt: Attempt, digest: bytes, context: Context) -> Upload:
    async with context.database.connection() as conn:
        if await uploads.count_open(conn, wanted.principal) >= context.settings.max_open_uploads:
            raise _too_many(context)
        await multiparts.begin(conn, wanted.id, wanted.bucket, wanted.key, context.gateway_id)
    multipart_id = await context.blobs.begin_upload(
        wanted.bucket,
        wanted.key,
        content_type=signed_type(wanted.content_type, wanted.filename, wanted.key),
        metadata={uploads.METADATA: str(wanted.id)},
    )
    await failpoints.reach("upload.multipart_begun")
    try:
        return await _begin(replace(wanted, multipart_id=multipart_id), attempt, digest, context)
    except DatabaseUnavailable:
        raise  # it may have been committed: what the journal still names when this gateway ends is aborted then
    except BaseException:
        await asyncio.shield(_abort(wanted, multipart_id, context))
        raise


async def _abort(wanted: Wanted, multipart_id: str, context: Context) -> None:
    with contextlib.suppress(BlobsUnavailable, BlobRefused, DatabaseUnavailable):
        begun = OpenUpload(key=wanted.key, upload_id=multipart_id, begun_at=datetime.now(UTC))
        await context.blobs.abort_upload(wanted.bucket, begun)
        async with context.database.connection() as conn:
            await multiparts.finish(conn, wanted.id)


def _too_many(context: Context) -> Problem:
    return Problem(
        "too_many_open_uploads",
        f"A key may have {context.settings.max_open_uploads} (SAFELIGHT_MAX_OPEN_UPLOADS). Complete or abort some.",
        headers={"Retry-After": "60"},
    )


async def _answer_again(call: Call, upload_id: str) -> web.StreamResponse:
    async with call.context.database.connection() as conn:
        upload = await uploads.find(conn, uuid.UUID(upload_id))
    if upload is None or upload.status == "aborted" or not call.reach.covers(upload.bucket, upload.key):
        raise Problem(
            "no_such_upload", "It was aborted or forgotten since. Open a new one, with a new Idempotency-Key."
        )
    return _answer(upload, call.context, {"Idempotent-Replayed": "true"})


def _answer(upload: Upload, context: Context, headers: Mapping[str, str]) -> web.StreamResponse:
    addresses = Addresses(upload, context.storage, max_bytes=context.settings.max_upload_bytes)
    return rendering.answer(
        OpenedUploadSchema,
        {**show(upload), **addresses.describe()},
        status=201,
        headers={"Location": f"/v1/uploads/{upload.id}", **headers},
    )
