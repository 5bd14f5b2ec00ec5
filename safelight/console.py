"""How a command runs and ends: on uvloop, with the database it needs, and one sentence about what went wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from safelight import logs
from safelight.settings import process_settings
from safelight.starting import NO_POSTGRES, explain_bind
from storage.database import Connection, Database, DatabaseUnavailable
from storage.sealing import MasterKeys
from storage.settings import StorageSettings

T = TypeVar("T")
MASTER_KEY, POSTGRES_DSN = "SAFELIGHT_MASTER_KEY", "SAFELIGHT_POSTGRES_DSN"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop. A database that cannot be used is one sentence, not a traceback."""
    import uvloop

    try:
        return uvloop.run(main)
    except DatabaseUnavailable:
        fail(NO_POSTGRES)
    except OSError as error:
        if (sentence := explain_bind(error)) is None:
            raise
        fail(sentence, code=1)


def with_connection(action: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `action` in one transaction, for commands that need Postgres alone."""

    async def act(database: Database) -> T:
        async with database.transaction() as conn:
            return await action(conn)

    return with_database(act)


def with_database(action: Callable[[Database], Awaitable[T]]) -> T:
    """For commands that need Postgres alone: the other settings need not be there."""
    logs.configure(process_settings(os.environ))
    dsn = with_local_servers(os.environ).get(POSTGRES_DSN, "").strip()
    if not dsn:
        fail(
            f"{POSTGRES_DSN} is not set. Set it to postgresql://user:password@host:port/database; or run this in "
            "the folder in which `safelight up` runs."
        )
    storage = StorageSettings(postgres_dsn=dsn, s3_access_key="", s3_secret_key="")

    async def act() -> T:
        async with Database(storage) as database:
            return await action(database)

    return run(act())


def read_connection(environ: Mapping[str, str]) -> dict[str, Any]:
    """What `safelight up` wrote down here; {} where it does not run."""
    path = Path(environ.get("SAFELIGHT_DATA_DIR", "").strip() or ".safelight").expanduser() / "connection.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def with_local_servers(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The settings that were given; where none of them names a server, with those of `safelight up` here."""
    servers = (POSTGRES_DSN, "SAFELIGHT_REDIS_URL", "SAFELIGHT_S3_ENDPOINT", "SAFELIGHT_S3_ACCESS_KEY")
    found = {} if any(environ.get(name, "").strip() for name in servers) else read_connection(environ)
    if not found:
        return environ
    backend = found["backend"]
    here = {
        POSTGRES_DSN: found["postgres_dsn"],
        "SAFELIGHT_REDIS_URL": found["redis_url"],
        "SAFELIGHT_S3_ENDPOINT": backend["endpoint"] or "",
        "SAFELIGHT_S3_ACCESS_KEY": backend["access_key"],
        "SAFELIGHT_S3_SECRET_KEY": backend["secret_key"],
        "SAFELIGHT_DERIVED_BUCKET": found["derived_bucket"],
        MASTER_KEY: environ.get(MASTER_KEY, "").strip() or found.get("master_key", ""),
    }
    return {**environ, **here}


def read_master_keys(environ: Mapping[str, str]) -> MasterKeys | None:
    """Those of SAFELIGHT_MASTER_KEY, or that of `safelight up` here. None: there is none."""
    text = with_local_servers(environ).get(MASTER_KEY, "").strip()
    try:
        return MasterKeys.parse(text) if text else None
    except ValueError as error:
        fail(f"{MASTER_KEY} is set, but {error}. `safelight keys master` makes one.")


def fail(sentence: str, *, code: int = 2) -> NoReturn:
    """End with that sentence and exit code: 2 for wrong usage or settings, 1 for what could not be done."""
    typer.echo(sentence, err=True)
    raise typer.Exit(code)


def print_json(content: Any, *, compact: bool = False) -> None:
    """One document, indented; or `compact`, one of many, on a line of its own."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=None if compact else 2, default=_written))


def _written(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def size(size_bytes: float) -> str:
    """1234567 -> 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
