"""Deliveries: events on their way to webhooks. The job state machine once more, as SQL: claim, finish, postpone, bury,
release, reap, each guarded by the token that the claim got; only the database's clock decides what is due.

There is no heartbeat: an attempt has a time limit, and the lease is longer. Functions take a connection first.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from storage import webhooks
from storage.database import EVENT_CHANNEL, Connection

State = Literal["ready", "running", "delivered", "dead", "discarded"]
STATES: tuple[State, ...] = ("ready", "running", "delivered", "dead", "discarded")
FINISHED: tuple[State, ...] = ("delivered", "dead", "discarded")
_SHOWN = """
  id, webhook_id, event_id, type, state, attempt, token as attempts_in_all, run_at, status_code, error_code, error,
  created_at, finished_at
"""


class Fenced(Exception):
    """The delivery is no longer ours: the lease ended and somebody else has it."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to send one delivery, until its lease ends. `attempt` counts this one."""

    delivery_id: int
    token: int
    attempt: int
    webhook_id: uuid.UUID
    url: str
    event_id: str
    body: dict[str, Any]
    sealed_secret: bytes = field(repr=False)
    sealed_old_secret: bytes | None = field(repr=False)  # None: none that still signs


@dataclass(frozen=True, kw_only=True)
class Result:
    """How an attempt ended, for the log. `error_code` None: it was delivered."""

    status_code: int | None = None
    error_code: str | None = None
    error: str | None = None
    response: str | None = None  # the beginning of the answer's body


async def spread(conn: Connection, *, after_seq: int, to_seq: int) -> int:
    """A delivery of each event in these places for each webhook that wants it. Must run in the transaction that gives
    the places. Returns how many. The body is Event.body."""
    status: str = await conn.execute(
        """
        insert into delivery (webhook_id, event_id, type, body)
        select webhook.id, lpad(to_hex(event.seq), 16, '0'), event.type,
          jsonb_build_object('id', lpad(to_hex(event.seq), 16, '0'), 'type', event.type,
                             'timestamp', to_char(event.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                             'data', event.data)
        from event join webhook on disabled_at is null and (types = '{}' or event.type = any(types))
          and (webhook.bucket is null or webhook.bucket = event.bucket) and starts_with(event.key, webhook.prefix)
        where event.seq > $1 and event.seq <= $2
        order by event.seq, webhook.id
        """,
        after_seq,
        to_seq,
    )
    return int(status.rsplit(" ", 1)[-1])


async def send_test(conn: Connection, webhook_id: uuid.UUID, body: dict[str, Any]) -> int:
    """A delivery of one's own making, which passes the same way. Returns its id."""
    delivery_id: int = await conn.fetchval(
        "insert into delivery (webhook_id, event_id, type, body) values ($1, $2, $3, $4) returning id",
        webhook_id,
        body["id"],
        body["type"],
        body,
    )
    await conn.execute("select pg_notify($1, '')", EVENT_CHANNEL)
    return delivery_id


async def claim(conn: Connection, *, worker: str, lease_seconds: float, per_webhook: int, limit: int) -> list[Claim]:
    """Take due deliveries, the oldest of each webhook first and of all webhooks in turn. One webhook has at most
    `per_webhook` under way, and one that has failed for a minute one: no other waits for it."""
    rows = await conn.fetch(
        """
        with due as (
          select picked.id, picked.run_at,
                 row_number() over (partition by webhook.id order by picked.run_at, picked.id) as turn
          from webhook cross join lateral (
            select id, run_at from delivery
            where webhook_id = webhook.id and state = 'ready' and run_at <= now()
            order by run_at, id
            limit greatest(0, case when failing_since < now() - interval '1 min' then 1 else $3 end
                              - (select count(*) from delivery as busy
                                 where busy.webhook_id = webhook.id and busy.state = 'running'))
            for update skip locked
          ) as picked
          where disabled_at is null
        ), claimed as (
          update delivery set state = 'running', attempt = attempt + 1, token = token + 1,
                              lease_until = now() + $2::float8 * interval '1 s'
          where id in (select id from due order by turn, run_at, id limit $4) and state = 'ready'
          returning *
        ), attempts as (
          insert into delivery_attempt (delivery_id, token, worker) select id, token, $1 from claimed
        )
        select claimed.id as delivery_id, token, attempt, webhook_id, url, event_id, body, sealed_secret,
               case when old_secret_until > now() then sealed_old_secret end as sealed_old_secret
        from claimed join webhook on webhook.id = webhook_id order by claimed.id
        """,
        worker,
        lease_seconds,
        per_webhook,
        limit,
    )
    return [Claim(**dict(row)) for row in rows]


async def finish(conn: Connection, claim: Claim, result: Result) -> None:
    """It was taken. Must run in a transaction. Raises Fenced."""
    await _end(conn, claim, "delivered", result)
    await webhooks.note_success(conn, claim.webhook_id)


async def bury(conn: Connection, claim: Claim, result: Result, *, gone: bool = False) -> None:
    """Give up. `gone`: the webhook wants to be told nothing any more, and is disabled. Must run in a transaction.
    Raises Fenced."""
    await _end(conn, claim, "dead", result)
    await webhooks.note_failure(conn, claim.webhook_id)
    if gone:
        await webhooks.disable_gone(conn, claim.webhook_id)


async def postpone(
    conn: Connection,
    claim: Claim,
    result: Result,
    *,
    after_seconds: float,
    outcome: Literal["failed", "snoozed", "released"] = "failed",
) -> None:
    """Ready again, later. 'failed' costs an attempt, 'snoozed' and 'released' nothing. Must run in a transaction.
    Raises Fenced."""
    done = await conn.fetchval(
        """
        with postponed as (
          update delivery set state = 'ready', lease_until = null, run_at = now() + $3::float8 * interval '1 s',
            attempt = attempt - case when $4 = 'failed' then 0 else 1 end,
            status_code = coalesce($5, status_code), error_code = coalesce($6, error_code), error = coalesce($7, error)
          where id = $1 and token = $2 and state = 'running' returning id, run_at
        ), attempt as (
          update delivery_attempt set ended_at = now(), outcome = $4, status_code = $5, error_code = $6, error = $7,
                                      response = $8, retry_at = postponed.run_at
          from postponed where delivery_id = postponed.id and token = $2 and ended_at is null
        )
        select count(*) from postponed
        """,
        claim.delivery_id,
        claim.token,
        after_seconds,
        outcome,
        result.status_code,
        result.error_code,
        result.error,
        result.response,
    )
    if not done:
        raise Fenced
    if outcome == "failed":
        await webhooks.note_failure(conn, claim.webhook_id)


async def reap(conn: Connection, *, max_attempts: int, limit: int = 500) -> list[dict[str, Any]]:
    """Take back what a worker fell silent over; whether it was delivered is not known, so it is sent again. Must run in
    a transaction. Returns [{id, state}]."""
    rows = await conn.fetch(
        """
        with lost as (
          select id, token from delivery where state = 'running' and lease_until < now()
          order by lease_until limit $2 for update skip locked
        ), attempts as (
          update delivery_attempt set ended_at = now(), outcome = 'expired', error_code = 'lease_expired',
            error = 'Its worker fell silent.', retry_at = now()
          from lost where delivery_attempt.delivery_id = lost.id and delivery_attempt.token = lost.token
            and ended_at is null
        )
        update delivery set
          state = case when attempt >= $1 then 'dead' else 'ready' end,
          finished_at = case when attempt >= $1 then now() end,
          lease_until = null, run_at = now(), error_code = 'lease_expired', error = 'Its worker fell silent.'
        from lost where delivery.id = lost.id
        returning delivery.id, delivery.state
        """,
        max_attempts,
        limit,
    )
    return [dict(row) for row in rows]


async def find_page(
    conn: Connection, webhook_id: uuid.UUID, *, state: str | None, before_id: int | None, limit: int
) -> list[dict[str, Any]]:
    """Deliveries of a webhook, newest first, without bodies."""
    rows = await conn.fetch(
        f"""
        select {_SHOWN} from delivery
        where webhook_id = $1 and ($2::text is null or state = $2) and id < coalesce($3::bigint, {2**63 - 1})
        order by id desc limit $4
        """,
        webhook_id,
        state,
        before_id,
        limit,
    )
    return [dict(row) for row in rows]


async def find(conn: Connection, webhook_id: uuid.UUID, delivery_id: int) -> dict[str, Any] | None:
    """One delivery with its body and every attempt, oldest first."""
    row = await conn.fetchrow(
        f"select {_SHOWN}, body from delivery where webhook_id = $1 and id = $2", webhook_id, delivery_id
    )
    if row is None:
        return None
    attempts = await conn.fetch(
        """
        select token as number, worker, started_at, ended_at, outcome, status_code, error_code, error, response,
               retry_at, extract(epoch from ended_at - started_at)::float8 as seconds
        from delivery_attempt where delivery_id = $1 order by token
        """,
        delivery_id,
    )
    return {**dict(row), "attempts": [dict(attempt) for attempt in attempts]}


async def redeliver(
    conn: Connection, webhook_id: uuid.UUID, *, ids: list[int] | None, states: tuple[State, ...] = FINISHED, limit: int
) -> list[int]:
    """Make finished deliveries ready again with all their attempts, whatever became of them: those named, or the oldest
    in these states. Returns the ids that were."""
    rows = await conn.fetch(
        """
        update delivery set state = 'ready', attempt = 0, run_at = now(), finished_at = null
        where id in (
          select id from delivery
          where webhook_id = $1 and state = any($3) and ($2::bigint[] is null or id = any($2))
          order by id limit $4 for update)
        returning id
        """,
        webhook_id,
        ids,
        list(states),
        limit,
    )
    if rows:
        await conn.execute("select pg_notify($1, '')", EVENT_CHANNEL)
    return sorted(row["id"] for row in rows)


async def discard(conn: Connection, webhook_id: uuid.UUID, delivery_id: int) -> bool:
    """Send it no more. False where it is under way, delivered or discarded, or is not there."""
    return bool(
        await conn.fetchval(
            """
            update delivery set state = 'discarded', finished_at = now()
            where webhook_id = $1 and id = $2 and state in ('ready', 'dead') returning 1
            """,
            webhook_id,
            delivery_id,
        )
    )


async def prune(conn: Connection, *, older_than_hours: float, limit: int = 5000) -> int:
    """Forget deliveries that were finished long ago, with their attempts. Returns how many."""
    status: str = await conn.execute(
        """
        delete from delivery where id in (
          select id from delivery where finished_at < now() - $1::float8 * interval '1 h'
          order by finished_at limit $2)
        """,
        older_than_hours,
        limit,
    )
    return int(status.rsplit(" ", 1)[-1])


async def forget(conn: Connection, webhook_id: uuid.UUID, *, limit: int) -> int:
    """Forget deliveries of a webhook, whatever their state. Returns how many."""
    status: str = await conn.execute(
        "delete from delivery where id in (select id from delivery where webhook_id = $1 limit $2)", webhook_id, limit
    )
    return int(status.rsplit(" ", 1)[-1])


async def measure(conn: Connection) -> dict[str, Any]:
    """How the webhooks do: numbers of `ready`, `running` and `dead` deliveries, `oldest_due_seconds` of those whose
    webhook is enabled, and of webhooks that are `enabled`, `failing` and `disabled`. Delivered ones are not counted:
    they are many."""
    row = await conn.fetchrow(
        """
        select (select count(*) from delivery where state = 'ready') as ready,
               (select count(*) from delivery where state = 'running') as running,
               (select count(*) from delivery where state = 'dead') as dead,
               (select coalesce(extract(epoch from now() - min(run_at)), 0)::float8
                from delivery join webhook on webhook.id = webhook_id and disabled_at is null
                where state = 'ready' and run_at <= now()) as oldest_due_seconds,
               (select count(*) from webhook where disabled_at is null and failing_since is null) as enabled,
               (select count(*) from webhook where disabled_at is null and failing_since is not null) as failing,
               (select count(*) from webhook where disabled_at is not null) as disabled
        """
    )
    assert row is not None
    return dict(row)


async def _end(conn: Connection, claim: Claim, state: Literal["delivered", "dead"], result: Result) -> None:
    done = await conn.fetchval(
        """
        with ended as (
          update delivery set state = $3, finished_at = now(), lease_until = null, status_code = $4, error_code = $5,
                              error = $6
          where id = $1 and token = $2 and state = 'running' returning id
        ), attempt as (
          update delivery_attempt set ended_at = now(), outcome = $3, status_code = $4, error_code = $5, error = $6,
                                      response = $7
          where delivery_id = (select id from ended) and token = $2 and ended_at is null
        )
        select count(*) from ended
        """,
        claim.delivery_id,
        claim.token,
        state,
        result.status_code,
        result.error_code,
        result.error,
        result.response,
    )
    if not done:
        raise Fenced
