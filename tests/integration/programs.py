"""Real gateways and workers as processes of a test: started, killed, frozen, and gone when the test ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from safelight.embedded.identity import child_setup
from safelight.embedded.server import descendants


class Program:
    """One `safelight gateway` or `safelight worker`. Must be started from the main thread, which it dies with."""

    def __init__(
        self, name: str, environment: Mapping[str, str], log_path: Path, *, options: Sequence[str] = ()
    ) -> None:
        self.name, self._log_path = name, log_path
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "safelight", name, *options),
                env={"PATH": os.defpath, **environment},
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
        return self.process.poll()

    def log(self) -> list[dict[str, object]]:
        """What it has logged so far, one line each."""
        lines = self._log_path.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def logged(self, event: str) -> bool:
        return any(line["event"] == event for line in self.log())

    def children(self) -> list[int]:
        return descendants(self.pid)

    def freeze_children(self) -> list[int]:
        """Stop the sandbox children, so that whatever job is given to them stays running. Returns their pids."""
        pids = self.children()
        assert pids, f"{self.name} has no children"
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(10)


def read_address(ports: Path) -> str:
    """Where a gateway listens; empty while it does not yet."""
    return str(json.loads(ports.read_text())["http_url"]) if ports.exists() else ""


class Stage:
    """The programs of one test, with the settings that they share."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, dict(environment)
        self.stream = environment["SAFELIGHT_REDIS_STREAM"]
        self.programs: list[Program] = []

    def start(self, name: str, *options: str, **more: str) -> Program:
        """Start a program with options of its command and further settings, named without SAFELIGHT_."""
        own = {f"SAFELIGHT_{setting.upper()}": value for setting, value in more.items()}
        path = self._folder / f"{len(self.programs)}-{name}.log"
        program = Program(name, {**self._environment, **own}, path, options=options)
        self.programs.append(program)
        return program

    def start_worker(self, **more: str) -> Program:
        return self.start("worker", **more)

    def start_gateway(self) -> tuple[Program, Path]:
        """The gateway, and the file that holds its address once it listens."""
        ports = self._folder / "ports.json"
        return self.start("gateway", http_port="0", s3_port="0", ports_file=str(ports)), ports

    def end(self) -> None:
        for program in self.programs:
            if program.exit_code is None:
                program.kill()

    def unexpected(self) -> list[object]:
        """What any program logged as an error, but for dead letters; for the message of a failing test."""
        return [line for program in self.programs for line in program.log() if line.get("level") == "error"]
