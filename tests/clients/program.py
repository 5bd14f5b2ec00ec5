"""A client that is a program: started anew for every call, with nothing of the machine's own settings."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.clients.client import ClientFailed

COMMAND_SECONDS = 120


class Program:
    """Runs a program with its fixed options in front; its output, or ClientFailed with what it said."""

    def __init__(self, *command: str, environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, dict(environment)

    def run(self, *arguments: str, pipe: Path | None = None, seconds: float = COMMAND_SECONDS) -> bytes:
        """`pipe`: a file whose bytes the program gets through a pipe."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            input=pipe.read_bytes() if pipe else b"",
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode("utf-8", "replace")[-3000:]
            raise ClientFailed(f"{' '.join(arguments)}: exit code {done.returncode}: {said}")
        return done.stdout

    def read(self, *arguments: str) -> str:
        return self.run(*arguments).decode()

    def close(self) -> None:
        """Nothing runs between two calls."""
