"""Webhooks and deliveries as tables for a terminal, or as JSON for programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from safelight import console
from storage.deliveries import STATES

Row = Mapping[str, Any]


def print_webhooks(rows: Sequence[Row]) -> None:
    table = Table("Id", "Name", "URL", "Wants", "State", *STATES, box=None, header_style="bold")
    for row in rows:
        counts = [str(row["deliveries"].get(state, "")) for state in STATES]
        table.add_row(str(row["id"]), row["name"], row["url"], describe_wishes(row), describe_state(row), *counts)
    _console().print(table)


def print_webhook(row: Row) -> None:
    for title, text in (
        ("Id", row["id"]),
        ("Name", row["name"]),
        ("URL", row["url"]),
        ("Wants", describe_wishes(row)),
        ("State", describe_state(row)),
        ("Made by", f"{row['created_by']}, {write_time(row['created_at'])}"),
        ("Old secret", f"signs until {write_time(row['old_secret_until'])}" if row["old_secret_until"] else "none"),
        ("Deliveries", ", ".join(f"{number} {state}" for state, number in row["deliveries"].items()) or "none"),
    ):
        typer.echo(f"{title:<12}{text}")


def print_deliveries(rows: Sequence[Row]) -> None:
    table = Table("Id", "Event", "Type", "State", "Attempts", "Answer", "Made", "Next", box=None, header_style="bold")
    for row in rows:
        table.add_row(
            str(row["id"]),
            row["event_id"],
            row["type"],
            row["state"],
            str(row["attempts_in_all"]),
            describe_answer(row),
            write_time(row["created_at"]),
            write_time(row["run_at"]) if row["state"] == "ready" else "",
        )
    _console().print(table)


def print_delivery(row: Row) -> None:
    """What is sent, and every attempt."""
    console.print_json(row["body"])
    typer.echo(f"It is {row['state']}.")
    table = Table("#", "Started", "Seconds", "Outcome", "Answer", "Next", box=None, header_style="bold")
    for attempt in row["attempts"]:
        table.add_row(
            str(attempt["number"]),
            write_time(attempt["started_at"]),
            f"{attempt['seconds']:.2f}" if attempt["seconds"] is not None else "",
            attempt["outcome"] or "under way",
            describe_answer(attempt),
            write_time(attempt["retry_at"]),
        )
    _console().print(table)


def print_secret(row: Row, secret: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json({**row, "secret": secret})
        return
    typer.echo(f"Webhook  {row['id']}")
    typer.echo(f"Wants    {describe_wishes(row)}")
    typer.echo(f"Secret   {secret}")
    typer.echo("The secret is not shown again: give it to the receiver now.")
    typer.echo(f"Try it:  safelight webhooks test {row['id']}")


def describe_wishes(row: Row) -> str:
    where = f" of {row['bucket'] or '*'}/{row['prefix']}*" if row["bucket"] or row["prefix"] else ""
    return f"{', '.join(row['types']) or 'everything'}{where}"


def describe_state(row: Row) -> str:
    if not row["enabled"]:
        return "disabled" if row["disabled_reason"] == "asked" else "disabled: it answered 410 Gone"
    return f"failing since {write_time(row['failing_since'])}" if row["failing_since"] else "enabled"


def describe_answer(row: Row) -> str:
    parts = [str(row["status_code"] or ""), row["error_code"] or ""]
    return " ".join(part for part in parts if part)


def write_time(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S") if at else ""


def _console() -> Console:
    return Console(markup=False, width=None if os.isatty(1) else 200)
