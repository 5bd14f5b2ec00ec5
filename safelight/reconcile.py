"""`safelight reconcile`: runs a pass over every bucket, shows how far it is, and sums up what it found.

Only the rendering lives here; what is compared and repaired is in gateway.reconcile and gateway.repairs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.findings import FINDINGS, Tally
from gateway.reconcile import UNAVAILABLE, Part, Watch, list_parts, run_pass
from gateway.repairs import Site
from safelight.settings import Settings
from storage.blobs import Blobs
from storage.database import Database
from storage.reconciliation import Place


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asked for."""

    bucket: str | None
    prefix: str
    dry_run: bool
    restart: bool
    abort_foreign: bool
    accept_losses: bool
    as_json: bool


@dataclass(kw_only=True)
class Report:
    """What came of it."""

    dry_run: bool
    tally: Tally = field(default_factory=Tally)
    keys: int = 0
    seconds: float = 0
    busy: list[str] = field(default_factory=list)  # buckets that somebody else reconciles now
    failure: str | None = None  # why it ended early

    @property
    def exit_code(self) -> int:
        return 0 if self.tally.clean and not self.busy and not self.failure else 1

    def as_json(self) -> dict[str, object]:
        return {
            "dry_run": self.dry_run,
            "complete": not self.busy and self.failure is None,
            "failure": self.failure,
            "running_elsewhere": self.busy,
            "keys": self.keys,
            "seconds": round(self.seconds, 3),
            "findings": {
                name: {"found": self.tally.found(name), "repaired": counts["repaired"], "left": counts["left"]}
                for name, counts in sorted(self.tally.counts.items())
            },
        }


async def reconcile(settings: Settings, wish: Wish) -> int:
    """Do it and show it. Returns the exit code: 0 clean or repaired, 1 something was found and left, or
    could not be looked at."""
    async with Database(settings.storage) as database, Blobs(settings.storage) as blobs:
        site = Site(
            database=database,
            blobs=blobs,
            settings=settings.gateway,
            jobs=settings.jobs,
            storage=settings.storage,
            dry_run=wish.dry_run,
            abort_foreign=wish.abort_foreign,
            accept_losses=wish.accept_losses,
        )
        report = Report(dry_run=wish.dry_run)
        started_at = time.monotonic()
        try:
            parts = await list_parts(site, bucket=wish.bucket, prefix=wish.prefix)
            with _progress() as watch:
                for part in parts:
                    await _take_part(site, part, wish, report, watch)
        except UNAVAILABLE as error:
            report.failure = type(error).__name__
        report.seconds = time.monotonic() - started_at
    _show(report, as_json=wish.as_json)
    return report.exit_code


async def _take_part(site: Site, part: Part, wish: Wish, report: Report, watch: Watch) -> None:
    place = await run_pass(site, part, restart=wish.restart, watch=watch)
    if place is None:
        report.busy.append(part.bucket)
        return
    report.keys += place.keys
    report.tally.add(place.findings)


@contextmanager
def _progress() -> Iterator[Watch]:
    """A line that moves, where standard error is a terminal; nothing otherwise."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} keys"),
        TextColumn("{task.fields[rate]:,.0f} keys/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        line = progress.add_task("starting", total=None, rate=0)
        seen: dict[Part, tuple[int, int]] = {}  # part -> keys when it was first seen, keys now
        started_at = time.monotonic()

        def watch(part: Part, place: Place) -> None:
            first = seen.get(part, (place.keys, 0))[0]
            seen[part] = (first, place.keys)
            looked_at = sum(now - before for before, now in seen.values())
            rate = looked_at / max(1e-3, time.monotonic() - started_at)
            progress.update(line, description=f"{part.bucket}: {place.phase}", completed=looked_at, rate=rate)

        yield watch


def _show(report: Report, *, as_json: bool) -> None:
    console = Console()
    if as_json:
        console.out(json.dumps(report.as_json(), indent=2), highlight=False)
        return
    if report.tally.counts:
        table = Table("Finding", "Found", "Repaired", "Left alone", "What it means", box=None, header_style="bold")
        for name, counts in sorted(report.tally.counts.items()):
            style = "red" if name == "original_missing" else None
            numbers = (report.tally.found(name), counts["repaired"], counts["left"])
            table.add_row(name, *(f"{number:,}" for number in numbers), FINDINGS[name], style=style)
        wide = console if console.is_terminal else Console(width=160)
        wide.print(table)
    rate = report.keys / max(1e-3, report.seconds)
    console.print(f"{report.keys:,} keys looked at in {report.seconds:.1f} s ({rate:,.0f} keys/s).", highlight=False)
    console.print(_conclusion(report), soft_wrap=True, highlight=False)


def _conclusion(report: Report) -> str:
    if report.failure:
        return (
            f"Stopped early: {report.failure}. Check that Postgres and the storage are up (`/readyz` of a gateway "
            "names them), then run the same command again: it goes on where it stopped."
        )
    if report.busy:
        return f"Running elsewhere: {', '.join(report.busy)}. Those were left to it; look again when it is done."
    if report.dry_run and not report.tally.clean:
        return "Nothing was changed. Run without --dry-run to repair what can be repaired."
    if not report.tally.clean:
        return "Some findings were left alone: docs/reconcile.md says what to do about each."
    return "Postgres and the storage agree." if not report.tally.counts else "Everything that was found is dealt with."
