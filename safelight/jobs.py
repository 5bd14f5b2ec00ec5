"""`safelight jobs`: jobs in lists, in groups and one by one. What people do to them is in safelight.acting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from safelight import acting, console, remote
from safelight.acting import AsLines
from safelight.console import AsJson
from safelight.jobfilters import (
    Bucket,
    Error,
    Group,
    Photo,
    Prefix,
    Processor,
    Search,
    Since,
    State,
    Until,
    Worker,
    chosen,
)
from safelight.remote import Gateway

JobId = Annotated[int, typer.Argument(min=1, help="A job's number.", show_default=False)]

jobs_app = typer.Typer(
    no_args_is_help=True,
    help="Jobs and dead letters: find out what failed, and have it done again.\n\n"
    "A job is one processor applied to one photo. One that failed too often is dead, and waits for you: "
    "[b]groups[/b] shows what failed alike, [b]show[/b] one job with every run, [b]replay[/b] has them run again; "
    "[b]promote[/b] runs what waits for later.",
)
jobs_app.command("replay")(acting.replay_jobs)
jobs_app.command("discard")(acting.discard_jobs)
jobs_app.command("promote")(acting.promote_jobs)
jobs_app.command("pause")(acting.pause)
jobs_app.command("resume")(acting.resume)
jobs_app.command("actions")(acting.list_actions)


@jobs_app.command("list")
def list_jobs(
    *,
    state: State = None,
    processor: Processor = None,
    error: Error = None,
    group: Group = None,
    worker: Worker = None,
    bucket: Bucket = None,
    prefix: Prefix = None,
    search: Search = None,
    photo: Photo = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 50,
    as_json: AsLines = False,
) -> None:
    """List jobs, newest first.

    For example:

      safelight jobs list --state dead
      safelight jobs list --search IMG_1234 --since 2h
      safelight jobs list --state dead --limit 100000 --json | jq -r .key

    Exit code: 0, with or without jobs; 2 wrong usage, or no gateway.
    """
    query = chosen(
        processor=processor,
        error=error,
        group=group,
        worker=worker,
        bucket=bucket,
        prefix=prefix,
        search=search,
        photo=photo,
        since=since,
        until=until,
    )

    async def fetch(gateway: Gateway) -> list[dict[str, Any]]:
        found = []
        async for job in gateway.page("/v1/jobs", {**query, "state": state}, member="jobs", most=limit):
            if as_json:
                console.print_json(job, compact=True)
            else:
                found.append(job)
        return found

    found = remote.run(fetch)
    if not as_json:
        table = Table("Job", "Processor", "State", "Runs", "Since", "Photo", "Error", box=None, header_style="bold")
        for job in found:
            at = _since(job)[:19].replace("T", " ")
            runs = f"{job['attempt']}/{job['max_attempts']}"
            failed = (job["error"] or {}).get("code") or ""
            outcome = f" ({job['outcome']})" if job["outcome"] and job["outcome"] != "ok" else ""
            where = f"{job['bucket']}/{job['key']}"
            table.add_row(str(job["id"]), job["processor"], job["state"] + outcome, runs, at, where, failed)
        _wide().print(table)
        if len(found) == limit:
            typer.echo(f"Perhaps there are more: --limit is {limit}.", err=True)


@jobs_app.command("groups")
def list_groups(
    *,
    state: State = "dead",
    processor: Processor = None,
    error: Error = None,
    bucket: Bucket = None,
    prefix: Prefix = None,
    search: Search = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Show what failed alike: one line for each processor, error and message, the largest first.

    For example:

      safelight jobs groups
      safelight jobs replay --group 1f0c9a7b22d4

    Exit code: 0, with or without groups; 2 wrong usage, or no gateway.
    """
    query = chosen(
        processor=processor, error=error, bucket=bucket, prefix=prefix, search=search, since=since, until=until
    )
    found = remote.run(lambda gateway: gateway.get("/v1/jobs/groups", {**query, "state": state}))
    if as_json:
        console.print_json(found)
        return
    table = Table("Group", "Jobs", "Processor", "Error", "Message", "Last", "Newest", box=None, header_style="bold")
    for item in found["groups"]:
        last = (item["last_at"] or "")[:19].replace("T", " ")
        newest = ", ".join(map(str, item["sample_job_ids"][:3]))
        what = (item["processor"], item["error_code"], item["message"] or "")
        table.add_row(item["error_group"] or "-", f"{item['jobs']:,}", *what, last, newest)
    _wide().print(table) if found["groups"] else typer.echo(f"No job in state {state} has an error.", err=True)


@jobs_app.command("show")
def show_job(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job: its photo, every run with its error, and what people did to it.

    With a key of the admin scope, tracebacks are shown too.

      safelight jobs show 1234

    Exit code: 0; 1 there is no such job; 2 wrong usage, or no gateway.
    """
    job = remote.run(lambda gateway: gateway.get(f"/v1/jobs/{job_id}"))
    if as_json:
        console.print_json(job)
        return
    typer.echo(f"Job {job['id']}: {job['processor']} on {job['bucket']}/{job['key']}")
    typer.echo(f"State     {job['state']}" + (f" ({job['outcome']})" if job["outcome"] else ""))
    photo = job["photo"]
    typer.echo(
        f"Photo     {job['photo_id']}, {photo['content_type']}, {photo['size_bytes']:,} bytes, {photo['status']}"
    )
    typer.echo(f"Processor {job['processor']}, version {job['version']}")
    typer.echo(f"Attempts  {job['attempt']} of {job['max_attempts']}, crashes {job['crashes']}")
    if job["state"] == "ready":
        typer.echo(f"Due       {job['run_at']}")
    if job["started_at"]:
        ended = f" to {job['finished_at']}" if job["finished_at"] else ""
        took = "" if job["seconds"] is None else f", {job['seconds']:.2f} s"
        typer.echo(f"Ran       {job['started_at']}{ended}{took}")
    for item in job["made"]["artifacts"]:
        typer.echo(f"Made      {item['bucket']}/{item['key']}, {item['size_bytes']:,} bytes")
    if job["made"]["facts"] is not None:
        typer.echo(f"Made      {len(job['made']['facts'])} facts")
    for run in job["attempts"]:
        seconds = "" if run["seconds"] is None else f" after {run['seconds']:.2f} s"
        typer.echo(
            f"  run {run['number']}  {run['started_at']}  {run['outcome'] or 'running'}{seconds}  {run['worker']}"
        )
        for line in _error_lines(run["error"]):
            typer.echo(f"         {line}")
    for done in job["actions"]:
        note = f": {done['note']}" if done["note"] else ""
        typer.echo(f"  {done['action']} by {done['actor']} at {done['at']}{note}")
    typer.echo(f"In plain words: safelight why {job['id']}", err=True)


def _since(job: dict[str, Any]) -> str:
    """When it ended, or else was made; for one that is for later, when it is due."""
    is_later = job["state"] == "ready" and datetime.fromisoformat(job["run_at"]) > datetime.now(UTC)
    return str(job["run_at"] if is_later else job["finished_at"] or job["created_at"])


def _error_lines(error: dict[str, Any] | None) -> list[str]:
    if not error:
        return []
    first = " ".join(str(error[name]) for name in ("code", "detail", "cause") if error.get(name))
    return [first, *str(error.get("traceback") or "").rstrip().splitlines()]


def _wide() -> Console:
    screen = Console()
    return screen if screen.is_terminal else Console(width=200)
