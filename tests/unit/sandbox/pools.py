"""Sandboxes for tests, with the hostile processors, and how to wait for a process to end."""

from __future__ import annotations

import asyncio

from processors.contract import Options, Preset, Source
from processors.sandbox.pool import Sandbox

HOSTILE = "tests.unit.sandbox.hostile"
OPTIONS = Options(presets=(Preset(name="thumb", max_side_px=64, format="webp", quality=80),))


def source(data: bytes = b"photo") -> Source:
    return Source(data=data, size_bytes=len(data))


def sandbox(*, slots: int = 1, wall_seconds: float = 10, photos_per_child: int = 500) -> Sandbox:
    return Sandbox(
        slots=slots,
        wall_seconds=wall_seconds,
        memory_bytes=1 << 30,
        photos_per_child=photos_per_child,
        cpu_seconds=1,
        extra_processors=HOSTILE,
    )


async def assert_usable(pool: Sandbox) -> int:
    """The pool answers rightly; returns the pid that answered."""
    outcome = await pool.run("echo", source(b"still here"), OPTIONS)
    assert outcome.artifacts[0].data == b"still here"
    assert outcome.facts is not None
    return int(outcome.facts["pid"])


async def gone(pid: int, seconds: float = 5) -> bool:
    """Whether the process ends within the time; a zombie that waits for init has ended."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        if _state(pid) in ("", "Z"):
            return True
        await asyncio.sleep(0.01)
    return False


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
