"""What a process that freezes in the midst of a transaction costs the others."""

from __future__ import annotations

import asyncio
import dataclasses

import asyncpg
import pytest

from storage.database import Connection, Database, DatabaseUnavailable
from tests.integration.stage import storage_settings

IDLE_SECONDS = 0.5


async def after_an_answer(conn: Connection) -> None:
    await conn.fetchval("select 1")


async def between_two_messages(conn: Connection) -> None:
    """A statement's first use: parsed, but not yet run. To Postgres the session is not idle."""
    await conn.prepare("select 40 + $1::int")


@pytest.mark.parametrize("freeze", [after_an_answer, between_two_messages])
async def test_a_frozen_transaction_gives_its_locks_back(postgres_dsn: str, freeze: object) -> None:
    """Wherever it froze, another session gets its lock within twice the idle time, and its own end is an outage."""
    assert callable(freeze)
    settings = dataclasses.replace(storage_settings(postgres_dsn), postgres_idle_seconds=IDLE_SECONDS)
    other = await asyncpg.connect(postgres_dsn)
    try:
        async with Database(settings) as database:
            with pytest.raises(DatabaseUnavailable):  # noqa: PT012 - the end of the transaction raises
                async with database.transaction() as conn:
                    await conn.execute("select pg_advisory_xact_lock(7)")
                    await freeze(conn)
                    taking = asyncio.create_task(
                        other.execute("select pg_advisory_lock(7)", timeout=2 * IDLE_SECONDS + 2)
                    )
                    await asyncio.wait({taking})
                    await conn.fetchval("select 1")
        await taking
    finally:
        await other.close()


@pytest.mark.parametrize("state", ["25P03", "25P04"])
async def test_what_ends_a_transaction_in_time_is_an_outage(postgres_dsn: str, state: str) -> None:
    """Whatever Postgres says first of a transaction that was idle or took for too long, it may be tried again."""
    async with Database(storage_settings(postgres_dsn)) as database:
        with pytest.raises(DatabaseUnavailable):
            async with database.connection() as conn:
                await conn.execute(f"do $$ begin raise exception using errcode = '{state}'; end $$")
