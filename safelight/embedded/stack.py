"""Which servers a start without containers needs, and the settings that point Safelight at them.

A server named by the environment is used as it is; only the others are embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from safelight.embedded.postgres import Postgres
from safelight.embedded.seaweedfs import SeaweedFS
from safelight.embedded.server import Server
from safelight.embedded.valkey import Valkey

POSTGRES_DSN, REDIS_URL = "SAFELIGHT_POSTGRES_DSN", "SAFELIGHT_REDIS_URL"
S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY = (
    "SAFELIGHT_S3_ENDPOINT",
    "SAFELIGHT_S3_ACCESS_KEY",
    "SAFELIGHT_S3_SECRET_KEY",
)
S3_TRAILERS = "SAFELIGHT_S3_TRAILERS"
# Stand-ins for what is known only after the start, so that all other settings can be checked before it.
PLACEHOLDERS = {
    POSTGRES_DSN: "postgresql://127.0.0.1/safelight",
    REDIS_URL: "redis://127.0.0.1/0",
    S3_ENDPOINT: "http://127.0.0.1",
    S3_ACCESS_KEY: "to-be-made",
    S3_SECRET_KEY: "to-be-made",
}


def choose_servers(environ: Mapping[str, str], data_dir: Path) -> list[Server]:
    """The embedded servers for everything that the environment does not name, in order of start."""
    servers: list[Server] = []
    if not environ.get(POSTGRES_DSN):
        servers.append(Postgres(data_dir / "postgres"))
    if not environ.get(REDIS_URL):
        servers.append(Valkey(data_dir / "valkey"))
    if not any(environ.get(name) for name in (S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY)):
        servers.append(SeaweedFS(data_dir / "seaweedfs"))
    return servers


def settings_of(servers: Sequence[Server]) -> dict[str, str]:
    """The environment variables that point at launched servers, and say what those can do."""
    settings: dict[str, str] = {}
    for server in servers:
        if isinstance(server, Postgres):
            settings[POSTGRES_DSN] = server.dsn
        elif isinstance(server, Valkey):
            settings[REDIS_URL] = server.url
        elif isinstance(server, SeaweedFS):
            settings |= {
                S3_ENDPOINT: server.url,
                S3_ACCESS_KEY: server.access_key,
                S3_SECRET_KEY: server.secret_key,
                S3_TRAILERS: "pass",
            }
    return settings


def placeholders_for(servers: Sequence[Server]) -> dict[str, str]:
    """Values of the right form for the settings of servers that are not launched yet."""
    kinds = {
        Postgres: (POSTGRES_DSN,),
        Valkey: (REDIS_URL,),
        SeaweedFS: (S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY),
    }
    return {name: PLACEHOLDERS[name] for server in servers for name in kinds[type(server)]}


def start_all(servers: Sequence[Server], check: Callable[[], None] = lambda: None) -> None:
    """Start all servers at once. Raises as Server.start does, or what `check` raises (called while waiting).

    Processes are made one after the other in the main thread (see identity.py); the waiting is done together.
    """
    for server in servers:
        check()
        server.launch()
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        waiting = {pool.submit(server.wait_ready) for server in servers}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.05)
                for result in done:
                    result.result()
                check()
        except BaseException:
            # Ends the other threads: a server that is gone is never ready.
            stop_all(servers)
            raise


def stop_all(servers: Sequence[Server]) -> None:
    """Stop all servers, the last one first."""
    for server in reversed(servers):
        server.stop()
