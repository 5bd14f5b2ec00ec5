"""Direct uploads: what was promised to clients who put the bytes into the storage themselves, and what became of it.
Functions take a connection first.

An upload's photo is named by the transaction that records the object (storage.objects), by whatever door it was found,
so row and photo cannot disagree. The proof is in the object's metadata (`METADATA`), which the addresses demand.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from storage.database import Connection

METADATA: Final = "safelight-upload"  # the object's metadata that holds the upload's id

_STATUS = """case when object_id is not null then 'stored' when aborted_at is not null then 'aborted'
             when expires_at <= now() then 'expired' else 'open' end"""
_COLUMNS = f"""id, principal, method, bucket, key, filename, content_type, size_bytes, part_bytes, multipart_id,
               created_at, expires_at, object_id, {_STATUS} as status"""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An upload that is to be opened. `multipart_id`: where the method is multipart."""

    id: uuid.UUID
    principal: str
    method: str
    bucket: str
    key: str
    filename: str | None
    content_type: str | None
    size_bytes: int | None
    part_bytes: int | None
    multipart_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Upload(Wanted):
    """One that was opened. `status`: open, stored, expired or aborted, by the database's clock."""

    created_at: datetime
    expires_at: datetime
    object_id: uuid.UUID | None
    status: str

    @property
    def parts(self) -> int:
        """How many parts a multipart upload has."""
        assert self.size_bytes is not None
        assert self.part_bytes is not None
        return -(-self.size_bytes // self.part_bytes)

    def size_of_part(self, number: int) -> int:
        """Bytes of part `number`, from 1: all have the same but the last."""
        assert self.size_bytes is not None
        assert self.part_bytes is not None
        return min(self.part_bytes, self.size_bytes - (number - 1) * self.part_bytes)


def read_id(metadata: Mapping[str, str]) -> uuid.UUID | None:
    """The upload that an object says it came by; None where it says nothing of the kind."""
    try:
        return uuid.UUID(metadata.get(METADATA, ""))
    except ValueError:
        return None


async def begin(conn: Connection, wanted: Wanted, *, expires_seconds: float, max_open: int) -> Upload | None:
    """Open an upload; None where the principal has `max_open` already. Must run in a transaction."""
    # A seed of its own: locks of keys are taken with seed 0, those of buckets with 1.
    await conn.execute("select pg_advisory_xact_lock(hashtextextended($1, 2))", wanted.principal)
    if await count_open(conn, wanted.principal) >= max_open:
        return None
    row = await conn.fetchrow(
        f"""
        insert into upload (id, principal, method, bucket, key, filename, content_type, size_bytes, part_bytes,
                            multipart_id, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now() + $11::float8 * interval '1 s')
        returning {_COLUMNS}
        """,
        wanted.id,
        wanted.principal,
        wanted.method,
        wanted.bucket,
        wanted.key,
        wanted.filename,
        wanted.content_type,
        wanted.size_bytes,
        wanted.part_bytes,
        wanted.multipart_id,
        expires_seconds,
    )
    assert row is not None
    return Upload(**dict(row))


async def count_open(conn: Connection, principal: str) -> int:
    """Uploads of a principal that may still arrive."""
    return int(
        await conn.fetchval(
            """
            select count(*) from upload
            where principal = $1 and object_id is null and aborted_at is null and expires_at > now()
            """,
            principal,
        )
    )


async def find(conn: Connection, upload_id: uuid.UUID) -> Upload | None:
    row = await conn.fetchrow(f"select {_COLUMNS} from upload where id = $1", upload_id)
    return Upload(**dict(row)) if row else None


async def find_origin(conn: Connection, metadata: Mapping[str, str], bucket: str, key: str) -> Upload | None:
    """The upload that an object under this key came by, as its metadata say. None: by none; or by one for another key,
    for metadata travel with copies; or by one that its client wanted no more."""
    upload_id = read_id(metadata)
    upload = await find(conn, upload_id) if upload_id is not None else None
    is_its_own = upload is not None and (upload.bucket, upload.key) == (bucket, key) and upload.status != "aborted"
    return upload if is_its_own else None


async def list_page(
    conn: Connection,
    *,
    status: str | None = None,
    bucket: str | None = None,
    prefix: str | None = None,
    places: tuple[str, ...] = (),
    after: tuple[datetime, uuid.UUID] | None = None,
    limit: int,
) -> list[Upload]:
    """Uploads that were not aborted, newest first. `places`: only within these, each `bucket` or `bucket/prefix`."""
    buckets, _, prefixes = zip(*(place.partition("/") for place in places), strict=True) if places else ((), (), ())
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from upload
        where aborted_at is null
          and ($1::text is null or {_STATUS} = $1)
          and ($2::text is null or bucket = $2)
          and ($3::text is null or starts_with(key, $3))
          and (cardinality($4::text[]) = 0 or exists (
            select from unnest($4::text[], $5::text[]) as place (bucket, prefix)
            where upload.bucket = place.bucket and starts_with(upload.key, place.prefix)))
          and ($6::timestamptz is null or (created_at, id) < ($6::timestamptz, $7::uuid))
        order by created_at desc, id desc limit $8
        """,
        status,
        bucket,
        prefix,
        list(buckets),
        list(prefixes),
        after[0] if after else None,
        after[1] if after else None,
        limit,
    )
    return [Upload(**dict(row)) for row in rows]


async def settle(conn: Connection, upload_id: uuid.UUID, bucket: str, key: str, object_id: uuid.UUID) -> None:
    """The upload's bytes are this object, which is recorded in the same transaction. Does nothing where the upload was
    for another key (metadata travel with copies) or is settled already."""
    await conn.execute(
        "update upload set object_id = $4 where id = $1 and bucket = $2 and key = $3 and object_id is null",
        upload_id,
        bucket,
        key,
        object_id,
    )


async def abort(conn: Connection, upload_id: uuid.UUID) -> None:
    """The client wants it no more. What arrives in spite of that is nobody's but the hooks'."""
    await conn.execute(
        "update upload set aborted_at = coalesce(aborted_at, now()) where id = $1 and object_id is null", upload_id
    )


async def list_overdue(
    conn: Connection, *, grace_seconds: float, after: tuple[datetime, uuid.UUID] | None = None, limit: int = 100
) -> list[Upload]:
    """Uploads whose addresses ended that long ago and that were neither settled nor closed, oldest first. `after`: only
    what comes behind that (expires_at, id)."""
    rows = await conn.fetch(
        f"""
        select {_COLUMNS} from upload
        where closed_at is null and object_id is null and expires_at < now() - $1::float8 * interval '1 s'
          and ($3::timestamptz is null or (expires_at, id) > ($3::timestamptz, $4::uuid))
        order by expires_at, id limit $2
        """,
        grace_seconds,
        limit,
        *(after or (None, None)),
    )
    return [Upload(**dict(row)) for row in rows]


async def close(conn: Connection, upload_id: uuid.UUID) -> None:
    """Nothing is left to do about it."""
    await conn.execute("update upload set closed_at = coalesce(closed_at, now()) where id = $1", upload_id)


async def close_settled(conn: Connection, *, keep_rejected: bool) -> int:
    """Close those whose photos need nothing more. `keep_rejected`: but for rejected ones, which are to be moved."""
    status: str = await conn.execute(
        """
        update upload set closed_at = now()
        from object
        where upload.closed_at is null and object.id = upload.object_id
          and (object.deleted_at is not null or object.superseded_at is not null
               or object.settled_at is not null and (not $1 or object.status <> 'rejected'))
        """,
        keep_rejected,
    )
    return int(status.rsplit(" ", 1)[-1])


async def prune(conn: Connection, *, older_than_hours: float) -> int:
    """Forget uploads that were closed that long ago."""
    status: str = await conn.execute(
        "delete from upload where closed_at < now() - $1::float8 * interval '1 h'", older_than_hours
    )
    return int(status.rsplit(" ", 1)[-1])
