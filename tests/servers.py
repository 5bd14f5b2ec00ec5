"""The real servers of a test session: each started when first asked for, healed after tests that broke it.

Their data lie in a temporary folder and their ports are free ones, so sessions side by side do not meet.
Postgres runs without safety against power loss, for speed.
"""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from safelight.embedded import Postgres, SeaweedFS, Server, Valkey
from safelight.embedded.seaweedfs import REGION

SCHEMA = Path(__file__).parent.parent / "schema.sql"
TEMPLATE = "safelight_template"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class S3Backend:
    """How to reach an S3 server."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = REGION


class Servers:
    """Handles of the session's servers. Reading one starts it; all calls from the main thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Server] = []

    @cached_property
    def postgres(self) -> Postgres:
        server = Postgres(self._folder / "postgres", durable=False)
        self._start(server)
        run_apart(self._make_template(server))
        return server

    @cached_property
    def valkey(self) -> Valkey:
        server = Valkey(self._folder / "valkey")
        self._start(server)
        return server

    @cached_property
    def seaweedfs(self) -> SeaweedFS:
        server = SeaweedFS(self._folder / "seaweedfs")
        self._start(server)
        return server

    @property
    def s3_backend(self) -> S3Backend:
        server = self.seaweedfs
        return S3Backend(endpoint=server.url, access_key=server.access_key, secret_key=server.secret_key)

    def heal(self) -> None:
        """Bring back every server that a test left stopped, killed or suspended."""
        for server in self._started:
            if server.suspended:
                server.resume()
            if not server.running:
                server.start()

    def stop(self) -> None:
        # Their data are thrown away: no need for an orderly end.
        for server in reversed(self._started):
            server.kill()

    def make_database(self) -> str:
        """Name of a new database that has the schema."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        statement = f'create database "{name}" template "{TEMPLATE}" strategy file_copy'
        run_apart(execute(self.postgres.dsn_of("postgres"), statement))
        return name

    def drop_database(self, name: str) -> None:
        run_apart(execute(self.postgres.dsn_of("postgres"), f'drop database if exists "{name}" with (force)'))

    def drop_buckets(self, prefix: str) -> None:
        """Delete all buckets whose names begin with `prefix`, with what is in them."""
        listing = self.seaweedfs.request("GET", "/").decode()
        for name in re.findall(r"<Name>([^<]+)</Name>", listing):
            if name.startswith(prefix):
                self.seaweedfs.request("DELETE", f"/{name}")

    def _start(self, server: Server) -> None:
        server.start()
        self._started.append(server)

    @staticmethod
    async def _make_template(server: Postgres) -> None:
        await execute(server.dsn_of("postgres"), f'create database "{TEMPLATE}"')
        await execute(server.dsn_of(TEMPLATE), SCHEMA.read_text("utf-8"))


async def execute(dsn: str, statements: str) -> None:
    """Run SQL on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def fetch_value(dsn: str, statement: str) -> Any:
    """The first value of a query, on a connection of its own."""
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread of its own, so that fixtures also work below a running event loop."""
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
