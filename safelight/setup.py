"""`safelight setup`: prepares the storage for Safelight, by the S3 protocol, and shows what it did."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import Enum
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from safelight import console, logs
from safelight.bucketry import Step, Wish, merge_notification, recognise, set_up
from safelight.console import AsJson
from safelight.settings import process_settings, storage_settings
from storage.blobs import BlobRefused, BlobsUnavailable
from storage.buckets import Buckets
from storage.keys import InvalidKey, check_bucket
from storage.settings import StorageSettings

setup_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Prepare the storage: buckets, events, rules."
)


class StorageKind(Enum):
    """What --storage takes."""

    AUTO = "auto"
    MINIO = "minio"
    RUSTFS = "rustfs"
    CEPH = "ceph"
    AWS = "aws"
    SEAWEEDFS = "seaweedfs"
    OTHER = "other"


@setup_app.callback()
def setup() -> None:
    """Prepare the storage: buckets, events, rules."""


@setup_app.command("bucket")
def setup_bucket(
    bucket: Annotated[str, typer.Argument(help="The bucket that photos are written to.")],
    *,
    storage: Annotated[StorageKind, typer.Option(help="What the storage is; auto asks it.")] = StorageKind.AUTO,
    arn: Annotated[
        str | None,
        typer.Option(
            help="Where events go: the ARN of a queue, a topic or a webhook target, or the word eventbridge. "
            "Left out: MinIO's webhook target 1, or a topic made in Ceph."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="A gateway's hook as the storage sees it: http://.../hooks/bucket-events")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only events of keys that begin like this.")] = "",
    origin: Annotated[
        list[str] | None, typer.Option(help="Origin of pages that upload straight to the storage; may be repeated.")
    ] = None,
    abort_days: Annotated[
        int, typer.Option(min=1, max=365, help="Multipart uploads left unfinished for so long are ended.")
    ] = 7,
    removals: Annotated[
        bool,
        typer.Option(
            "--removals/--no-removals",
            help="Tell of removed objects too. Ceph 16 dies of a batch delete in a bucket that does.",
        ),
    ] = True,
    queued: Annotated[
        bool,
        typer.Option(
            "--queued/--at-once",
            help="Ceph: keep events until they are delivered, some 30 s late at first; or push each while its client "
            "waits, and lose what cannot be delivered.",
        ),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare a bucket for photos that are written straight to it. Safe to repeat; rules of others are kept.

    It makes the bucket and that of previews, lets multipart uploads end that nobody finishes, opens the bucket to
    browsers (--origin), and has its events sent to Safelight.

    Run it with a key that may do so: SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY, an administrator's for once.

      MinIO      safelight setup bucket photos     (its webhook target is set by its environment: minio/README.md)

      Ceph       safelight setup bucket photos --url https://photos.example.org/hooks/bucket-events

      AWS        safelight setup bucket photos --arn arn:aws:sqs:eu-central-1:123456789012:photos

      SeaweedFS  safelight setup bucket photos     (prints what to put into its notification.toml)

    Exit code: 0 events are set up; 1 something is left to do by hand, or was refused; 2 wrong usage.
    """
    logs.configure(process_settings(os.environ))
    settings = storage_settings(os.environ)
    _check(bucket, settings, arn=arn, url=url)
    wish = Wish(
        bucket=bucket,
        derived_bucket=settings.derived_bucket,
        kind="other",
        arn=arn,
        url=url,
        token=os.environ.get("SAFELIGHT_HOOK_TOKEN", "").partition(",")[0].strip() or None,
        queued=queued,
        removals=removals,
        prefix=prefix,
        origins=origin or (),
        days=abort_days,
        dry_run=dry_run,
    )
    try:
        wish, steps = console.run(_set_up(settings, wish, None if storage is StorageKind.AUTO else storage.value))
    except BlobsUnavailable as error:
        console.fail(f"The storage cannot be used ({error}). Check SAFELIGHT_S3_ENDPOINT and that it is up.")
    except BlobRefused as error:
        console.fail(f"The storage answers {error.code}. Check SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY.")
    _show(wish, steps, as_json=as_json)
    raise typer.Exit(0 if all(step.is_done for step in steps) else 1)


async def _set_up(settings: StorageSettings, wish: Wish, kind: str | None) -> tuple[Wish, list[Step]]:
    async with Buckets(settings) as buckets:
        wish = replace(wish, kind=kind or recognise(await buckets.headers()))  # type: ignore[arg-type]
        return wish, await set_up(buckets, wish)


def _check(bucket: str, settings: StorageSettings, *, arn: str | None, url: str | None) -> None:
    try:
        check_bucket(bucket)
    except InvalidKey as error:
        console.fail(f"{bucket} cannot be a bucket: {error}.")
    if bucket == settings.derived_bucket:
        console.fail(f"{bucket} is the bucket of previews. Name a bucket of photos; that of previews is made besides.")
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        console.fail("--url must begin with http:// or https://.")
    if arn is not None:
        try:
            merge_notification({}, arn, events=())
        except ValueError as error:
            console.fail(f"--arn {arn}: {error}.")


def _show(wish: Wish, steps: Sequence[Step], *, as_json: bool) -> None:
    if as_json:
        found = [{name: value for name, value in asdict(step).items() if name != "is_needed"} for step in steps]
        typer.echo(json.dumps({"storage": wish.kind, "dry_run": wish.dry_run, "steps": found}, indent=2))
        return
    table = Table("What", "Result", "More", box=None, header_style="bold")
    for step in steps:
        style = {"refused": "red", "by hand": "yellow"}.get(step.result)
        more = "see below" if "\n" in step.detail else step.detail
        table.add_row(step.what, step.result, more, style=style)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for step in steps:
        if "\n" in step.detail:
            typer.echo(f"\n{step.detail}")
    if wish.dry_run:
        typer.echo("Nothing was changed.")
