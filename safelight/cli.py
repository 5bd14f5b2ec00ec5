"""The command line. Each command reads its settings from the environment; `--help` says which matter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed_version
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from safelight import logs
from safelight.settings import Settings, SettingsError, load, process_settings, variables
from storage import credentials, failpoints
from storage.database import Connection, Database, DatabaseUnavailable
from storage.settings import StorageSettings

T = TypeVar("T")

app = typer.Typer(
    name="safelight",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would print local variables, secrets among them
    rich_markup_mode="rich",
    help="An S3-style object storage gateway with processing hooks, for photos.\n\n"
    "[b]safelight up[/b] starts everything on this machine. In production run [b]migrate[/b] once, then "
    "[b]gateway[/b] and as many [b]worker[/b]s as you like. [b]settings[/b] lists what can be set by the environment.",
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")
app.add_typer(keys_app, name="keys")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def main() -> None:
    """The console script."""
    try:
        app()
    except SettingsError as error:
        _fail_settings(error)


@app.command()
def up() -> None:
    """Start everything here: embedded Postgres, Valkey and SeaweedFS, the gateway and a worker.

    Data and secrets are kept under SAFELIGHT_DATA_DIR (./.safelight). Give SAFELIGHT_POSTGRES_DSN,
    SAFELIGHT_REDIS_URL or SAFELIGHT_S3_ENDPOINT (with its keys) to use a server of your own instead. Ctrl-C stops
    everything.
    """
    from safelight.up import up as run_up

    raise typer.Exit(run_up(os.environ))


@app.command()
def gateway() -> None:
    """Run the gateway: REST, Swagger UI at /docs, stats. Stops gracefully on SIGTERM."""
    from gateway.app import serve

    settings = _settings()
    _run(serve(settings.gateway, settings.jobs, settings.storage, ports_file=os.environ.get("SAFELIGHT_PORTS_FILE")))


@app.command()
def worker() -> None:
    """Run a worker: makes previews, reads EXIF. Start as many as you like; SIGTERM lets each finish its jobs."""
    from processors.worker import work

    settings = _settings()
    _run(work(settings.jobs, settings.storage))


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date. Safe to repeat, and from many machines at once."""

    async def run(database: Database) -> int:
        return await database.migrate()

    typer.echo(f"The schema is at version {_with_database(run)}.")


@app.command()
def reconcile(
    *,
    bucket: Annotated[str | None, typer.Option(help="Only this bucket of photos, and its previews.")] = None,
    prefix: Annotated[str, typer.Option(help="Only keys that begin like this; needs --bucket.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget where an interrupted run stopped.")] = False,
    abort_foreign: Annotated[
        bool, typer.Option("--abort-foreign", help="Also abort old multipart uploads that are not Safelight's.")
    ] = False,
    accept_losses: Annotated[
        bool,
        typer.Option("--accept-losses", help="Mark photos whose originals are gone as deleted, previews and all."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare Postgres with the storage, and repair what differs.

    Photos that Postgres does not know are recorded.
    Photos whose originals are gone are reported, loudly: data was lost. Nothing of them is touched.
    Previews that are missing, changed or outdated are made again.
    Previews that are provably orphaned are deleted.
    Multipart uploads of gateways that died are aborted.

    Nothing else is deleted. What is younger than SAFELIGHT_RECONCILE_GRACE_SECONDS is left alone.
    Safe beside uploads, workers and gateways, which do the same all the time.
    An interrupted run goes on where it stopped. To see first what would be done:

      safelight reconcile --dry-run

    Exit code: 0 clean or repaired; 1 something was left or could not be looked at; 2 wrong usage.
    """
    from safelight.reconcile import Wish
    from safelight.reconcile import reconcile as run_reconcile

    found = _settings()
    if prefix and bucket is None:
        _fail("--prefix needs --bucket: name the bucket that the prefix is of.")
    if bucket == found.storage.derived_bucket:
        _fail(f"{bucket} holds the previews. Name a bucket of photos: its previews are looked at as well.")
    wish = Wish(
        bucket=bucket,
        prefix=prefix,
        dry_run=dry_run,
        restart=restart,
        abort_foreign=abort_foreign,
        accept_losses=accept_losses,
        as_json=as_json,
    )
    raise typer.Exit(_run(run_reconcile(found, wish)))


@app.command()
def settings(as_json: AsJson = False) -> None:
    """List every setting: its name, its default and what it means."""
    rows = [
        {
            "name": name,
            "default": _default(item.default),
            "help": item.metadata["help"],
        }
        for name, item in variables()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("Setting", "Default", "What it means", box=None, header_style="bold")
    for row in rows:
        table.add_row(row["name"], row["default"] or "[dim]must be set[/dim]", row["help"])
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("safelight"))


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Whose it is, for the audit.")],
    scopes: Annotated[str, typer.Option(help="Of read, write, admin; separated by commas.")] = "read,write",
    expires_days: Annotated[float | None, typer.Option(help="Valid for that many days; for ever if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, once."""
    credential, wanted = credentials.generate(), _scopes(scopes)
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    _with_connection(lambda conn: credentials.create(conn, credential, name=name, scopes=wanted, expires_at=expires_at))
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "access_key": credential.access_key,
                    "secret_key": credential.secret_key,
                    "token": credential.token,
                    "scopes": wanted,
                    "expires_at": expires_at.isoformat() if expires_at else None,
                }
            )
        )
        return
    typer.echo(f"Access key  {credential.access_key}")
    typer.echo(f"Secret key  {credential.secret_key}")
    typer.echo(f"Send it as  Authorization: Bearer {credential.token}")
    typer.echo("The secret is not kept: note it now.")


@keys_app.command("ensure")
def ensure_key(
    name: Annotated[str, typer.Option(help="Whose it is, for the audit.")],
    scopes: Annotated[str, typer.Option(help="Of read, write, admin; separated by commas.")] = "read,write",
) -> None:
    """Store a key that you made: SAFELIGHT_KEY holds it as access_key.secret_key. Safe to repeat."""
    credential = credentials.parse_token(os.environ.get("SAFELIGHT_KEY", ""))
    if credential is None or credential.access_key.upper() != credential.access_key:
        _fail(
            "SAFELIGHT_KEY must hold <access key>.<secret key>: 16 to 40 capital letters and digits, a dot, and "
            "16 to 128 characters."
        )
    wanted = _scopes(scopes)
    _with_connection(lambda conn: credentials.create(conn, credential, name=name, scopes=wanted))
    typer.echo(f"The key {credential.access_key} is there.")


@keys_app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    rows = _with_connection(credentials.list_keys)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=lambda value: value.isoformat()))
        return
    table = Table("Access key", "Name", "Scopes", "Created", "Expires", "Revoked", box=None, header_style="bold")
    for row in rows:
        times = [row[column].strftime("%Y-%m-%d %H:%M") if row[column] else "" for column in _TIMES]
        table.add_row(row["access_key"], row["name"], ", ".join(row["scopes"]), *times)
    Console().print(table)


@keys_app.command("revoke")
def revoke_key(access_key: Annotated[str, typer.Argument(help="As `safelight keys list` shows it.")]) -> None:
    """Revoke a key. It opens nothing any more within a second."""
    if not _with_connection(lambda conn: credentials.revoke(conn, access_key)):
        _fail(f"There is no key {access_key}. `safelight keys list` shows those that there are.")
    typer.echo(f"The key {access_key} is revoked.")


_TIMES = ("created_at", "expires_at", "revoked_at")


def _settings() -> Settings:
    found = load({name: value for name, value in os.environ.items() if name not in _NO_SETTINGS})
    logs.configure(found.process)
    try:
        failpoints.arm(os.environ)
    except ValueError as error:
        _fail(str(error))
    return found


# Variables of ours that are no settings: they belong to `safelight up`, `safelight keys ensure` and the fault tests.
_NO_SETTINGS = ("SAFELIGHT_PORTS_FILE", "SAFELIGHT_KEY", "SAFELIGHT_FAILPOINT", "SAFELIGHT_FAILPOINT_DIR")


def _run(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop. A database that cannot be used is one sentence, not a traceback."""
    import uvloop

    try:
        return uvloop.run(main)
    except DatabaseUnavailable:
        _fail("Postgres cannot be used. Check SAFELIGHT_POSTGRES_DSN and that the server is up.")


def _with_connection(action: Callable[[Connection], Awaitable[T]]) -> T:
    async def run(database: Database) -> T:
        async with database.transaction() as conn:
            return await action(conn)

    return _with_database(run)


def _with_database(action: Callable[[Database], Awaitable[T]]) -> T:
    """For commands that need Postgres alone: the other settings need not be there."""
    logs.configure(process_settings(os.environ))
    dsn = os.environ.get("SAFELIGHT_POSTGRES_DSN", "")
    if not dsn:
        _fail("SAFELIGHT_POSTGRES_DSN is not set. Set it to postgresql://user:password@host:port/database.")
    storage = StorageSettings(postgres_dsn=dsn, s3_access_key="", s3_secret_key="")

    async def run() -> T:
        async with Database(storage) as database:
            return await action(database)

    return _run(run())


def _scopes(text: str) -> list[str]:
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = sorted(set(wanted) - set(credentials.SCOPES))
    if unknown or not wanted:
        _fail(f"Scopes are {', '.join(credentials.SCOPES)}; not {', '.join(unknown) or 'none'}.")
    return wanted


def _default(value: Any) -> str | None:
    if isinstance(value, tuple):
        return ",".join(f"{item.name}:{item.max_side_px}:{item.format}:{item.quality}" for item in value)
    return None if value.__class__.__name__ == "_MISSING_TYPE" else str(value if value is not None else "(none)")


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(2)


def _fail_settings(error: SettingsError) -> None:
    typer.echo("The settings do not fit together:", err=True)
    for problem in error.problems:
        typer.echo(f"  - {problem}", err=True)
    sys.exit(2)
