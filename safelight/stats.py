"""`safelight stats`: the queue board in a terminal, once or as long as it is watched."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from safelight import console, remote
from safelight.console import AsJson
from safelight.remote import Gateway, Unreachable

_STATES = ("due", "later", "running", "done", "rejected", "dead", "discarded")
_TITLES = ("Processor", *(state.capitalize() for state in _STATES))


def stats(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Show the queue: jobs by processor and state, rates, run times, and what each worker runs.

    For example:

      safelight stats
      safelight stats --watch
      safelight stats --json | jq '.processors.preview.dead'

    With --watch and --json, one JSON object a line. Exit code: 0; 2 wrong usage, or no gateway.
    """
    remote.run(lambda gateway: _watch(gateway, interval, as_json) if watch else _once(gateway, as_json))


async def _once(gateway: Gateway, as_json: bool) -> None:
    found = await gateway.get("/v1/stats")
    if as_json:
        console.print_json(found)
    else:
        screen = Console()
        (screen if screen.is_terminal else Console(width=160)).print(board(found))


async def _watch(gateway: Gateway, interval_seconds: float, as_json: bool) -> None:
    await gateway.get("/v1/stats")  # a wrong key ends the command; a gateway that goes away later does not
    with Live(console=Console(stderr=as_json), screen=False, auto_refresh=False) as live:
        while True:
            try:
                found = await gateway.get("/v1/stats")
            except Unreachable as error:
                live.update(Text(f"The gateway does not answer: {error}", style="red"), refresh=True)
            else:
                if as_json:
                    console.print_json(found, compact=True)
                else:
                    live.update(board(found), refresh=True)
            await asyncio.sleep(interval_seconds)


def board(found: dict[str, Any]) -> RenderableType:
    """The stats as tables, with a line for what needs somebody."""
    table = Table(box=None, header_style="bold")
    for title in (*_TITLES, "Oldest due", "Jobs/s", "p50", "p95", "Waited p95"):
        table.add_column(title, justify="left" if title == "Processor" else "right")
    for name, counts in sorted(found["processors"].items()):
        window = counts["windows"]["5m"]
        numbers = [f"{counts[state]:,}" for state in _STATES]
        times = [_seconds(window[which]) for which in ("p50_seconds", "p95_seconds")]
        age, rate = _seconds(counts["oldest_ready_seconds"]), f"{window['per_second']:.1f}"
        title = f"{name} (paused)" if counts["paused"] else name
        style = "red" if counts["dead"] else "yellow" if counts["paused"] else None
        waited = _seconds(counts["wait"]["p95_seconds"] if counts["wait"] else None)
        table.add_row(title, *numbers, age, rate, *times, waited, style=style)
    return Group(
        table, Text(), _workers(found["workers"]), *(Text(f"! {line}", style="yellow") for line in needs(found))
    )


def needs(found: dict[str, Any]) -> list[str]:
    """What somebody should look at, one sentence each."""
    lines = []
    waiting = sum(counts["ready"] for counts in found["processors"].values())
    if not found["workers"]:
        lines.append(f"No worker is alive, and {waiting:,} jobs wait: safelight worker")
    for name, counts in sorted(found["processors"].items()):
        if pause := counts["paused"]:
            note = f" ({pause['note']})" if pause["note"] else ""
            lines.append(f"{name} was paused by {pause['by']} at {pause['at']}{note}: safelight jobs resume {name}")
        if counts["dead"]:
            lines.append(f"{counts['dead']:,} jobs of {name} are dead: safelight jobs groups")
    lost = [worker for worker in found["gone_workers"] if worker["left_at"] is None]
    lines += [f"Worker {item['id']} fell silent at {item['seen_at']}, with {item['jobs']:,} jobs." for item in lost]
    if found["redis_stream_depth"] is None:
        lines.append("Redis is away. Jobs are found in Postgres meanwhile, a little later: safelight doctor")
    return lines


def _workers(workers: list[dict[str, Any]]) -> Table:
    table = Table("Worker", "Busy/slots", "Version", "Runs", box=None, header_style="bold")
    for worker in workers:
        runs = [
            f"{job['processor']} {job['bucket']}/{job['key']} ({job['seconds']:.1f} s)" for job in worker["running"]
        ]
        state = " (stopping)" if worker["stopping"] else ""
        table.add_row(
            worker["id"] + state,
            f"{len(worker['running'])}/{worker['slots']}",
            worker["version"],
            "\n".join(runs) or "-",
        )
    return table


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value < 100 else f"{value / 60:.0f} min"
