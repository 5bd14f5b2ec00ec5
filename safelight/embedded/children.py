"""Child processes of `safelight up`: started, watched, started again after a growing pause, stopped.

A child dies with its parent (Linux). Its output goes where the parent's goes.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from safelight.embedded.identity import child_setup

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
# A process that lived this long before it died did work: its next pause is the first again.
HEALTHY_SECONDS = 1.0


class Process(Protocol):
    """What can be kept alive: a Child or a Server."""

    @property
    def name(self) -> str: ...

    @property
    def running(self) -> bool: ...

    def launch(self) -> None: ...


class Child:
    """One process of this program. `launch` must be called from the main thread (see identity.py)."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], output: int | None = None
    ) -> None:
        self._name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of a process that has ended; negative for a signal."""
        return self._process.poll() if self._process else None

    def launch(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own commands
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=self._environment,
            # Out of reach of the terminal's Ctrl-C: the parent stops everything in order.
            start_new_session=True,
            preexec_fn=child_setup(signal.SIGKILL),  # noqa: PLW1509
        )

    def ask_to_stop(self) -> None:
        if self.running and self._process:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Block until it has ended; kill it at `deadline` (time.monotonic)."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()

    def strike(self) -> None:
        """SIGKILL to the process and its group, without waiting: for signal handlers."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL to the process and its group, and wait until it is gone."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Keeper:
    """Starts again whatever has died, after a pause that doubles with each death soon after a start."""

    def __init__(self, processes: Iterable[Process], first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self._processes = list(processes)
        self._first_pause_seconds = first_pause_seconds
        now = time.monotonic()
        self._pauses = {process.name: first_pause_seconds for process in self._processes}
        self._started = {process.name: now for process in self._processes}
        self._due: dict[str, float] = {}

    def tend(self) -> list[str]:
        """Launch what is due; one sentence about each process found dead. To be called again and again."""
        return [news for process in self._processes for news in self._look_at(process)]

    def _look_at(self, process: Process) -> list[str]:
        name, now = process.name, time.monotonic()
        if process.running:
            return []
        if name not in self._due:
            if now - self._started[name] > HEALTHY_SECONDS:
                self._pauses[name] = self._first_pause_seconds
            pause_seconds = self._pauses[name]
            self._due[name] = now + pause_seconds
            self._pauses[name] = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)
            return [f"{name} has ended unexpectedly; it is started again in {pause_seconds:g} s"]
        if now >= self._due[name]:
            del self._due[name]
            self._started[name] = now
            process.launch()
        return []


def read_to_end(child: Child, output: io.FileIO, check: Callable[[], None]) -> str:
    """All that a child writes until it ends, as text. Calls `check` again and again, and lets it raise."""
    os.set_blocking(output.fileno(), False)
    said = bytearray()
    ended = False
    while not ended:
        check()
        ended = not child.running
        while part := output.read(65_536):
            said += part
        if not ended:
            time.sleep(0.02)
    return said.decode("utf-8", "replace").rstrip()


def stop_children(children: Sequence[Child], grace_seconds: float) -> None:
    """Ask all to stop, wait for all, kill those that are still there after the grace."""
    for child in children:
        child.ask_to_stop()
    deadline = time.monotonic() + grace_seconds
    for child in children:
        child.wait(deadline)
