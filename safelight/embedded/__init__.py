"""Real Postgres, Valkey and SeaweedFS from wheels, for a start without containers and for the tests.

Each server has one class, one private folder and ports on 127.0.0.1 only; its folder outlives it.
Linux and macOS. Not for production: there Safelight is pointed at servers of your own.
"""

from __future__ import annotations

from safelight.embedded.folder import FolderInUse
from safelight.embedded.postgres import Postgres
from safelight.embedded.seaweedfs import SeaweedFS
from safelight.embedded.server import Server, ServerFailed
from safelight.embedded.valkey import Valkey
from safelight.embedded.wheels import WheelMissing

__all__ = ["FolderInUse", "Postgres", "SeaweedFS", "Server", "ServerFailed", "Valkey", "WheelMissing"]
