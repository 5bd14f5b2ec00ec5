"""The command line. Each command reads its settings from the environment; `--help` says which matter."""

from __future__ import annotations

import json
import os
import sys
from enum import Enum
from functools import partial
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from processors.contract import Preset
from safelight import console, doctor, exposition, jobs, keys, migration, photos, setup, stats, webhooks
from safelight.console import AsJson
from safelight.settings import SettingsError, variables
from safelight.starting import give_up, prepare
from storage import condition

_PHOTOS, _QUEUE = "Photos, by way of a gateway", "The queue, by way of a gateway"

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
app.command()(migration.migrate)
app.command()(doctor.doctor)
app.command(rich_help_panel=_PHOTOS)(photos.put)
app.command(rich_help_panel=_PHOTOS)(photos.get)
app.command(rich_help_panel=_PHOTOS)(photos.ls)
app.command(rich_help_panel=_PHOTOS)(photos.why)
app.command(rich_help_panel=_QUEUE)(stats.stats)
app.add_typer(jobs.jobs_app, name="jobs", rich_help_panel=_QUEUE)
app.add_typer(keys.keys_app, name="keys")
app.add_typer(webhooks.webhooks_app, name="webhooks")
app.add_typer(setup.setup_app, name="setup")


class EventSource(Enum):
    """What `safelight events` can read."""

    MINIO_REDIS = "minio-redis"
    SQS = "sqs"


def main() -> None:
    """The console script."""
    try:
        app()
    except SettingsError as error:
        give_up(error)


@app.command()
def up() -> None:
    """Start everything here: embedded Postgres, Valkey and SeaweedFS, the gateway and a worker.

    Data and secrets are kept under SAFELIGHT_DATA_DIR (./.safelight). Give SAFELIGHT_POSTGRES_DSN,
    SAFELIGHT_REDIS_URL or SAFELIGHT_S3_ENDPOINT (with its keys) to use a server of your own instead. Ctrl-C stops
    everything.

      safelight up
      SAFELIGHT_DATA_DIR=/srv/photos safelight up
    """
    from safelight.up import up as run_up

    raise typer.Exit(run_up(os.environ))


@app.command()
def gateway() -> None:
    """Run the gateway: REST, Swagger UI at /docs, stats. Stops gracefully on SIGTERM.

    For example:

      safelight doctor && safelight gateway
      SAFELIGHT_HTTP_HOST=0.0.0.0 SAFELIGHT_HTTP_PORT=8080 safelight gateway

    Exit code: 0 it was told to stop; 1 its port cannot be had; 2 wrong settings.
    """
    from safelight import serving

    serving.main("gateway")


@app.command()
def door(
    processes: Annotated[
        int | None, typer.Option(min=1, max=256, help="How many, all on one port; SAFELIGHT_S3_PROCESSES if left out.")
    ] = None,
) -> None:
    """Run the S3 door: any S3 client puts photos in and reads previews out. Stops gracefully on SIGTERM.

    Give each client a key: [b]safelight keys create --name NAME[/b]. The door opens the keys' secrets with
    SAFELIGHT_MASTER_KEY, the same with which they were made. With SAFELIGHT_S3_TLS_CERT it speaks TLS.

      safelight door --processes 4
    """
    if processes is not None:
        os.environ["SAFELIGHT_S3_PROCESSES"] = str(processes)
    os.execv(sys.executable, [sys.executable, "-m", "safelight", "door"])  # noqa: S606 - ourselves


@app.command()
def worker() -> None:
    """Run a worker: makes previews, reads EXIF, and delivers webhooks where SAFELIGHT_MASTER_KEY is set.

    Start as many as you like; SIGTERM lets each finish its jobs.

      safelight worker
      SAFELIGHT_WORKER_SLOTS=8 safelight worker
    """
    from safelight import serving

    serving.main("worker")


@app.command()
def events(
    source: Annotated[EventSource, typer.Option(help="Where the events lie.", show_default=False)],
) -> None:
    """Record photos that were written straight to the storage, from a queue of its events.

    Storages that can push need this not: they send to POST /hooks/bucket-events of a gateway.

      [b]minio-redis[/b]  the list that MinIO's Redis target pushes to, format `access`: SAFELIGHT_EVENTS_REDIS_URL and
      SAFELIGHT_EVENTS_REDIS_KEY

      [b]sqs[/b]          a queue that AWS S3 sends to, by itself or through SNS: SAFELIGHT_SQS_QUEUE_URL

    Each event is taken out of its queue when what it tells is committed, not before.
    Run as many as you like. SIGTERM lets each finish what it has in hand, or give it back.

      safelight events --source sqs
    """
    from gateway.arrivals.minio_list import WrongKind
    from gateway.arrivals.serving import serve_events
    from storage.sqs import NoSuchQueue

    found = prepare()
    if source is EventSource.SQS and not found.gateway.sqs_queue_url:
        console.fail("SAFELIGHT_SQS_QUEUE_URL is not set. Set it to the address of the queue, as AWS shows it.")
    try:
        expose = partial(exposition.serving, found.process)
        console.run(serve_events(source.value, found.gateway, found.jobs, found.storage, expose=expose))
    except WrongKind as error:
        console.fail(str(error))
    except NoSuchQueue:
        console.fail(f"There is no queue {found.gateway.sqs_queue_url}. Correct SAFELIGHT_SQS_QUEUE_URL.")


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

    found = prepare(console.with_local_servers(os.environ))
    if prefix and bucket is None:
        console.fail("--prefix needs --bucket: name the bucket that the prefix is of.")
    if bucket == found.storage.derived_bucket:
        console.fail(f"{bucket} holds the previews. Name a bucket of photos: its previews are looked at as well.")
    wish = Wish(
        bucket=bucket,
        prefix=prefix,
        dry_run=dry_run,
        restart=restart,
        abort_foreign=abort_foreign,
        accept_losses=accept_losses,
        as_json=as_json,
    )
    raise typer.Exit(console.run(run_reconcile(found, wish)))


@app.command()
def settings(as_json: AsJson = False) -> None:
    """List every setting: its name, its default and what it means.

    For example:

      safelight settings | grep -i retry
      safelight settings --json | jq -r '.[].name'

    Exit code: 0.
    """
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
def version(as_json: AsJson = False) -> None:
    """Print the version; with --json also that of the database's schema, which it wants.

      safelight version

    Exit code: 0.
    """
    found = installed_version("safelight")
    if as_json:
        console.print_json({"version": found, "schema": condition.own_schema_version()})
    else:
        typer.echo(found)


def _default(value: Any) -> str | None:
    if isinstance(value, tuple):
        return ",".join(_written(item) for item in value)
    return None if value.__class__.__name__ == "_MISSING_TYPE" else str("(none)" if value in (None, "") else value)


def _written(item: Any) -> str:
    """A preset or a hook, as it is written in its setting."""
    if isinstance(item, Preset):
        return f"{item.name}:{item.max_side_px}:{item.format}:{item.quality}"
    return str(item)
