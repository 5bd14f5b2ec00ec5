"""How a command runs and ends: on uvloop, with the database it needs, and one sentence about what went wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from safelight import logs
from safelight.settings import process_settings
from storage.database import Connection, Database, DatabaseUnavailable
from storage.settings import StorageSettings

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop. A database that cannot be used is one sentence, not a traceback."""
    import uvloop

    try:
        return uvloop.run(main)
    except DatabaseUnavailable:
        fail("Postgres cannot be used. Check SAFELIGHT_POSTGRES_DSN and that the server is up.")


def with_connection(action: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `action` in one transaction, for commands that need Postgres alone."""

    async def act(database: Database) -> T:
        async with database.transaction() as conn:
            return await action(conn)

    return with_database(act)


def with_database(action: Callable[[Database], Awaitable[T]]) -> T:
    """For commands that need Postgres alone: the other settings need not be there."""
    logs.configure(process_settings(os.environ))
    dsn = os.environ.get("SAFELIGHT_POSTGRES_DSN", "")
    if not dsn:
        fail("SAFELIGHT_POSTGRES_DSN is not set. Set it to postgresql://user:password@host:port/database.")
    storage = StorageSettings(postgres_dsn=dsn, s3_access_key="", s3_secret_key="")

    async def act() -> T:
        async with Database(storage) as database:
            return await action(database)

    return run(act())


def fail(sentence: str, *, code: int = 2) -> NoReturn:
    """End with that sentence and exit code: 2 for wrong usage or settings, 1 for what could not be done."""
    typer.echo(sentence, err=True)
    raise typer.Exit(code)


def print_json(content: Any, *, compact: bool = False) -> None:
    """One document, indented; or `compact`, one of many, on a line of its own."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=None if compact else 2))


def size(size_bytes: float) -> str:
    """1234567 -> 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
