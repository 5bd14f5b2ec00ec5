"""What reconciling needs of Postgres: who may do it, where it stands, rows to compare with the storage, and the repair
of a preview. Functions take a connection first; nothing here looks into S3.

Windows are read by key, in the order of its bytes (`using ~<~`, which the indexes serve), so that any number of rows
takes the same memory. Nothing is deleted here.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage import objects
from storage.database import JOB_CHANNEL, Connection, Database

_CURRENT = "object.superseded_at is null and object.deleted_at is null"
_AFTER_ALL = "\U0010ffff"  # sorts behind whatever a key goes on with


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a pass stands. `findings`: finding -> action -> count, of this pass so far."""

    phase: str
    cursor: str
    keys: int
    findings: Mapping[str, Mapping[str, int]]
    finished: bool
    age_seconds: float  # since the pass started


@dataclass(frozen=True, kw_only=True)
class PhotoRow:
    id: uuid.UUID
    key: str
    etag: str
    past_grace: bool  # older than the grace period
    previews: Mapping[str, str] | None  # preset -> version of what is there, once they are done; None: they are not
    processors: frozenset[str]  # that have a job for it, in whatever state
    rejected: bool


@dataclass(frozen=True, kw_only=True)
class PreviewRow:
    object_id: uuid.UUID
    source_key: str
    preset: str
    key: str
    etag: str
    job_state: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of the photo that a derived object says it was made of."""

    bucket: str
    key: str


@contextlib.asynccontextmanager
async def hold(database: Database, bucket: str) -> AsyncIterator[Connection | None]:
    """Be the only one who reconciles a bucket; None where another process is. The connection that is given holds the
    lock, so whatever is written through it is written while the lock is held."""
    async with database.connection() as conn:
        # A seed of its own: locks of keys are taken with seed 0.
        if not await conn.fetchval("select pg_try_advisory_lock(hashtextextended($1, 1))", bucket):
            yield None
            return
        try:
            yield conn
        finally:
            if not conn.is_closed():
                await conn.execute("select pg_advisory_unlock(hashtextextended($1, 1))", bucket)


async def list_buckets(conn: Connection) -> list[str]:
    """Buckets that have rows. Jumps from one to the next in the index, however many rows there are."""
    rows = await conn.fetch(
        """
        with recursive found as (
          (select bucket from object order by bucket limit 1)
          union all
          select (select object.bucket from object where object.bucket > found.bucket order by bucket limit 1)
          from found where found.bucket is not null
        )
        select bucket from found where bucket is not null
        """
    )
    return [row["bucket"] for row in rows]


async def find_place(conn: Connection, runner: str, bucket: str, prefix: str) -> Place | None:
    row = await conn.fetchrow(
        """
        select phase, cursor, keys, findings, finished_at is not null as finished,
               extract(epoch from now() - started_at)::float8 as age_seconds
        from reconcile where runner = $1 and bucket = $2 and prefix = $3
        """,
        runner,
        bucket,
        prefix,
    )
    return Place(**dict(row)) if row else None


async def start_pass(conn: Connection, runner: str, bucket: str, prefix: str, *, phase: str) -> None:
    """Begin at the beginning, whatever was there."""
    await conn.execute(
        """
        insert into reconcile (runner, bucket, prefix, phase) values ($1, $2, $3, $4)
        on conflict (runner, bucket, prefix) do update set
          phase = excluded.phase, cursor = '', keys = 0, findings = '{}', started_at = now(), finished_at = null
        """,
        runner,
        bucket,
        prefix,
        phase,
    )


async def save_place(conn: Connection, runner: str, bucket: str, prefix: str, place: Place) -> None:
    await conn.execute(
        """
        update reconcile set
          phase = $4, cursor = $5, keys = $6, findings = $7, finished_at = case when $8 then now() end,
          last_finished_at = case when $8 then now() else last_finished_at end
        where runner = $1 and bucket = $2 and prefix = $3
        """,
        runner,
        bucket,
        prefix,
        place.phase,
        place.cursor,
        place.keys,
        {name: dict(actions) for name, actions in place.findings.items()},
        place.finished,
    )


async def find_last_pass(conn: Connection, buckets: Sequence[str]) -> float:
    """Unix time since when all of these buckets were gone through; 0 where one never was."""
    return float(
        await conn.fetchval(
            """
            select coalesce(extract(epoch from min(finished)), 0)::float8 from (
              select bucket, (select max(last_finished_at) from reconcile
                              where reconcile.bucket = wanted.bucket and prefix = '') as finished
              from unnest($1::text[]) as wanted (bucket)) as passes
            having bool_and(finished is not null)
            """,
            list(buckets),
        )
        or 0
    )


async def ask_time(conn: Connection) -> datetime:
    """The database's clock."""
    now: datetime = await conn.fetchval("select now()")
    return now


async def find_current(conn: Connection, bucket: str, keys: Sequence[str]) -> dict[str, str]:
    """Key -> etag of the photos that are current under these keys."""
    rows = await conn.fetch(
        f"select key, etag from object where bucket = $1 and key = any($2) and {_CURRENT}", bucket, list(keys)
    )
    return {row["key"]: row["etag"] for row in rows}


async def list_photos(
    conn: Connection,
    bucket: str,
    *,
    prefix: str,
    after: str,
    limit: int,
    grace_seconds: float,
) -> list[PhotoRow]:
    """A window of current photos by key, but for those that lie in quarantine."""
    rows = await conn.fetch(
        f"""
        select object.id, object.key, object.etag,
               object.created_at < now() - $5::float8 * interval '1 s' as past_grace,
               case when object.status <> 'rejected' and exists (
                 select from job where job.object_id = object.id and job.processor = 'preview' and job.outcome = 'ok'
               ) then (select coalesce(jsonb_object_agg(preset, preset_version), '{{}}')
                       from artifact where artifact.object_id = object.id) end as previews,
               array(select processor from job where job.object_id = object.id) as processors,
               object.status = 'rejected' as rejected
        from object
        where object.bucket = $1 and object.key ~>=~ $2 and object.key ~>~ $3 and object.key ~<~ ($2::text || $6::text)
          and {_CURRENT}
          and not exists (select from quarantine where object_id = object.id and copied_at is not null)
        order by object.key using ~<~ limit $4
        """,
        bucket,
        prefix,
        after,
        limit,
        grace_seconds,
        _AFTER_ALL,
    )
    return [PhotoRow(**{**dict(row), "processors": frozenset(row["processors"])}) for row in rows]


async def list_previews(
    conn: Connection, derived_bucket: str, *, prefix: str, after: str, limit: int
) -> list[PreviewRow]:
    """A window of the previews of current photos that were not rejected, by their own key."""
    rows = await conn.fetch(
        f"""
        select artifact.object_id, object.key as source_key, artifact.preset, artifact.key, artifact.etag,
               coalesce(job.state, 'discarded') as job_state
        from artifact join object on object.id = artifact.object_id
             left join job on job.object_id = object.id and job.processor = 'preview'
        where artifact.bucket = $1 and artifact.key ~>=~ $2 and artifact.key ~>~ $3
          and artifact.key ~<~ ($2::text || $5::text)
          and {_CURRENT} and object.status <> 'rejected'
        order by artifact.key using ~<~ limit $4
        """,
        derived_bucket,
        prefix,
        after,
        limit,
        _AFTER_ALL,
    )
    return [PreviewRow(**dict(row)) for row in rows]


async def find_named(conn: Connection, derived_bucket: str, keys: Sequence[str]) -> set[str]:
    """Those of these derived keys that are accounted for: by a preview of a current photo, by an older generation of a
    photo that is still there, or as garbage that is about to be deleted."""
    rows = await conn.fetch(
        """
        select artifact.key from artifact join object on object.id = artifact.object_id
        where artifact.bucket = $1 and artifact.key = any($2)
          and exists (select from object as current where current.bucket = object.bucket and current.key = object.key
                        and current.superseded_at is null and current.deleted_at is null)
        union
        select key from garbage where bucket = $1 and key = any($2)
        """,
        derived_bucket,
        list(keys),
    )
    return {row["key"] for row in rows}


async def find_source(conn: Connection, object_id: uuid.UUID) -> Source | None:
    """The place of a generation, whatever became of it."""
    row = await conn.fetchrow("select bucket, key from object where id = $1", object_id)
    return Source(**dict(row)) if row else None


async def has_current(conn: Connection, source: Source) -> bool:
    return await objects.find_current(conn, source.bucket, source.key) is not None


async def previews_under_way(conn: Connection, source: Source) -> bool:
    """The current photo's previews are being made, or about to be."""
    return bool(
        await conn.fetchval(
            f"""
            select exists (select from object join job on job.object_id = object.id
                           where object.bucket = $1 and object.key = $2 and {_CURRENT}
                             and job.processor = 'preview' and job.state in ('ready', 'running'))
            """,
            source.bucket,
            source.key,
        )
    )


async def remake_previews(conn: Connection, object_id: uuid.UUID, *, version: int) -> bool:
    """Make the preview job of a current photo ready again, its attempts reset; True where it was done. Must run in a
    transaction."""
    current = await conn.fetchval(
        f"select id from object where id = $1 and {_CURRENT} and status <> 'rejected' for update", object_id
    )
    if current is None:
        return False
    changed = await conn.fetchval(
        """
        update job set state = 'ready', outcome = null, finished_at = null, run_at = now(), dispatched_at = null,
                       attempt = 0, crashes = 0, expiries = 0, token = token + 1, version = greatest(version, $2),
                       error_code = null, error = null
        where object_id = $1 and processor = 'preview' and state = 'done' and outcome = 'ok' returning id
        """,
        object_id,
        version,
    )
    if changed is None:
        return False
    await objects.settle(conn, object_id)
    await conn.execute("select pg_notify($1, '')", JOB_CHANNEL)
    return True


async def find_uploads_of_ours(conn: Connection, bucket: str, keys: Sequence[str]) -> set[str]:
    """Those of these keys that an upload of ours names."""
    rows = await conn.fetch(
        """
        select key from multipart where bucket = $1 and key = any($2)
        union
        select key from upload where bucket = $1 and key = any($2) and method = 'multipart' and closed_at is null
        """,
        bucket,
        list(keys),
    )
    return {row["key"] for row in rows}


async def count_stuck(conn: Connection, *, redispatch_seconds: float) -> dict[str, Any]:
    """Jobs that the dispatchers should have seen to: leases that ended long ago, due jobs that nobody dispatched."""
    row = await conn.fetchrow(
        """
        select (select count(*) from job where state = 'running' and lease_until < now() - interval '5 s')
                 as lease_expired,
               (select count(*) from job where state = 'ready'
                  and run_at < now() - ($1::float8 + 1) * interval '1 s'
                  and coalesce(dispatched_at, '-infinity') < now() - ($1::float8 + 1) * interval '1 s')
                 as job_overdue
        """,
        redispatch_seconds + 4,
    )
    assert row is not None
    return dict(row)
