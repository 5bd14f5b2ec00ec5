"""The connection to Postgres: one pool, one listening connection, the schema, and the translation of driver errors.

Promises that everything which means "Postgres cannot do this now" is raised as DatabaseUnavailable, so that no caller
knows the driver. Holds no SQL about photos or jobs: that lies in the modules named after them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import structlog

from storage.settings import StorageSettings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

log = structlog.get_logger(__name__)
T = TypeVar("T")

MIGRATION_LOCK = 0x5AFE11647
JOB_CHANNEL = "safelight_job"  # payload: empty; some job may be due
PHOTO_CHANNEL = "safelight_photo"  # payload: id of an object whose jobs or artifacts changed
EVENT_CHANNEL = "safelight_event"  # payload: empty; events have got their places

# What Postgres says when it cannot serve now but may later: connection trouble (08), insufficient resources such as a
# full disk or too many connections (53), operator intervention (57), system errors (58), a lost race (40), read-only,
# and that a transaction of ours was idle (25P03) or took (25P04) for too long.
_PASSING_STATES = ("08", "53", "57", "58", "40", "25006", "25P03", "25P04")
_PASSING_ERRORS = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class DatabaseUnavailable(Exception):
    """Postgres is down, out of reach, out of room or read-only. What was asked for may or may not have happened when
    this ends a transaction; every statement of ours may be repeated."""


@dataclass(frozen=True, kw_only=True)
class PoolUse:
    """Connections of one process: in use, open and idle, and how many there may be."""

    used: int
    idle: int
    limit: int


class Database:
    """The pool of one process. Opened once; survives any outage of Postgres."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._pool: Pool | None = None
        self.down_since: float | None = None  # time.time() of the first failure in a row

    async def __aenter__(self) -> Database:
        timeout = self._settings.postgres_timeout_seconds
        self._pool = await asyncpg.create_pool(
            self._settings.postgres_dsn,
            min_size=0,  # so that a process can start while Postgres is away
            max_size=self._settings.postgres_pool_size,
            command_timeout=timeout,
            timeout=min(timeout, 5),
            init=self._prepare,
            server_settings={
                "application_name": "safelight",
                "idle_in_transaction_session_timeout": str(int(self._settings.postgres_idle_seconds * 1000)),
            },
            reset=_keep,
            max_inactive_connection_lifetime=60,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._pool is not None
        try:
            async with asyncio.timeout(2):
                await self._pool.close()
        except (TimeoutError, *_PASSING_ERRORS):
            self._pool.terminate()

    @property
    def pool_use(self) -> PoolUse:
        assert self._pool is not None, "the database was not opened"
        idle = self._pool.get_idle_size()
        return PoolUse(used=self._pool.get_size() - idle, idle=idle, limit=self._pool.get_max_size())

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for single statements. Raises DatabaseUnavailable."""
        assert self._pool is not None, "the database was not opened"
        try:
            async with self._pool.acquire(timeout=self._settings.postgres_timeout_seconds) as conn:
                yield conn
        except _PASSING_ERRORS as error:
            raise self._unavailable(error) from error
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "").startswith(_PASSING_STATES):
                raise self._unavailable(error) from error
            raise
        else:
            if self.down_since is not None:
                log.info("dependency.up", message="Postgres is back.", dependency="postgres")
                self.down_since = None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction that commits at the end of the block. Raises DatabaseUnavailable."""
        async with self.connection() as conn, conn.transaction():
            yield conn

    async def persist(
        self, change: Callable[[Connection], Awaitable[T]], *, for_seconds: float, in_transaction: bool = True
    ) -> T:
        """Run `change` in a transaction, again and again while Postgres is away, for that long at most. It must
        bear to be repeated, because a commit whose answer was lost may have happened. `in_transaction` False: it opens
        one by itself where it needs one. Raises DatabaseUnavailable."""
        deadline = time.monotonic() + for_seconds
        pause_seconds = 0.05
        while True:
            try:
                async with self.transaction() if in_transaction else self.connection() as conn:
                    return await change(conn)
            except DatabaseUnavailable:
                if time.monotonic() + pause_seconds > deadline:
                    raise
                await asyncio.sleep(random.uniform(0.5, 1) * pause_seconds)  # noqa: S311 - spreads retries
                pause_seconds = min(1, pause_seconds * 2)

    async def ping(self) -> None:
        """Raises DatabaseUnavailable where a trivial statement cannot be run and written within two seconds."""
        try:
            async with asyncio.timeout(2), self.connection() as conn:
                try:
                    read_only = await conn.fetchval("show transaction_read_only")
                except asyncio.CancelledError:
                    conn.terminate()  # to give it back would take as long as Postgres stands still
                    raise
                if read_only == "on":
                    raise DatabaseUnavailable("Postgres is read-only")
        except TimeoutError as error:
            raise self._unavailable(error) from error

    async def migrate(self) -> int:
        """Apply schema.sql. Safe to repeat, and from many processes at once. Returns the schema's version."""
        sql = files("storage").joinpath("schema.sql").read_text(encoding="utf-8")
        async with self.transaction() as conn:
            if _has_transaction_timeout(conn):
                await conn.execute("set local transaction_timeout = 0")  # a large table takes its time
            await conn.execute("select pg_advisory_xact_lock($1)", MIGRATION_LOCK)
            await conn.execute(sql, timeout=120)
            return int(await conn.fetchval("select max(version) from schema_version"))

    async def _prepare(self, conn: Connection) -> None:
        await read_json(conn)
        if _has_transaction_timeout(conn):
            # Between the two messages of a statement's first use a session does not count as idle.
            limit_ms = int(self._settings.postgres_idle_seconds * 2000)
            await conn.execute(f"set transaction_timeout = {limit_ms}")

    def _unavailable(self, error: BaseException) -> DatabaseUnavailable:
        if self.down_since is None:
            self.down_since = time.time()
            log.warning("dependency.down", message="Postgres cannot be used.", dependency="postgres", error=repr(error))
        return DatabaseUnavailable(type(error).__name__)


class Listener:
    """Hears NOTIFY on a connection of its own and calls back. A hint only: notifications can be lost, so whoever
    listens must poll as well."""

    def __init__(self, settings: StorageSettings, callbacks: dict[str, Callable[[str], None]]) -> None:
        self._dsn = settings.postgres_dsn
        self._callbacks = callbacks

    async def run(self) -> None:
        """Listen until cancelled; reconnects for ever, and probes the connection every few seconds because a
        listening one can die without a sign."""
        pause_seconds = 0.1
        while True:
            conn = None
            try:
                conn = await asyncpg.connect(self._dsn, timeout=5, command_timeout=5)
                for channel in self._callbacks:
                    await conn.add_listener(channel, self._hear)
                pause_seconds = 0.1
                while True:
                    await asyncio.sleep(5)
                    await conn.execute("select 1")
            except (*_PASSING_ERRORS, asyncpg.PostgresError):
                await asyncio.sleep(random.uniform(0.5, 1) * pause_seconds)  # noqa: S311 - spreads reconnects
                pause_seconds = min(2, pause_seconds * 2)
            finally:
                if conn is not None:
                    conn.terminate()

    def _hear(self, _conn: Any, _pid: int, channel: str, payload: Any) -> None:
        self._callbacks[channel](str(payload))


async def read_json(conn: Connection) -> None:
    """Make the connection take and give json and jsonb as Python values, as every statement of ours expects."""
    for name in ("json", "jsonb"):
        await conn.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


def _has_transaction_timeout(conn: Connection) -> bool:
    return conn.get_server_version().major >= 17


async def _keep(_conn: Connection) -> None:
    """Nothing to reset: no statement of ours leaves anything behind in a session."""
