"""A server's private folder: who may use it, what it must keep secret, which ports it had.

Folders are made 0700 and files 0600, written whole or not at all. Folders that already exist are left as they
are: no permission of a folder that Safelight did not make is ever changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Below every kernel's range for outgoing connections (Linux 32768, macOS 49152): no client socket can take
# the port of a server that is down for a moment, nor can a client that retries connect to itself. The upper
# end leaves room for SeaweedFS' port at a distance of 10000.
PORTS = range(20_000, 22_700)
LOCALHOST = "127.0.0.1"


class FolderInUse(Exception):
    """Another live process uses the folder. The message names it and says what to do."""


def make_private(path: Path) -> Path:
    """The absolute path of a folder that exists; made with mode 0700 if it did not."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace a file at once by `text`, readable by its owner only."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _make_secret() -> str:
    return secrets.token_hex(20)


def keep_secrets(folder: Path, names: Iterable[str], make: Callable[[], str] = _make_secret) -> dict[str, str]:
    """Random secrets by name, of letters and digits unless `make` says otherwise: made once per folder, the same ever
    after."""
    path = folder / "secrets.json"
    kept = _read(path)
    missing = [name for name in names if name not in kept]
    if missing:
        kept |= {name: make() for name in missing}
        write_private(path, json.dumps(kept, indent=2))
    return kept


def keep_ports(folder: Path, wanted: dict[str, int], spacing: Iterable[int] = (0,)) -> dict[str, int]:
    """A free port for each name: the wanted one, or (for 0) the last one if still free, or a new one.

    `spacing`: for a port that is chosen, each port + spacing must be free too.
    """
    path = folder / "ports.json"
    kept = _read(path)
    ports: dict[str, int] = {}
    for name, port in wanted.items():
        last = kept.get(name, 0)
        if port:
            ports[name] = port
        elif last and last not in ports.values() and all(is_free(last + step) for step in spacing):
            ports[name] = last
            _given.add(last)
        else:
            ports[name] = choose_port(taken=[*ports.values(), *wanted.values()], spacing=spacing)
    if ports != kept:
        write_private(path, json.dumps(ports))
    return ports


_given: set[int] = set()


def choose_port(*, taken: Iterable[int] = (), spacing: Iterable[int] = (0,)) -> int:
    """A free port on 127.0.0.1, outside the range of outgoing connections, and never the same one twice: who got it may
    not listen yet. Raises OSError without one."""
    steps, others = tuple(spacing), {*taken, *_given}
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if not others & {port + step for step in steps} and all(is_free(port + step) for step in steps):
            _given.update(port + step for step in steps)
            return port
    raise OSError("no free port on 127.0.0.1")


def is_free(port: int, host: str = LOCALHOST) -> bool:
    """Whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def lock(folder: Path, *, wait_seconds: float = 0) -> int:
    """Take the folder for this process and for whoever inherits the returned file descriptor.

    The kernel frees it when the last of them is gone, however they died. Raises FolderInUse.
    """
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                os.close(descriptor)
                raise FolderInUse(
                    f"{folder} is in use by a running process{f' (pid {holder})' if holder else ''}. "
                    "Stop that one first, or choose another folder with SAFELIGHT_DATA_DIR."
                ) from None
            time.sleep(0.05)
        else:
            return descriptor


def name_holder(descriptor: int, pid: int) -> None:
    """Write into a held lock who holds it, for the message that others get."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid}\n".encode(), 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return kept if isinstance(kept, dict) else {}
