"""Webhooks: who is told of what, where, and signed with which secret. Functions take a connection first.

Secrets come sealed; opening one to sign is the business of who sends.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.credentials import Resealed, reseal_one
from storage.database import Connection
from storage.sealing import MasterKeys, SealBroken

_CREATION_LOCK = 0x5AFE11648
_SHOWN = """
  webhook.id, name, url, types, bucket, prefix, created_by, created_at, updated_at, disabled_at is null as enabled,
  disabled_at, disabled_reason, failing_since,
  case when old_secret_until > now() then old_secret_until end as old_secret_until
"""
_TALLY = """
  (select coalesce(jsonb_object_agg(state, deliveries), '{}')
   from (select state, count(*) as deliveries from delivery where webhook_id = webhook.id group by 1) as tally)
    as deliveries
"""


class TooManyWebhooks(Exception):
    """As many as are allowed are there already."""


@dataclass(frozen=True, kw_only=True)
class NewWebhook:
    """What somebody wants to be told of. No types: of all; no bucket: of any."""

    id: uuid.UUID
    url: str
    name: str = ""
    types: Sequence[str] = ()
    bucket: str | None = None
    prefix: str = ""
    created_by: str
    sealed_secret: bytes = field(repr=False)


async def create(conn: Connection, new: NewWebhook, *, most: int) -> None:
    """Keep it. It is told of what gets its place from now on. Must run in a transaction. Raises TooManyWebhooks."""
    await conn.execute("select pg_advisory_xact_lock($1)", _CREATION_LOCK)
    if await conn.fetchval("select count(*) from webhook") >= most:
        raise TooManyWebhooks
    await conn.execute(
        """
        insert into webhook (id, name, url, types, bucket, prefix, created_by, sealed_secret)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        new.id,
        new.name,
        new.url,
        list(new.types),
        new.bucket,
        new.prefix,
        new.created_by,
        new.sealed_secret,
    )


async def find_all(conn: Connection) -> list[dict[str, Any]]:
    """Every webhook with the number of its deliveries in each state, oldest first; no secrets."""
    rows = await conn.fetch(f"select {_SHOWN}, {_TALLY} from webhook order by created_at, id")
    return [dict(row) for row in rows]


async def find(conn: Connection, webhook_id: uuid.UUID) -> dict[str, Any] | None:
    row = await conn.fetchrow(f"select {_SHOWN}, {_TALLY} from webhook where id = $1", webhook_id)
    return dict(row) if row else None


async def change(conn: Connection, webhook_id: uuid.UUID, changes: Mapping[str, Any]) -> bool:
    """Set what is named of url, name, types, bucket, prefix and enabled. False where there is no such webhook.
    What is enabled again goes on with what had been left to do."""
    wanted = dict(changes)
    enabled = wanted.pop("enabled", None)
    sets, arguments = ["updated_at = now()"], [webhook_id]
    for column in ("url", "name", "types", "bucket", "prefix"):
        if column in wanted:
            arguments.append(wanted.pop(column))
            sets.append(f"{column} = ${len(arguments)}")
    assert not wanted, wanted
    if enabled is True:
        sets.append("disabled_at = null, disabled_reason = null, failing_since = null")
    elif enabled is False:
        sets.append("disabled_at = coalesce(disabled_at, now()), disabled_reason = coalesce(disabled_reason, 'asked')")
    found = await conn.fetchval(f"update webhook set {', '.join(sets)} where id = $1 returning 1", *arguments)
    return bool(found)


async def rotate(conn: Connection, webhook_id: uuid.UUID, *, sealed_secret: bytes, overlap_hours: float) -> bool:
    """Sign with another secret, and for a while with the one before as well. False where there is no such webhook."""
    found = await conn.fetchval(
        """
        update webhook set updated_at = now(), sealed_secret = $2,
          sealed_old_secret = case when $3::float8 > 0 then sealed_secret end,
          old_secret_until = case when $3::float8 > 0 then now() + $3::float8 * interval '1 h' end
        where id = $1 returning 1
        """,
        webhook_id,
        sealed_secret,
        overlap_hours,
    )
    return bool(found)


async def delete(conn: Connection, webhook_id: uuid.UUID) -> bool:
    """Forget it, with all its deliveries. False where there is no such webhook."""
    return bool(await conn.fetchval("delete from webhook where id = $1 returning 1", webhook_id))


async def disable_gone(conn: Connection, webhook_id: uuid.UUID) -> None:
    """It said that it is to be told nothing any more."""
    await conn.execute(
        """
        update webhook set disabled_at = now(), disabled_reason = 'gone', updated_at = now()
        where id = $1 and disabled_at is null
        """,
        webhook_id,
    )


async def note_failure(conn: Connection, webhook_id: uuid.UUID) -> None:
    await conn.execute("update webhook set failing_since = now() where id = $1 and failing_since is null", webhook_id)


async def note_success(conn: Connection, webhook_id: uuid.UUID) -> None:
    await conn.execute(
        "update webhook set failing_since = null where id = $1 and failing_since is not null", webhook_id
    )


async def reseal(conn: Connection, masters: MasterKeys) -> Resealed:
    """Seal every secret with the first master key, whichever of them it was sealed with; one that none of them opens is
    left as it is. Must run in a transaction."""
    rows = await conn.fetch("select id, sealed_secret, sealed_old_secret from webhook order by id for update")
    resealed, broken = 0, {}
    for webhook_id, *sealed in rows:
        try:
            fresh = [reseal_one(masters, item, str(webhook_id)) for item in sealed]
        except SealBroken as error:
            broken[str(webhook_id)] = str(error)
            continue
        if fresh != sealed:
            await conn.execute(
                "update webhook set sealed_secret = $2, sealed_old_secret = $3 where id = $1", webhook_id, *fresh
            )
            resealed += 1
    return Resealed(resealed=resealed, kept=len(rows) - resealed - len(broken), broken=broken)
