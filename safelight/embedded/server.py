"""The life of one server process: launch, wait until it truly answers, stop, kill, freeze, start again.

A server dies with the process that launched it (Linux), logs into its folder and holds the folder's
lock as long as any of its processes lives. It is not restarted when it dies: that is its owner's decision.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from safelight.embedded.folder import lock, make_private, name_holder
from safelight.embedded.identity import Identity, child_setup

READY_SECONDS = 20.0
LOG_LINES = 50
LOG_KEEP_BYTES = 16 << 20
# How long the processes of an earlier start may take to vanish, after a kill of everything for example.
LOCK_SECONDS = 5.0


class ServerFailed(Exception):
    """A server did not start. The message ends with the last lines of its log."""


class NotReady(Exception):
    """A probe found that the server does not answer yet."""


class Server(ABC):
    """One server in one folder. `launch` must be called from the main thread; the rest from any."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 10.0
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, data_dir: Path | str) -> None:
        self.folder = Path(data_dir).absolute()
        self.log_path = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start_bytes = 0
        self._ports: dict[str, int] = {}
        self.suspended = False

    @abstractmethod
    def prepare(self) -> None:
        """Make the folder ready for the command: ports, secrets, configuration. The lock is held."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the prepared server."""

    @abstractmethod
    def probe(self) -> None:
        """Ask the server to do its work once. Raises NotReady."""

    def environment(self) -> dict[str, str]:
        # Nothing of the caller's environment: PG*, WEED_* and proxies would change what a server does.
        return {"PATH": os.defpath, "HOME": str(self.folder), "LC_ALL": "C", "TZ": "UTC"}

    def identity(self) -> Identity:
        return "same"

    @property
    def ports(self) -> dict[str, int]:
        """Every port that the server listens on, by name. Known once launched."""
        if not self._ports:
            raise RuntimeError(f"{self.name} has no ports before its first launch")
        return dict(self._ports)

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its process group. Raises RuntimeError when not running."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Launch and wait until ready. Raises FolderInUse, ServerFailed, WheelMissing."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the process without waiting; later launches keep ports and data. Raises as `start` does."""
        if threading.current_thread() is not threading.main_thread():
            # The kernel ties a child to the thread that made it, not to the process.
            raise RuntimeError(f"{self.name} must be launched from the main thread")
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        make_private(self.folder)
        held = lock(self.folder, wait_seconds=LOCK_SECONDS)
        try:
            self.prepare()
            self._process = self._spawn(held)
            name_holder(held, self._process.pid)
        finally:
            os.close(held)

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Block until the server does its work. Raises ServerFailed (the server is stopped then)."""
        deadline = time.monotonic() + seconds
        pause_seconds, problem = 0.01, "no answer"
        while self.running:
            try:
                self.probe()
            except NotReady as error:
                problem = str(error)
            else:
                return
            if time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"did not get ready within {seconds:g} s ({problem})")
            time.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.5, 0.2)
        code = self._process.returncode if self._process else None
        raise self._failure(f"ended while starting (exit code {code})")

    def stop(self) -> None:
        """End the server in good order; by force after `stop_seconds`. Does nothing when none is running."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_signal)
            if self.suspended:
                self.resume()
            try:
                process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None
        self.clean_up()

    def strike(self) -> None:
        """SIGKILL to every process of the server, without waiting: for signal handlers."""
        self._signal_all(signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL to every process of the server, as if the machine crashed, and wait until it is gone."""
        if self._process is None:
            return
        self._signal_all(signal.SIGKILL)
        self._process.wait()
        self._process = None
        self.suspended = False
        self.clean_up()

    def suspend(self) -> None:
        """Freeze every process of the server: connections stay open, nothing answers."""
        self._signal_all(signal.SIGSTOP)
        self.suspended = True

    def resume(self) -> None:
        """Let a suspended server go on."""
        self._signal_all(signal.SIGCONT)
        self.suspended = False

    def clean_up(self) -> None:  # noqa: B027 - most servers leave nothing behind
        """Remove what a server that has ended leaves outside its folder."""

    def log_tail(self) -> str:
        """The last lines that the current or last run wrote."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(self._log_start_bytes, self.log_path.stat().st_size - 64_000))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-LOG_LINES:])

    def _spawn(self, held: int) -> subprocess.Popen[bytes]:
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_KEEP_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with open(os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            self._log_start_bytes = log.tell()
            return subprocess.Popen(  # noqa: S603 - a command made here, from a wheel's program
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
                pass_fds=(held,),
                preexec_fn=child_setup(self.death_signal, self.identity()),  # noqa: PLW1509
            )

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        # The parent first, so that it cannot make new children; they may lie in process groups of their own.
        for pid in (self._process.pid, *descendants(self._process.pid)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _failure(self, what: str) -> ServerFailed:
        return ServerFailed(f"{self.name} {what}. The end of {self.log_path}:\n{self.log_tail()}")


def descendants(pid: int) -> list[int]:
    """Ids of all processes below one, as /proc tells them (none where there is no /proc)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
