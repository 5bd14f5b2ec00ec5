"""One `safelight gateway` or `safelight worker` as a real process, to be killed, frozen, stopped and started again.

Dies with the thread that started it, which must be the main one. Only its own process and its descendants are ever
signalled, by pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safelight.embedded.identity import child_setup
from safelight.embedded.server import descendants
from tests.faults.harness.waiting import until_true

ROOT = Path(__file__).parents[3]
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a process holds at a moment."""

    rss_bytes: int
    descriptors: int


class Program:
    """A process and its successors: `restart` keeps name, environment, log and failpoint counters."""

    def __init__(
        self, kind: str, name: str, folder: Path, environment: Mapping[str, str], *, python: str = sys.executable
    ) -> None:
        self.kind, self.name = kind, name
        self.log_path = folder / f"{name}.log"
        self.hits_dir = folder / f"{name}-hits"
        self.hits_dir.mkdir()
        self._environment = {"PATH": os.defpath, **environment}
        if "SAFELIGHT_FAILPOINT" in environment:
            self._environment["SAFELIGHT_FAILPOINT_DIR"] = str(self.hits_dir)
        self._python = python
        self._log_start_bytes = 0
        self._launch()

    def _launch(self) -> None:
        with self.log_path.open("ab") as log:
            self._log_start_bytes = log.tell()
            self.process = subprocess.Popen(
                [self._python, "-m", "safelight", self.kind],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=child_setup(signal.SIGKILL, "same"),  # noqa: PLW1509
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative for a signal."""
        return self.process.poll()

    @property
    def url(self) -> str:
        """Of a gateway's REST door."""
        return f"http://127.0.0.1:{self._environment['SAFELIGHT_HTTP_PORT']}"

    def log(self) -> list[dict[str, Any]]:
        """Every complete line of its log since the last start."""
        with self.log_path.open("rb") as file:
            file.seek(self._log_start_bytes)
            lines = file.read().decode("utf-8", "replace").splitlines()
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def logged(self, event: str) -> int:
        """How often it logged this event since the last start."""
        return sum(line.get("event") == event for line in self.log())

    def hits(self, failpoint: str) -> int:
        """How often a failpoint was hit, over all starts."""
        path = self.hits_dir / failpoint
        return path.stat().st_size if path.exists() else 0

    def children(self) -> list[int]:
        return descendants(self.pid)

    def sample(self) -> Sample:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return Sample(rss_bytes=pages * _PAGE_BYTES, descriptors=len(os.listdir(f"/proc/{self.pid}/fd")))

    def suspend(self) -> None:
        """SIGSTOP to the process alone; its children go on."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def freeze_children(self) -> list[int]:
        """SIGSTOP to its decoders, so that whatever job they get stays running. Returns their pids."""
        pids = self.children()
        assert pids, f"{self.name} has no children"
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    def kill(self) -> None:
        """SIGKILL to the process alone, and wait until it is gone."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, *, seconds: float) -> float:
        """Seconds until it was gone."""
        return await until_true(lambda: self.exit_code is not None, f"{self.name} ends", seconds=seconds)

    async def stop(self, *, seconds: float = 10) -> float:
        """SIGTERM; seconds until it was gone."""
        self.terminate()
        return await self.ended(seconds=seconds)

    def restart(self) -> None:
        """Start it again; it must have ended."""
        assert self.exit_code is not None, f"{self.name} still runs"
        self._launch()

    async def ready(self, *, seconds: float = 30) -> None:
        """Wait until it listens. Fails with its log where it ends before."""
        event = f"{self.kind}.started"
        deadline = time.monotonic() + seconds
        while not self.logged(event):
            tail = self.log_path.read_text("utf-8", "replace")[-3000:]
            assert self.exit_code is None, f"{self.name} ended with {self.exit_code}:\n{tail}"
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{tail}"
            await asyncio.sleep(0.02)

    def end(self) -> None:
        """For the end of a test: whatever its state, it and its children are gone afterwards."""
        if self.exit_code is None:
            self.kill()


def thaw(pids: Iterable[int]) -> None:
    """Let frozen children go on, where they still are."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def alive(pid: int) -> bool:
    """Whether the process runs, zombies excepted."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
