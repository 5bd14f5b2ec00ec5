"""Waiting for a program that the tests have started."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

START_SECONDS = 30
T = TypeVar("T")


def wait_until_listening(name: str, find: Callable[[], T | None], process: subprocess.Popen[bytes], log: Path) -> T:
    """The first true answer of `find`, the sign that it listens. Fails with the end of its log where it ends before, or
    takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not (found := find()):
        said = log.read_text("utf-8", "replace")[-6000:]
        assert process.poll() is None, f"{name} did not start:\n{said}"
        assert time.monotonic() < deadline, f"{name} does not listen:\n{said}"
        time.sleep(0.05)
    return found
