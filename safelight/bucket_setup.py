"""`safelight setup bucket` at work: prepares a bucket by the S3 protocol, and shows what it did."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from safelight import console, logs
from safelight.bucketry import Step, Wish, merge_notification, recognise, set_up
from safelight.settings import process_settings, storage_settings
from storage.blobs import BlobRefused, BlobsUnavailable
from storage.buckets import Buckets
from storage.keys import InvalidKey, check_bucket
from storage.settings import StorageSettings


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of the command. `kind` None: the storage is asked what it is."""

    bucket: str
    kind: str | None
    arn: str | None
    url: str | None
    prefix: str
    origins: tuple[str, ...]
    abort_days: int
    removals: bool
    queued: bool
    dry_run: bool
    as_json: bool


def prepare(asked: Asked, environ: Mapping[str, str]) -> int:
    """The command's exit code. Ends with a sentence where the storage cannot be used or refuses."""
    logs.configure(process_settings(environ))
    settings = storage_settings(environ)
    _check(asked.bucket, settings, arn=asked.arn, url=asked.url)
    wish = Wish(
        bucket=asked.bucket,
        derived_bucket=settings.derived_bucket,
        kind="other",
        arn=asked.arn,
        url=asked.url,
        token=environ.get("SAFELIGHT_HOOK_TOKEN", "").partition(",")[0].strip() or None,
        queued=asked.queued,
        removals=asked.removals,
        prefix=asked.prefix,
        origins=asked.origins,
        days=asked.abort_days,
        dry_run=asked.dry_run,
    )
    try:
        wish, steps = console.run(_set_up(settings, wish, asked.kind))
    except BlobsUnavailable as error:
        console.fail(f"The storage cannot be used ({error}). Check SAFELIGHT_S3_ENDPOINT and that it is up.")
    except BlobRefused as error:
        console.fail(f"The storage answers {error.code}. Check SAFELIGHT_S3_ACCESS_KEY and SAFELIGHT_S3_SECRET_KEY.")
    _show(wish, steps, as_json=asked.as_json)
    return 0 if all(step.is_done for step in steps) else 1


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
