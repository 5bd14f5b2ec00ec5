"""Objects: one row for each stored generation of bytes. Functions take a connection first.

`record` is where every accepted photo passes: object and jobs in one transaction, idempotent on (bucket, key, etag,
version). Does no S3; what the storage really holds was read by the caller.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage import events, uploads
from storage.database import JOB_CHANNEL, PHOTO_CHANNEL, Connection

_CURRENT = "superseded_at is null and deleted_at is null"


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """Bytes that lie in S3, as a door or a HEAD found them."""

    id: uuid.UUID
    bucket: str
    key: str
    etag: str  # without quotes
    size_bytes: int
    content_type: str
    version_id: str | None = None
    sha256: bytes | None = None  # 32 bytes
    filename: str | None = None
    upload_id: uuid.UUID | None = None  # of the direct upload that its metadata names (storage.uploads.read_id)
    rejection: Mapping[str, str] | None = None  # {code, detail}: the door sees already that it is no photo; no jobs
    request_id: str | None = None  # of the request that brought them, at most 64 characters


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The job that one processor gets for every new object."""

    processor: str
    version: int
    max_attempts: int


@dataclass(frozen=True, kw_only=True)
class Recorded:
    id: uuid.UUID
    created: bool  # False: this very generation was known already


@dataclass(frozen=True, kw_only=True)
class PhotoFilter:
    bucket: str | None = None
    prefix: str | None = None
    key: str | None = None  # exactly
    status: str | None = None
    taken_after: datetime | None = None  # local time of the camera, naive
    taken_before: datetime | None = None
    camera: str | None = None  # part of "make model", in any case
    places: tuple[str, ...] = ()  # only within these, each `bucket` or `bucket/prefix`; none: anywhere


async def lock_key(conn: Connection, bucket: str, key: str) -> None:
    """Keep everybody else from changing what is current under a key, until the transaction ends."""
    await conn.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"{bucket}/{key}")


async def record_superseded(conn: Connection, stored: StoredObject) -> Recorded:
    """Keep a generation that was overwritten before it could be recorded. It gets no jobs."""
    await _insert(conn, stored, superseded=True)
    await _settle_upload(conn, stored, stored.id)
    return Recorded(id=stored.id, created=True)


async def record(conn: Connection, stored: StoredObject, plans: Iterable[Plan]) -> Recorded:
    """Make this generation the current one of its key, with its jobs ready. Must run in a transaction."""
    await lock_key(conn, stored.bucket, stored.key)
    current = await conn.fetchrow(
        f"select id, etag, version_id from object where bucket = $1 and key = $2 and {_CURRENT} for update",
        stored.bucket,
        stored.key,
    )
    if current and (current["etag"], current["version_id"]) == (stored.etag, stored.version_id):
        await conn.execute(
            "update object set sha256 = coalesce(sha256, $2), filename = coalesce(filename, $3) where id = $1",
            current["id"],
            stored.sha256,
            stored.filename,
        )
        await _settle_upload(conn, stored, current["id"])
        return Recorded(id=current["id"], created=False)
    if current:
        await conn.execute("update object set superseded_at = now() where id = $1", current["id"])
    await _insert(conn, stored)
    await _settle_upload(conn, stored, stored.id)
    await conn.executemany(
        "insert into job (object_id, processor, version, max_attempts) values ($1, $2, $3, $4)",
        [(stored.id, plan.processor, plan.version, plan.max_attempts) for plan in plans],
    )
    await events.tell(conn, "photo.stored", stored.id, {"replaces": str(current["id"])} if current else None)
    if stored.rejection is not None:
        await events.tell_verdict(conn, stored.id)
    await conn.execute("select pg_notify($1, ''), pg_notify($2, $3)", JOB_CHANNEL, PHOTO_CHANNEL, str(stored.id))
    return Recorded(id=stored.id, created=True)


async def settle(conn: Connection, object_id: uuid.UUID) -> None:
    """Derive an object's status from its jobs, and tell of a verdict that is new. The caller holds the object's row
    lock."""
    news = await conn.fetchval(
        """
        with before as (
          select status from object where id = $1
        ), tally as (
          select bool_or(state in ('ready', 'running')) as busy,
                 bool_or(state in ('dead', 'discarded')) as failed,
                 (array_agg(jsonb_build_object('code', error_code, 'detail', error ->> 'detail', 'processor', processor)
                            order by id) filter (where outcome = 'rejected'))[1] as rejection
          from job where object_id = $1
        )
        update object set
          status = case when tally.rejection is not null then 'rejected' when tally.busy then 'processing'
                        when tally.failed then 'partial' else 'ready' end,
          rejection = tally.rejection,
          settled_at = case when tally.busy then null else coalesce(settled_at, now()) end
        from tally, before where object.id = $1
        returning object.status not in ('processing', before.status) and superseded_at is null and deleted_at is null
        """,
        object_id,
    )
    if news:
        await events.tell_verdict(conn, object_id)
    await conn.execute("select pg_notify($1, $2)", PHOTO_CHANNEL, str(object_id))


async def get(conn: Connection, object_id: uuid.UUID) -> dict[str, Any] | None:
    """The object's row, whatever became of it; None where it never was or was deleted."""
    row = await conn.fetchrow("select * from object where id = $1 and deleted_at is null", object_id)
    return dict(row) if row else None


async def find_current(conn: Connection, bucket: str, key: str) -> dict[str, Any] | None:
    row = await conn.fetchrow(f"select * from object where bucket = $1 and key = $2 and {_CURRENT}", bucket, key)
    return dict(row) if row else None


async def find_many(conn: Connection, bucket: str, keys: Sequence[str]) -> dict[str, uuid.UUID]:
    """Key -> id of the photos that are current under these keys."""
    rows = await conn.fetch(
        f"select key, id from object where bucket = $1 and key = any($2) and {_CURRENT}", bucket, list(keys)
    )
    return {row["key"]: row["id"] for row in rows}


async def list_current(
    conn: Connection, wanted: PhotoFilter, *, after: tuple[datetime, uuid.UUID] | None, limit: int
) -> list[dict[str, Any]]:
    """Current objects, newest first, that match every given filter and come after the cursor."""
    where: list[str] = [_CURRENT]
    arguments: list[object] = []

    def add(condition: str, *values: object) -> None:
        arguments.extend(values)
        numbers = range(len(arguments) - len(values) + 1, len(arguments) + 1)
        where.append(condition.format(*(f"${number}" for number in numbers)))

    if wanted.bucket is not None:
        add("bucket = {}", wanted.bucket)
    if wanted.key is not None:
        add("key = {}", wanted.key)
    if wanted.prefix:
        add("starts_with(key, {})", wanted.prefix)
    if wanted.places:
        buckets, _, prefixes = zip(*(place.partition("/") for place in wanted.places), strict=True)
        add(
            "exists (select from unnest({}::text[], {}::text[]) as place (bucket, prefix)"
            " where object.bucket = place.bucket and starts_with(object.key, place.prefix))",
            buckets,
            prefixes,
        )
    if wanted.status is not None:
        add("status = {}", wanted.status)
    if wanted.taken_after is not None:
        add("taken_at >= {}", wanted.taken_after)
    if wanted.taken_before is not None:
        add("taken_at < {}", wanted.taken_before)
    if wanted.camera:
        add("strpos(lower(camera), lower({})) > 0", wanted.camera)
    if after is not None:
        add("(created_at, id) < ({}::timestamptz, {}::uuid)", *after)
    arguments.append(limit)
    rows = await conn.fetch(
        f"select * from object where {' and '.join(where)} order by created_at desc, id desc limit ${len(arguments)}",
        *arguments,
    )
    return [dict(row) for row in rows]


async def mark_deleted(
    conn: Connection, bucket: str, key: str, *, only_id: uuid.UUID | None = None, from_quarantine: bool = False
) -> uuid.UUID | None:
    """The photo under this key is gone. Its artifacts become garbage, its jobs end. One that has run already, in vain,
    may have put previews that nobody has recorded: it is ready once more, finds its photo gone and names them. Must run
    in a transaction. Returns the photo's id, None where none was there, or not the generation `only_id`: then nothing
    is done. Neither is it for a photo that lies in quarantine, unless it was deleted there (`from_quarantine`): that
    its key is empty is no news."""
    await lock_key(conn, bucket, key)
    object_id: uuid.UUID | None = await conn.fetchval(
        f"""
        update object set deleted_at = now()
        where bucket = $1 and key = $2 and {_CURRENT} and id = coalesce($3, id)
          and ($4 or not exists (select from quarantine where object_id = object.id and copied_at is not null))
        returning id
        """,
        bucket,
        key,
        only_id,
        from_quarantine,
    )
    if object_id is None:
        return None
    await conn.execute(
        """
        update job set state = case when token = 0 then 'discarded' else 'ready' end,
                       finished_at = case when token = 0 then now() end,
                       run_at = case when token = 0 then run_at else now() end,
                       dispatched_at = null, attempt = 0, crashes = 0, expiries = 0
        where object_id = $1 and state in ('ready', 'dead')
        """,
        object_id,
    )
    await conn.execute(
        """
        insert into garbage (bucket, key, source_bucket, source_key)
        select distinct artifact.bucket, artifact.key, $1::text, $2::text
        from artifact join object on object.id = artifact.object_id
        where object.bucket = $1 and object.key = $2
        on conflict do nothing
        """,
        bucket,
        key,
    )
    await events.tell(conn, "photo.deleted", object_id)
    await conn.execute("select pg_notify($1, ''), pg_notify($2, $3)", JOB_CHANNEL, PHOTO_CHANNEL, str(object_id))
    return object_id


async def _settle_upload(conn: Connection, stored: StoredObject, object_id: uuid.UUID) -> None:
    if stored.upload_id is not None:
        await uploads.settle(conn, stored.upload_id, stored.bucket, stored.key, object_id)


async def _insert(conn: Connection, stored: StoredObject, *, superseded: bool = False) -> None:
    rejection = dict(stored.rejection) if stored.rejection and not superseded else None
    await conn.execute(
        """
        insert into object (id, bucket, key, version_id, etag, sha256, size_bytes, content_type, filename, rejection,
                            request_id, status, settled_at, superseded_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $11, $12,
                case when $11::jsonb is not null then 'rejected' when $10 then 'ready' else 'processing' end,
                case when $10 or $11 is not null then now() end, case when $10 then now() end)
        """,
        stored.id,
        stored.bucket,
        stored.key,
        stored.version_id,
        stored.etag,
        stored.sha256,
        stored.size_bytes,
        stored.content_type,
        stored.filename,
        superseded,
        rejection,
        stored.request_id,
    )
