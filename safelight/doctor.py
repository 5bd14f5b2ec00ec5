"""`safelight doctor`: everything that Safelight needs, tried from here; for what is wrong a sentence with what to do.

Only order and rendering live here; the checks are in safelight.checks. A check that breaks is a finding of its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from safelight import console, logs
from safelight.checks.finding import Finding, fail, ok
from safelight.console import AsJson
from safelight.settings import NO_SETTINGS, Settings, SettingsError, load

_MARKS = {"ok": "[green]ok  [/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]FAIL[/red]"}
_CHECK_SECONDS = 60.0


def doctor(
    *,
    events: Annotated[
        bool,
        typer.Option("--events", help="Also write a photo straight to the default bucket, and wait for its event."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything that Safelight needs, from this machine, and say what to do about what is wrong.

    Settings; Postgres: version, schema, clock; Redis: version, persistence, eviction, clock; the storage: each right by
    a call that needs it, clock, public address; the sandbox's limits; gateway, workers, dead jobs, reconciling.

    Run it where a gateway or worker runs, with the same settings; or in the folder in which `safelight up` runs.
    What it writes to the storage lies under .safelight-doctor/ and is deleted again.

      safelight doctor
      safelight doctor --events
      safelight doctor --json | jq '.findings[] | select(.level != "ok")'

    Exit code: 0 nothing fails (there may be warnings); 1 something fails; 2 wrong usage.
    """
    findings = console.run(_examine(os.environ, events=events, show=None if as_json else Console()))
    failed, warned = (sum(item.level == level for item in findings) for level in ("fail", "warn"))
    if as_json:
        told = [{"name": item.name, "level": item.level, "found": item.found, "do": item.do} for item in findings]
        console.print_json({"failed": failed, "warned": warned, "findings": told})
    else:
        typer.echo(f"{len(findings)} looked at: {failed} failed, {warned} with a warning.")
    raise typer.Exit(failed > 0)


async def _examine(environ: Mapping[str, str], *, events: bool, show: Console | None) -> list[Finding]:
    findings: list[Finding] = []
    async for finding in _find(console.with_local_servers(environ), events=events):
        findings.append(finding)
        if show is not None:
            show.print(
                f"{_MARKS[finding.level]} [bold]{finding.name}[/bold]  {escape(finding.found)}",
                highlight=False,
                soft_wrap=True,
            )
            if finding.do:
                show.print(f"       {escape(finding.do)}", highlight=False, soft_wrap=True)
    return findings


async def _find(environ: Mapping[str, str], *, events: bool) -> AsyncIterator[Finding]:
    from safelight.checks import arriving, postgres, queueing, redis, s3, sandbox  # large: no other command needs it

    try:
        settings = load({name: value for name, value in environ.items() if name not in NO_SETTINGS})
    except SettingsError as error:
        for problem in error.problems:
            name, _, rest = problem.partition(". ")
            yield fail("settings", f"{name}.", rest or "Correct it.")
        return
    logs.configure(replace(settings.process, log_level="error"))  # what is wrong is told here
    yield ok("settings", "They can be read, and do not contradict each other.")
    broken: set[str] = set()
    async for finding in _guarded("postgres", postgres.check(settings)):
        if finding.level == "fail":
            broken.add(finding.name)
        yield finding
    for name, found in (("redis", redis.check(settings)), ("storage", s3.check(settings))):
        async for finding in _guarded(name, found):
            yield finding
    async for finding in _guarded("sandbox", sandbox.check(settings)):
        yield finding
    async for finding in _guarded("gateway", arriving.check_gateway(_gateway_url(environ, settings))):
        yield finding
    if not broken & {"postgres", "schema"}:
        async for finding in _guarded("queue", queueing.check(settings)):
            yield finding
        if events:
            async for finding in _guarded("bucket events", arriving.check_events(settings)):
                yield finding


async def _guarded(name: str, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    """What breaks in a check is told, and the next check follows."""
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            async for finding in findings:
                yield finding
    except TimeoutError:
        yield fail(name, f"It could not be looked at within {_CHECK_SECONDS:g} s.", "Look at it by hand.")
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are to be made
        yield fail(name, f"It could not be looked at: {type(error).__name__}: {error}", "Look at it by hand.")


def _gateway_url(environ: Mapping[str, str], settings: Settings) -> str:
    told = os.environ.get("SAFELIGHT_URL", "").strip() or str(console.read_connection(environ).get("http_url", ""))
    host = "127.0.0.1" if settings.gateway.http_host in ("0.0.0.0", "::") else settings.gateway.http_host  # noqa: S104
    return told or f"http://{host}:{settings.gateway.http_port}"
