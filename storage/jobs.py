"""The job state machine, as SQL: claim, beat, finish, postpone, bury, release, reap, dispatch. Functions take a
connection first; each statement may be repeated and can be pasted into psql.

Every write of a running job is guarded by the fencing token that its claim got, so a worker that was paused, cut off or
declared dead cannot undo what its successor did. Only the database's clock decides what is due and what has expired.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage import events, facts, objects
from storage.database import JOB_CHANNEL, Connection
from storage.errorgroups import group_of
from storage.facts import StoredArtifact
from storage.garbage import Garbage


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run a job, until its lease ends. `attempt` counts this run, `crashes` the earlier ones that ended a
    child; `runs` is the number of times the job was started, this one included."""

    job_id: int
    token: int
    processor: str
    attempt: int
    max_attempts: int
    crashes: int
    object_id: uuid.UUID
    bucket: str
    key: str
    etag: str
    version_id: str | None
    sha256: bytes | None
    size_bytes: int
    current: bool  # False: superseded or deleted since
    request_id: str | None = None  # of the request that brought the object
    waited_seconds: float = 0.0  # since it was due

    @property
    def runs(self) -> int:
        return self.token


class Fenced(Exception):
    """The job is no longer ours: somebody else claimed it after our lease ended. Throw the result away."""


async def claim(
    conn: Connection, job_id: int, *, worker: str, lease_seconds: float, known: Mapping[str, int]
) -> Claim | None:
    """Take a due job for running. None: not due, taken already, of a paused processor, or of a processor or version
    that this worker does not know (`known`: newest version by name); a newer worker will take it."""
    row = await conn.fetchrow(
        """
        with claimed as (
          update job set state = 'running', attempt = attempt + 1, token = token + 1, worker = $2, started_at = now(),
                         lease_until = now() + $3::float8 * interval '1 s'
          where id = $1 and state = 'ready' and run_at <= now()
            and exists (select from unnest($4::text[], $5::int[]) as known (name, version)
                        where known.name = job.processor and known.version >= job.version)
            and not exists (select from pause where pause.processor = job.processor)
          returning *
        ), attempt as (
          insert into job_attempt (job_id, token, processor, worker) select id, token, processor, worker from claimed
        )
        select claimed.id as job_id, token, processor, attempt, max_attempts, crashes, object_id, bucket, key, etag,
               version_id, sha256, size_bytes, superseded_at is null and deleted_at is null as current, request_id,
               extract(epoch from greatest(now() - run_at, interval '0'))::float8 as waited_seconds
        from claimed join object on object.id = claimed.object_id
        """,
        job_id,
        worker,
        lease_seconds,
        list(known),
        list(known.values()),
    )
    return Claim(**dict(row)) if row else None


async def beat(conn: Connection, claims: Sequence[Claim], *, lease_seconds: float) -> set[int]:
    """Renew leases. Returns the ids of the jobs that are still ours; the others are lost."""
    rows = await conn.fetch(
        """
        update job set lease_until = now() + $3::float8 * interval '1 s'
        from unnest($1::bigint[], $2::bigint[]) as held (id, token)
        where job.id = held.id and job.token = held.token and job.state = 'running'
        returning job.id
        """,
        [claim.job_id for claim in claims],
        [claim.token for claim in claims],
        lease_seconds,
    )
    return {row["id"] for row in rows}


async def finish(
    conn: Connection,
    claim: Claim,
    *,
    version: int,
    artifacts: Iterable[StoredArtifact] = (),
    derived: Mapping[str, Any] | None = None,
) -> str:
    """Write what a run derived and end its job, in one transaction of the caller's. Returns the outcome, 'ok' or
    'superseded'. Raises Fenced."""
    artifacts = tuple(artifacts)
    if not await _lock_current(conn, claim):
        await _supersede(conn, claim, artifacts)
        return "superseded"
    await _end(conn, claim, outcome="ok")
    await facts.put_artifacts(conn, claim.object_id, artifacts)
    if derived is not None:
        await facts.put_facts(conn, claim.object_id, claim.processor, version, derived)
    await objects.settle(conn, claim.object_id)
    return "ok"


async def supersede(conn: Connection, claim: Claim, *, leftovers: Iterable[Garbage] = ()) -> None:
    """End the job of a generation that is no longer current. `leftovers`: derived objects that its earlier runs may
    have written, to be deleted where no other generation owns them. Must run in a transaction."""
    await _lock_current(conn, claim)
    await _supersede(conn, claim, tuple(leftovers))


async def reject(conn: Connection, claim: Claim, *, code: str, detail: str) -> None:
    """The bytes can never be processed: the job is done, the photo rejected. Must run in a transaction. Raises
    Fenced."""
    if not await _lock_current(conn, claim):
        await _pass_by(conn, claim)
        return
    await _end(conn, claim, outcome="rejected", error_code=code, error={"code": code, "detail": detail})
    await objects.settle(conn, claim.object_id)


async def postpone(
    conn: Connection,
    claim: Claim,
    *,
    after_seconds: float,
    outcome: str,
    error: Mapping[str, Any] | None = None,
) -> None:
    """Make the job ready again, later. `outcome` says how the run ended and what it costs: 'retry' an attempt,
    'crashed' a crash, 'snoozed' and 'released' nothing. Raises Fenced."""
    done = await conn.fetchval(
        """
        with postponed as (
          update job set state = 'ready', lease_until = null, worker = null, dispatched_at = null,
                         run_at = now() + $3::float8 * interval '1 s',
                         attempt = attempt - case when $4 = 'retry' then 0 else 1 end,
                         crashes = crashes + case when $4 = 'crashed' then 1 else 0 end,
                         error_code = coalesce($5::jsonb ->> 'code', error_code), error = coalesce($5, error),
                         error_group = coalesce($6, error_group)
          where id = $1 and token = $2 and state = 'running' returning 1
        ), attempt as (
          update job_attempt set ended_at = now(), outcome = $4, error_code = $5::jsonb ->> 'code', error = $5
          where job_id = $1 and token = $2 and ended_at is null
        )
        select count(*) from postponed
        """,
        claim.job_id,
        claim.token,
        after_seconds,
        outcome,
        dict(error) if error else None,
        group_of(error) if error else None,
    )
    if not done:
        raise Fenced
    if after_seconds <= 0:
        await conn.execute("select pg_notify($1, '')", JOB_CHANNEL)


async def bury(conn: Connection, claim: Claim, *, outcome: str, error: Mapping[str, Any]) -> None:
    """Give up: the job is a dead letter, with its error. `outcome`: 'dead', or 'crashed' where a child died over
    it. Must run in a transaction. Raises Fenced."""
    if not await _lock_current(conn, claim):
        await _pass_by(conn, claim)
        return
    done = await conn.fetchval(
        """
        update job set state = 'dead', finished_at = now(), lease_until = null, error_code = $3, error = $4,
                       crashes = crashes + case when $5 = 'crashed' then 1 else 0 end, error_group = $6
        where id = $1 and token = $2 and state = 'running' returning 1
        """,
        claim.job_id,
        claim.token,
        error["code"],
        dict(error),
        outcome,
        group_of(error),
    )
    if not done:
        raise Fenced
    await _end_attempt(conn, claim, outcome=outcome, error=error)
    await _tell_dead(conn, claim.object_id, claim.job_id, claim.processor, error["code"])
    await objects.settle(conn, claim.object_id)


async def reap(conn: Connection, *, max_expiries: int, limit: int = 500) -> list[dict[str, Any]]:
    """Take back the jobs whose worker fell silent. Must run in a transaction. Returns [{id, object_id, state,
    processor, error_code, request_id}]; those in state 'dead' had lost their lease too often."""
    rows = await conn.fetch(
        """
        with lost as (
          select id, token from job where state = 'running' and lease_until < now()
          order by lease_until limit $2 for update skip locked
        ), attempt as (
          update job_attempt set ended_at = now(), outcome = 'expired', error_code = 'lease_expired',
                                 error = '{"code": "lease_expired", "detail": "Its worker fell silent."}'
          from lost where job_attempt.job_id = lost.id and job_attempt.token = lost.token and ended_at is null
        )
        update job set
          state = case when expiries + 1 >= $1 then 'dead' else 'ready' end,
          finished_at = case when expiries + 1 >= $1 then now() end,
          expiries = expiries + 1, attempt = attempt - 1, lease_until = null, worker = null, dispatched_at = null,
          run_at = now(), error_code = 'lease_expired', error_group = '',
          error = '{"code": "lease_expired", "detail": "Its worker fell silent."}'
        from lost where job.id = lost.id
        returning job.id, job.object_id, job.state, job.processor, job.error_code,
                  (select request_id from object where object.id = job.object_id) as request_id
        """,
        max_expiries,
        limit,
    )
    dead = [row for row in rows if row["state"] == "dead"]
    for object_id in sorted({row["object_id"] for row in dead}):
        await conn.execute("select from object where id = $1 for update", object_id)
        for row in dead:
            if row["object_id"] == object_id:
                await _tell_dead(conn, object_id, row["id"], row["processor"], row["error_code"])
        await objects.settle(conn, object_id)
    return [dict(row) for row in rows]


async def pick_due(conn: Connection, *, redispatch_seconds: float, limit: int = 200) -> list[int]:
    """Lock due jobs that were never dispatched, or not claimed since, of processors that are not paused. Must run in a
    transaction that ends with mark_dispatched."""
    # Steps from one processor to the next in job_waiting, so that a million jobs of a paused one cost nothing.
    rows = await conn.fetch(
        """
        with recursive waiting (processor) as (
          (select processor from job where state = 'ready' order by processor limit 1)
          union all
          select (select processor from job where state = 'ready' and processor > waiting.processor
                  order by processor limit 1)
          from waiting where waiting.processor is not null
        ), open as materialized (
          select processor from waiting where not exists (select from pause where pause.processor = waiting.processor)
        )
        select due.id from open cross join lateral (
          select id, priority, run_at from job
          where state = 'ready' and job.processor = open.processor and run_at <= now()
            and (dispatched_at is null or dispatched_at < now() - $1::float8 * interval '1 s')
          order by priority desc, run_at, id limit $2 for update skip locked
        ) as due
        order by due.priority desc, due.run_at, due.id limit $2
        """,
        redispatch_seconds,
        limit,
    )
    return [row["id"] for row in rows]


async def mark_dispatched(conn: Connection, job_ids: list[int]) -> None:
    await conn.execute("update job set dispatched_at = now() where id = any($1)", job_ids)


async def unmark_dispatched(conn: Connection, job_ids: list[int]) -> None:
    """These could not be sent: they are to be picked again at once."""
    await conn.execute("update job set dispatched_at = null where id = any($1) and state = 'ready'", job_ids)


async def list_due(conn: Connection, *, known: Mapping[str, int], limit: int) -> list[int]:
    """Ids of due jobs, for a worker that hears nothing from Redis. Nothing is locked: claiming decides."""
    rows = await conn.fetch(
        """
        with open as materialized (
          select * from unnest($1::text[], $2::int[]) as known (processor, version)
          where not exists (select from pause where pause.processor = known.processor)
        )
        select due.id from open cross join lateral (
          select id, priority, run_at from job
          where state = 'ready' and job.processor = open.processor and job.version <= open.version and run_at <= now()
          order by priority desc, run_at, id limit $3
        ) as due
        order by due.priority desc, due.run_at, due.id limit $3
        """,
        list(known),
        list(known.values()),
        limit,
    )
    return [row["id"] for row in rows]


async def _lock_current(conn: Connection, claim: Claim) -> bool:
    """Lock the object, so that jobs of one photo finish one after the other. False: superseded or deleted."""
    row = await conn.fetchrow(
        "select superseded_at is null and deleted_at is null as current from object where id = $1 for update",
        claim.object_id,
    )
    return bool(row and row["current"])


async def _end(
    conn: Connection,
    claim: Claim,
    *,
    outcome: str,
    error_code: str | None = None,
    error: Mapping[str, Any] | None = None,
) -> None:
    done = await conn.fetchval(
        """
        update job set state = 'done', outcome = $3, finished_at = now(), lease_until = null, error_code = $4, error
        = $5 where id = $1 and token = $2 and state = 'running' returning 1
        """,
        claim.job_id,
        claim.token,
        outcome,
        error_code,
        dict(error) if error else None,
    )
    if not done:
        raise Fenced
    await _end_attempt(conn, claim, outcome=outcome, error=error)


async def _tell_dead(conn: Connection, object_id: uuid.UUID, job_id: int, processor: str, error_code: str) -> None:
    job = {"id": job_id, "processor": processor, "error_code": error_code}
    await events.tell(conn, "job.dead", object_id, {"job": job})


async def _end_attempt(conn: Connection, claim: Claim, *, outcome: str, error: Mapping[str, Any] | None) -> None:
    await conn.execute(
        """
        update job_attempt set ended_at = now(), outcome = $3, error_code = $4, error = $5
        where job_id = $1 and token = $2 and ended_at is null
        """,
        claim.job_id,
        claim.token,
        outcome,
        error["code"] if error else None,
        dict(error) if error else None,
    )


async def _pass_by(conn: Connection, claim: Claim) -> None:
    """A verdict on bytes that are no longer current says nothing. Where earlier runs may have put something, the job is
    ready at once: its next run ends as superseded, and names that. Raises Fenced."""
    if claim.runs == 1:
        await _supersede(conn, claim, ())
    else:
        await postpone(conn, claim, after_seconds=0, outcome="released")


async def _supersede(conn: Connection, claim: Claim, artifacts: Sequence[StoredArtifact | Garbage]) -> None:
    """End a superseded job, ours still or not, and heal what it may have overwritten: artifacts have predictable
    keys, so a late writer of an old generation makes the current generation's job run once more."""
    ours = await conn.fetchval(
        """
        update job set state = 'done', outcome = 'superseded', finished_at = now(), lease_until = null
        where id = $1 and token = $2 and state = 'running' returning 1
        """,
        claim.job_id,
        claim.token,
    )
    if ours:
        await _end_attempt(conn, claim, outcome="superseded", error=None)
        await objects.settle(conn, claim.object_id)  # whoever waits for it need wait no longer
    if not artifacts and claim.runs == 1:
        return  # this job never came so far as to write anything
    current = await conn.fetchval(
        """
        select id from object
        where bucket = $1 and key = $2 and superseded_at is null and deleted_at is null for update
        """,
        claim.bucket,
        claim.key,
    )
    if current is None:
        await conn.executemany(
            """
            insert into garbage (bucket, key, source_bucket, source_key) values ($1, $2, $3, $4) on conflict do nothing
            """,
            [(item.bucket, item.key, claim.bucket, claim.key) for item in artifacts],
        )
        return
    await conn.execute(
        """
        update job_attempt set ended_at = now(), outcome = 'superseded'
        from job where job.id = job_attempt.job_id and job.token = job_attempt.token and ended_at is null
          and job.object_id = $1 and job.processor = $2 and job.state = 'running'
        """,
        current,
        claim.processor,
    )
    await conn.execute(
        """
        update job set state = 'ready', outcome = null, finished_at = null, lease_until = null, run_at = now(),
                       dispatched_at = null, attempt = 0, token = token + 1
        where object_id = $1 and processor = $2 and state in ('running', 'done', 'dead')
        """,
        current,
        claim.processor,
    )
    await objects.settle(conn, current)
    await conn.execute("select pg_notify($1, '')", JOB_CHANNEL)
