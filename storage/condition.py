"""How Postgres itself does: version, room, clock, schema. Read-only; functions take a connection first."""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files

from storage.database import Connection


@dataclass(frozen=True, kw_only=True)
class Condition:
    version: int  # major
    version_text: str
    now: datetime
    read_only: bool
    connections: int
    max_connections: int
    durable: bool  # fsync and full_page_writes
    schema: int | None  # None: there is none yet


async def examine(conn: Connection) -> Condition:
    row = await conn.fetchrow(
        """
        select current_setting('server_version_num')::int / 10000 as version,
               current_setting('server_version') as version_text, clock_timestamp() as now,
               pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as read_only,
               (select count(*) from pg_stat_activity) as connections,
               current_setting('max_connections')::int as max_connections,
               current_setting('fsync') = 'on' and current_setting('full_page_writes') = 'on' as durable
        """
    )
    assert row is not None
    return Condition(**row, schema=await read_schema_version(conn))


async def hears(listening: Connection, telling: Connection, *, seconds: float = 3) -> bool:
    """Whether a notification of one connection reaches another in that time. Behind a pooler it may not."""
    channel, heard = f"safelight_check_{secrets.token_hex(8)}", asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    await listening.add_listener(channel, hear)
    try:
        await telling.execute("select pg_notify($1, '')", channel)
        async with asyncio.timeout(seconds):
            await heard.wait()
    except TimeoutError:
        return False
    finally:
        await listening.remove_listener(channel, hear)
    return True


async def read_schema_version(conn: Connection) -> int | None:
    """Of the database; None where it has no schema of ours yet."""
    if not await conn.fetchval("select to_regclass('schema_version') is not null"):
        return None
    version: int | None = await conn.fetchval("select max(version) from schema_version")
    return version


def own_schema_version() -> int:
    """Of the schema.sql that comes with this release."""
    sql = files("storage").joinpath("schema.sql").read_text(encoding="utf-8")
    (line,) = re.findall(r"^insert into schema_version \(version\) values (.*?) on conflict", sql, re.MULTILINE)
    return max(int(number) for number in re.findall(r"\d+", line))
