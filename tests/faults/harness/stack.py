"""One Safelight for one test: its own database, buckets and stream on the module's servers, and the gateways and
workers that the test starts, as real processes that reach every dependency through its proxy.

`database`, `blobs` and `redis` go straight to the servers, past the proxies, so a test can look while a fault lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from safelight.embedded.folder import choose_port
from safelight.embedded.seaweedfs import REGION
from storage import credentials
from storage.blobs import Blobs
from storage.database import Database
from storage.settings import StorageSettings
from tests.faults.harness.ground import Ground
from tests.faults.harness.programs import ROOT, Program
from tests.faults.harness.waiting import until
from tests.servers import TEMPLATE, execute

LEASE_SECONDS = 3.0
REDISPATCH_SECONDS = 2.0
POLL_SECONDS = 1.0
ARTIFACTS = ROOT / "tests" / "artifacts"

TIMES = {
    "lease_seconds": f"{LEASE_SECONDS:g}",
    "redispatch_seconds": f"{REDISPATCH_SECONDS:g}",
    "poll_seconds": f"{POLL_SECONDS:g}",
    "heartbeat_seconds": "0.5",
    "snooze_seconds": "0.5",
    "backoff_base_seconds": "0.2",
    "backoff_cap_seconds": "1",
    "grace_seconds": "10",
    "postgres_idle_seconds": "2",
    "worker_slots": "2",
    "log_format": "json",
    "log_level": "debug",
}


@dataclass(kw_only=True)
class Stack:
    ground: Ground
    folder: Path
    name: str  # of the database, the stream and the buckets
    token: str
    database: Database
    blobs: Blobs
    redis: redis.Redis
    settings: StorageSettings
    programs: list[Program] = field(default_factory=list)
    processors: tuple[str, ...] = ("exif", "preview")  # what every photo gets
    hooks: str = ""  # of every program, unless it is empty
    python: str = sys.executable  # of every program that is not given another; may have plugins (see plugins.py)

    @property
    def bucket(self) -> str:
        return self.settings.default_bucket

    @property
    def derived_bucket(self) -> str:
        return self.settings.derived_bucket

    @property
    def gateways(self) -> list[Program]:
        return [program for program in self.programs if program.kind == "gateway" and program.exit_code is None]

    @property
    def workers(self) -> list[Program]:
        return [program for program in self.programs if program.kind == "worker" and program.exit_code is None]

    async def start(self, *, gateways: int = 1, workers: int = 2, **settings: str) -> None:
        """Start so many of each at once, with the same settings (named without SAFELIGHT_), and wait for all."""
        kinds = ["gateway"] * gateways + ["worker"] * workers
        started = [self.launch(kind, **settings) for kind in kinds]
        await asyncio.gather(*(program.ready() for program in started))

    async def start_gateway(self, **settings: str) -> Program:
        """`failpoint="tx.before_commit:kill:1"` arms one, as any other setting."""
        return await self._start("gateway", settings)

    async def start_worker(self, **settings: str) -> Program:
        return await self._start("worker", settings)

    async def _start(self, kind: str, settings: dict[str, str]) -> Program:
        program = self.launch(kind, **settings)
        await program.ready()
        return program

    def launch(self, kind: str, *, python: str = "", **settings: str) -> Program:
        """Start one without waiting. `python`: another interpreter than the stack's."""
        more = {"http_port": str(choose_port()), "s3_port": str(choose_port())} if kind == "gateway" else {}
        named = {**self._environment(), **TIMES, **more, **settings}
        environment = {f"SAFELIGHT_{name.upper()}": value for name, value in named.items()}
        name = f"{len(self.programs)}-{kind}"
        self.programs.append(Program(kind, name, self.folder, environment, python=python or self.python))
        return self.programs[-1]

    def _environment(self) -> dict[str, str]:
        ground = self.ground
        hooks = {"hooks": self.hooks} if self.hooks else {}
        return hooks | {
            "postgres_dsn": ground.through_proxy(self.settings.postgres_dsn, ground.postgres_proxy),
            "redis_url": ground.through_proxy(ground.valkey.url, ground.redis_proxy),
            "redis_stream": self.name,
            "s3_endpoint": ground.through_proxy(ground.seaweedfs.url, ground.s3_proxy),
            "s3_access_key": self.settings.s3_access_key,
            "s3_secret_key": self.settings.s3_secret_key,
            "default_bucket": self.bucket,
            "derived_bucket": self.derived_bucket,
        }

    async def fetch(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        async with self.database.connection() as conn:
            return [dict(row) for row in await conn.fetch(statement, *arguments)]

    async def value(self, statement: str, *arguments: object) -> Any:
        async with self.database.connection() as conn:
            return await conn.fetchval(statement, *arguments)

    async def drain(self, *, seconds: float) -> None:
        """Wait until no job is due, running or waiting for a retry. Fails after so many seconds."""

        async def idle() -> bool:
            return not await self.value("select count(*) from job where state in ('ready', 'running')")

        await until(idle, "every job has ended", seconds=seconds)

    def errors(self) -> list[dict[str, Any]]:
        """What any program logged as an error, dead letters excepted."""
        lines = [line for program in self.programs for line in program.log()]
        return [line for line in lines if line.get("level") == "error" and line.get("event") != "job.dead"]

    async def save(self, name: str) -> Path:
        """Keep what explains a failure in tests/artifacts: logs, the jobs and attempts as CSV, what Redis holds."""
        folder = ARTIFACTS / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in self.folder.glob("*.log"):
            shutil.copy(path, folder)
        for server in self.ground.servers:
            shutil.copy(server.log_path, folder / f"{server.name.lower()}.log")
        with contextlib.suppress(Exception):
            for table in ("job", "job_attempt", "object"):
                _write_csv(folder / f"{table}.csv", await self.fetch(f"select * from {table} order by 1, 2"))
        with contextlib.suppress(Exception):
            found = [await self.redis.xinfo_stream(self.name), await self.redis.xinfo_groups(self.name)]
            found.append(await self.redis.xinfo_consumers(self.name, "workers"))
            (folder / "xinfo.json").write_text(json.dumps(found, indent=2, default=repr))
        return folder

    def end(self) -> None:
        for program in self.programs:
            program.end()


@contextlib.asynccontextmanager
async def open_stack(ground: Ground, folder: Path) -> AsyncIterator[Stack]:
    """A database with the schema and a key of all scopes, two empty buckets, no programs yet."""
    name = f"t{uuid.uuid4().hex[:10]}"
    dsn = ground.postgres.dsn_of("postgres")
    await execute(dsn, f'create database "{name}" template "{TEMPLATE}" strategy file_copy')
    settings = StorageSettings(
        postgres_dsn=ground.postgres.dsn_of(name),
        s3_endpoint=ground.seaweedfs.url,
        s3_access_key=ground.seaweedfs.access_key,
        s3_secret_key=ground.seaweedfs.secret_key,
        s3_region=REGION,
        default_bucket=f"{name}-photos",
        derived_bucket=f"{name}-derived",
    )
    credential = credentials.generate()
    async with Database(settings) as database, Blobs(settings) as blobs, _open_redis(ground) as client:
        async with database.connection() as conn:
            await credentials.create(conn, credential, name="fault tests", scopes=["read", "write", "admin"])
        for bucket in (settings.default_bucket, settings.derived_bucket):
            await blobs.ensure_bucket(bucket)
        stack = Stack(
            ground=ground,
            folder=folder,
            name=name,
            token=credential.token,
            database=database,
            blobs=blobs,
            redis=client,
            settings=settings,
        )
        try:
            yield stack
        finally:
            stack.end()
            await ground.heal()
    await execute(dsn, f'drop database "{name}" with (force)')
    for bucket in (settings.default_bucket, settings.derived_bucket):
        await asyncio.to_thread(ground.seaweedfs.request, "DELETE", f"/{bucket}")


@contextlib.asynccontextmanager
async def _open_redis(ground: Ground) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(ground.valkey.url) as client:
        yield client


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["empty"])
        writer.writeheader()
        writer.writerows(rows)
