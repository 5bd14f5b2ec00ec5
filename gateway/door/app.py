"""The S3 door put together: what one process opens, how it listens, how it stops; and several processes on one port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import structlog
from aiohttp import web

from gateway.door.backend import Backend
from gateway.door.door import Door
from gateway.door.keyring import Keyring
from gateway.door.protocol import Server
from gateway.door.rates import Rates
from gateway.door.recording import Recorder
from gateway.door.tls import load_context
from gateway.listening import stop_on_signals, url_of, write_ports
from gateway.settings import GatewaySettings
from processors.settings import JobSettings
from processors.vitals import Expose, expose_nothing, render_with
from storage.database import Database
from storage.memory import keep_freed_buffers
from storage.sealing import MasterKeys
from storage.settings import StorageSettings

log = structlog.get_logger(__name__)

_READ_BYTES = 64 << 10
_RESTART_SECONDS = 1.0
_LOOK_SECONDS = 1.0  # so often a child looks whether its parent is there
_TRY_SECONDS = 0.05
CHILD_OF = "SAFELIGHT_DOOR_CHILD"  # the parent's pid


@contextlib.asynccontextmanager
async def open_door(settings: GatewaySettings, jobs: JobSettings, storage: StorageSettings) -> AsyncIterator[Door]:
    """Open the clients of one process."""
    async with Database(storage) as database:
        backend = Backend(storage)
        rates = Rates(settings, jobs.redis_url)
        try:
            door = Door(
                settings,
                jobs,
                backend=backend,
                keyring=Keyring(
                    database,
                    MasterKeys.parse(settings.master_key),
                    own=backend.signer,
                    derived_bucket=storage.derived_bucket,
                ),
                recorder=Recorder(database, backend, jobs, settings, derived_bucket=storage.derived_bucket),
                rates=rates,
                derived_bucket=storage.derived_bucket,
            )
            door.metrics.attend(database, backend, limit=settings.s3_max_requests)
            yield door
        finally:
            rates.close()
            backend.close()


def make_server(door: Door, settings: GatewaySettings) -> Server:
    """What answers connections with that door."""
    return Server(
        door.handle,
        stall_seconds=settings.s3_stall_seconds,
        access_log=None,
        auto_decompress=False,  # bodies are stored as they come
        keepalive_timeout=60,
        max_line_size=32 << 10,
        max_field_size=32 << 10,
        lingering_time=2,
        read_bufsize=_READ_BYTES,
    )


async def serve(
    settings: GatewaySettings,
    jobs: JobSettings,
    storage: StorageSettings,
    *,
    ports_file: str | None,
    expose: Expose = expose_nothing,
) -> None:
    """Run one process of the door until SIGTERM or SIGINT. `ports_file`: where to write the address once it listens.
    `expose` answers whoever asks for its metrics."""
    keep_freed_buffers()
    stop = stop_on_signals()
    async with open_door(settings, jobs, storage) as door:
        runner = web.ServerRunner(make_server(door, settings), shutdown_timeout=jobs.grace_seconds)
        await runner.setup()
        try:
            site = web.TCPSite(
                runner,
                settings.s3_host,
                settings.s3_port,
                backlog=512,
                ssl_context=_tls(settings),
                reuse_port=settings.s3_processes > 1,
            )
            await site.start()
            url = _url(settings, runner.addresses[0][1])
            log.info("door.started", message="The S3 door is listening.", url=url)
            if ports_file:
                write_ports(Path(ports_file), s3_url=url)
            async with expose(render_with(door.metrics.registry)), _stopping_with_parent(stop):
                await stop.wait()
            log.info("door.stopping", message="The S3 door finishes what is in flight.")
        finally:
            await runner.cleanup()


async def serve_many(
    settings: GatewaySettings, *, grace_seconds: float, ports_file: str | None, metrics_port: int = 0
) -> None:
    """Run `settings.s3_processes` of them on one port, and start again what dies, until SIGTERM or SIGINT. Each shows
    its own metrics, on `metrics_port` and those that follow it: numbers of a process must not be mixed up."""
    stop = stop_on_signals()
    with _reserve(settings) as port:
        environment = os.environ | {"SAFELIGHT_S3_PORT": str(port), CHILD_OF: str(os.getpid())}
        environment["SAFELIGHT_S3_PROCESSES"] = str(settings.s3_processes)
        environment.pop("SAFELIGHT_PORTS_FILE", None)
        metrics = [
            {"SAFELIGHT_METRICS_PORT": str(metrics_port + number)} if metrics_port else {}
            for number in range(settings.s3_processes)
        ]
        tasks = [asyncio.create_task(_keep(environment | own, grace_seconds)) for own in metrics]
        if ports_file:
            tasks.append(asyncio.create_task(_tell(Path(ports_file), settings, port)))
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _tell(ports_file: Path, settings: GatewaySettings, port: int) -> None:
    """Write the address as soon as one of the children answers at it."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(settings.s3_host, port)
            writer.close()
            break
        await asyncio.sleep(_TRY_SECONDS)
    write_ports(ports_file, s3_url=_url(settings, port))


@contextlib.asynccontextmanager
async def _stopping_with_parent(stop: asyncio.Event) -> AsyncIterator[None]:
    """A child whose parent was killed would hold the port for ever, beside the children of the next one."""

    async def watch(parent: int) -> None:
        while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(_LOOK_SECONDS)
        log.warning("door.orphaned", message="The parent of this process of the S3 door is gone; it stops.")
        stop.set()

    parent = os.environ.get(CHILD_OF, "")
    watching = asyncio.create_task(watch(int(parent))) if parent else None
    try:
        yield
    finally:
        if watching is not None:
            watching.cancel()


async def _keep(environment: dict[str, str], grace_seconds: float) -> None:
    """One child, again and again; stopped in order when this is cancelled."""
    while True:
        child = await asyncio.create_subprocess_exec(sys.executable, "-m", "safelight", "door", env=environment)
        try:
            code = await child.wait()
            log.error("door.child_ended", message="A process of the S3 door ended; another one starts.", exit_code=code)
            await asyncio.sleep(_RESTART_SECONDS)
        except asyncio.CancelledError:
            if child.returncode is None:
                child.terminate()
                try:
                    await asyncio.wait_for(child.wait(), grace_seconds + 5)
                except TimeoutError:
                    child.kill()
                    await child.wait()
            raise


@contextlib.contextmanager
def _reserve(settings: GatewaySettings) -> Iterator[int]:
    """The port that all children share; held, but not listened on, by the parent."""
    with socket.socket(socket.AF_INET6 if ":" in settings.s3_host else socket.AF_INET) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((settings.s3_host, settings.s3_port))
        yield holder.getsockname()[1]


def _tls(settings: GatewaySettings) -> ssl.SSLContext | None:
    if not settings.s3_tls_cert:
        return None
    return load_context(settings.s3_tls_cert, settings.s3_tls_key)


def _url(settings: GatewaySettings, port: int) -> str:
    return url_of("https" if settings.s3_tls_cert else "http", settings.s3_host, port)
