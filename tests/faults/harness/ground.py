"""What a module's fault tests stand on: real Postgres, Valkey and SeaweedFS of its own, a severable proxy before each.

Servers may be killed, suspended and restarted on their ports; `heal` brings back whatever a test left broken. Must be
opened in the main thread, which the servers die with.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from safelight.embedded import Postgres, SeaweedFS, Server, Valkey
from safelight.embedded.stack import start_all
from tests.faults.harness.proxy import Proxy
from tests.servers import SCHEMA, TEMPLATE, execute


@dataclass(frozen=True, kw_only=True)
class Ground:
    folder: Path
    postgres: Postgres
    valkey: Valkey  # keeps nothing: restarted, it is empty
    seaweedfs: SeaweedFS
    postgres_proxy: Proxy
    redis_proxy: Proxy
    s3_proxy: Proxy

    @property
    def servers(self) -> tuple[Server, ...]:
        return (self.postgres, self.valkey, self.seaweedfs)

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        return (self.postgres_proxy, self.redis_proxy, self.s3_proxy)

    def through_proxy(self, url: str, proxy: Proxy) -> str:
        """The server's URL with the proxy's port."""
        return re.sub(r"(127\.0\.0\.1):\d+", rf"\1:{proxy.port}", url)

    async def heal(self) -> None:
        """Every server runs and answers, every proxy passes."""
        for server in self.servers:
            if server.suspended:
                server.resume()
            if not server.running:
                await self.restart(server)
        for proxy in self.proxies:
            await proxy.heal()

    async def kill(self, server: Server) -> None:
        """kill -9 to all of the server's processes."""
        await asyncio.to_thread(server.kill)

    async def restart(self, server: Server) -> None:
        """Start a server that does not run, on its old port, and wait until it answers; proxies go on meanwhile."""
        if server.running:
            await asyncio.to_thread(server.stop)
        server.launch()
        await asyncio.to_thread(server.wait_ready)


@contextlib.asynccontextmanager
async def open_ground(folder: Path) -> AsyncIterator[Ground]:
    """Start the servers and the proxies; kill them at the end."""
    # Without fsync a kill loses nothing that was written; with asynchronous commits it would lose what was promised.
    wanted = {"log_lock_waits": "on", "synchronous_commit": "on"}
    postgres = Postgres(folder / "postgres", durable=False, settings=wanted)
    valkey = Valkey(folder / "valkey", persistent=False)
    seaweedfs = SeaweedFS(folder / "seaweedfs")
    servers = (postgres, valkey, seaweedfs)
    try:
        start_all(servers)
        await execute(postgres.dsn_of("postgres"), f'create database "{TEMPLATE}"')
        await execute(postgres.dsn_of(TEMPLATE), SCHEMA.read_text("utf-8"))
        async with Proxy(postgres.port) as first, Proxy(valkey.port) as second, Proxy(seaweedfs.port) as third:
            yield Ground(
                folder=folder,
                postgres=postgres,
                valkey=valkey,
                seaweedfs=seaweedfs,
                postgres_proxy=first,
                redis_proxy=second,
                s3_proxy=third,
            )
    finally:
        for server in reversed(servers):
            server.kill()
