"""Named places at which a test can make this process die, stop, fail or hang. Inert and free unless armed.

Armed by `SAFELIGHT_FAILPOINT="name:action[:count],..."` together with `SAFELIGHT_FAILPOINT_DIR`, a folder that
keeps the number of hits over a kill. Actions: kill, exit, raise, hang, stop (SIGSTOP), sleep=<seconds>. After
`count` hits a point is inert again.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_SPEC = re.compile(r"([a-z0-9_]+\.[a-z0-9_]+):(kill|exit|raise|hang|stop|sleep=[0-9.]+)(?::([0-9]+))?")


class FailpointReached(Exception):
    """A test asked for an error at this place."""


@dataclass(frozen=True, kw_only=True)
class Failpoint:
    name: str
    action: str
    count: int | None  # None: every time
    folder: Path

    async def act(self) -> None:
        if not self._hit():
            return
        log.warning("failpoint.reached", message="A failpoint acts.", failpoint=self.name, action=self.action)
        match self.action.partition("="):
            case "kill", _, _:
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop", _, _:
                os.kill(os.getpid(), signal.SIGSTOP)
            case "exit", _, _:
                os._exit(1)
            case "hang", _, _:
                await asyncio.Event().wait()
            case "sleep", _, seconds:
                await asyncio.sleep(float(seconds))
            case _:
                raise FailpointReached(self.name)

    def _hit(self) -> bool:
        """Count this hit, on disk before anything happens; False where the count is used up."""
        path = self.folder / self.name
        with path.open("ab", buffering=0) as file:
            if self.count is not None and file.tell() >= self.count:
                return False
            file.write(b".")
            return True


_armed: dict[str, Failpoint] = {}


async def reach(name: str) -> None:
    """Do what a test armed at this place; usually nothing."""
    if (point := _armed.get(name)) is not None:
        await point.act()


def arm(environ: Mapping[str, str]) -> None:
    """Arm the points that the environment names. Raises ValueError that says what is wrong."""
    spec = environ.get("SAFELIGHT_FAILPOINT", "")
    if not spec:
        return
    folder = environ.get("SAFELIGHT_FAILPOINT_DIR", "")
    if not folder or not Path(folder).is_dir():
        raise ValueError(
            "SAFELIGHT_FAILPOINT makes this process fail on purpose and is for tests alone. Unset it, or also set "
            "SAFELIGHT_FAILPOINT_DIR to a folder that exists."
        )
    for part in spec.split(","):
        match = _SPEC.fullmatch(part.strip())
        if not match:
            raise ValueError(f"SAFELIGHT_FAILPOINT: {part.strip()!r} is not name:action[:count].")
        name, action, count = match.groups()
        _armed[name] = Failpoint(name=name, action=action, count=int(count) if count else None, folder=Path(folder))
        log.warning("failpoint.armed", message="A failpoint is armed.", failpoint=name, action=action)
