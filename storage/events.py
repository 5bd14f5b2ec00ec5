"""What happened, for others to hear: written in the transaction of the change that it tells of, and read in order.

An event is written without a place. `sequence` gives places (`seq`, without gaps) to what has committed, one caller at
a time; so who has seen place n has seen all before it, whichever transaction committed late. Neither identity columns
nor transaction ids promise that: the first are drawn before the commit, the second start anew in a restored database.
Functions take a connection first.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from storage import deliveries
from storage.database import EVENT_CHANNEL, Connection

EventType = Literal["photo.stored", "photo.ready", "photo.partial", "photo.rejected", "photo.deleted", "job.dead"]
TYPES: tuple[EventType, ...] = (
    "photo.stored",
    "photo.ready",
    "photo.partial",
    "photo.rejected",
    "photo.deleted",
    "job.dead",
)
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened, in its place."""

    seq: int
    type: str
    bucket: str
    key: str
    data: dict[str, Any]
    at: datetime

    @property
    def id(self) -> str:
        return write_id(self.seq)

    @property
    def body(self) -> dict[str, Any]:
        """What clients are sent."""
        timestamp = self.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {"id": self.id, "type": self.type, "timestamp": timestamp, "data": self.data}


@dataclass(frozen=True, kw_only=True)
class Line:
    """How far the events go: the last place that was given, and the last one that was forgotten."""

    last_seq: int
    pruned_seq: int


def write_id(seq: int) -> str:
    """An event's id: opaque to clients, and ordered as text."""
    return f"{seq:016x}"


def read_id(text: str) -> int:
    """The place that an id names. Raises ValueError."""
    if not _ID.fullmatch(text) or (seq := int(text, 16)) >= 2**63:
        raise ValueError("not an event's id")
    return seq


async def tell(conn: Connection, kind: EventType, object_id: uuid.UUID, more: Mapping[str, Any] | None = None) -> None:
    """Write an event about an object as it is now, `more` beside what is told of every object. Must run in the
    transaction of the change."""
    await conn.execute(
        """
        insert into event (type, object_id, bucket, key, data)
        select $2, id, bucket, key,
          jsonb_build_object('photo_id', id, 'bucket', bucket, 'key', key, 'etag', etag, 'size_bytes', size_bytes,
                             'content_type', content_type, 'status', status) || $3::jsonb
        from object where id = $1
        """,
        object_id,
        kind,
        dict(more or {}),
    )


async def tell_verdict(conn: Connection, object_id: uuid.UUID) -> None:
    """Write what a photo settled as: photo.ready or photo.partial with its previews, photo.rejected with the reason.
    Must run in the transaction that settled it."""
    await conn.execute(
        """
        insert into event (type, object_id, bucket, key, data)
        select 'photo.' || status, id, bucket, key,
          jsonb_build_object('photo_id', id, 'bucket', bucket, 'key', key, 'etag', etag, 'size_bytes', size_bytes,
                             'content_type', content_type, 'status', status)
          || case when status = 'rejected' then jsonb_build_object('rejection', rejection)
             else jsonb_build_object('previews', (
               select coalesce(jsonb_object_agg(preset, jsonb_build_object(
                        'bucket', artifact.bucket, 'key', artifact.key, 'content_type', artifact.content_type,
                        'width_px', width_px, 'height_px', height_px)), '{}')
               from artifact where artifact.object_id = object.id)) end
        from object where id = $1
        """,
        object_id,
    )


async def sequence(conn: Connection, *, limit: int = 1000) -> int | None:
    """Give places to events that have committed, in the order in which they were written, and make their deliveries.
    Must run in a transaction. Returns how many; None where somebody else is at it, who may have begun before the last
    of them committed."""
    last_seq = await conn.fetchval("select last_seq from event_line for update skip locked")
    if last_seq is None:
        return None
    given: int = await conn.fetchval(
        """
        with waiting as (
          select id, row_number() over (order by id) as place
          from (select id from event where seq is null order by id limit $2) as oldest
        ), placed as (
          update event set seq = $1 + waiting.place from waiting where event.id = waiting.id and event.seq is null
          returning 1
        )
        select count(*) from placed
        """,
        last_seq,
        limit,
    )
    if given:
        await conn.execute("update event_line set last_seq = last_seq + $1", given)
        await deliveries.spread(conn, after_seq=last_seq, to_seq=last_seq + given)
        await conn.execute("select pg_notify($1, '')", EVENT_CHANNEL)
    return given


async def any_waiting(conn: Connection) -> bool:
    return bool(await conn.fetchval("select exists (select from event where seq is null)"))


async def measure_wait(conn: Connection) -> float:
    """For how many seconds the oldest event has waited for its place; 0: none waits."""
    seconds: float = await conn.fetchval(
        "select coalesce(extract(epoch from now() - min(at)), 0)::float8 from event where seq is null"
    )
    return max(0.0, seconds)


async def find_line(conn: Connection) -> Line:
    row = await conn.fetchrow("select last_seq, pruned_seq from event_line")
    assert row is not None
    return Line(**dict(row))


async def read(conn: Connection, *, after_seq: int, limit: int) -> list[Event]:
    """What comes after a place, in order."""
    rows = await conn.fetch(
        "select seq, type, bucket, key, data, at from event where seq > $1 order by seq limit $2", after_seq, limit
    )
    return [Event(**dict(row)) for row in rows]


async def prune(conn: Connection, *, older_than_hours: float, limit: int = 5000) -> int:
    """Forget the oldest events, in order. Must run in a transaction. Returns how many."""
    pruned_seq = await conn.fetchval(
        """
        with oldest as (select seq, at from event where seq is not null order by seq limit $2)
        select max(seq) from oldest
        where seq < coalesce((select min(seq) from oldest where at >= now() - $1::float8 * interval '1 h'), 9e18)
        """,
        older_than_hours,
        limit,
    )
    if pruned_seq is None:
        return 0
    await conn.execute("update event_line set pruned_seq = greatest(pruned_seq, $1)", pruned_seq)
    status: str = await conn.execute("delete from event where seq <= $1", pruned_seq)
    return int(status.rsplit(" ", 1)[-1])
