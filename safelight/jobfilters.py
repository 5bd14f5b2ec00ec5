"""How jobs are chosen on the command line: the options that `safelight jobs` commands share, and what they mean."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from safelight import console

# How the API names what an option, named shortly, gives.
_NAMES = {"error": "error_code", "group": "error_group", "prefix": "key_prefix", "photo": "photo_id"}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

State = Annotated[str | None, typer.Option(help="ready, due, later, running, done, rejected, dead or discarded.")]
Processor = Annotated[str | None, typer.Option(help="Of this processor.")]
Error = Annotated[str | None, typer.Option("--error", help="Whose last error had this code.")]
Group = Annotated[str | None, typer.Option("--group", help="That failed alike, as `jobs groups` names it.")]
Worker = Annotated[str | None, typer.Option(help="That this worker runs or ran last.")]
Bucket = Annotated[str | None, typer.Option(help="On photos of this bucket.")]
Prefix = Annotated[str | None, typer.Option(help="On photos whose key begins so.")]
Search = Annotated[str | None, typer.Option(help="With this in the photo's key or in the error, in any case.")]
Photo = Annotated[str | None, typer.Option(help="Of the photo with this id.")]
Since = Annotated[str | None, typer.Option(help="Ended (or else made) then or later: 90m, 2h, 3d, or a time.")]
Until = Annotated[str | None, typer.Option(help="Ended (or else made) before: likewise.")]


def parse_time(text: str, now: datetime) -> str:
    """A time as the API takes it, of `2h` (ago) or of what is written out. Raises ValueError."""
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return (now - timedelta(seconds=int(match[1]) * _SPANS[match[2]])).isoformat()
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.astimezone()).isoformat()


def chosen(**given: str | None) -> dict[str, str]:
    """What was given by these options, as the API takes it. Ends the command with exit code 2 where a time cannot be
    read."""
    wanted = {_NAMES.get(name, name): value for name, value in given.items() if value is not None}
    for name in ("since", "until"):
        if name in wanted:
            try:
                wanted[name] = parse_time(wanted[name], datetime.now(UTC))
            except ValueError:
                console.fail(
                    f"--{name} is {wanted[name]!r}. Write 90m, 2h, 3d, or a time such as 2026-05-17T09:30:00Z."
                )
    return wanted
