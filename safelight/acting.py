"""What people do to jobs and processors from a shell: replay, discard, promote, pause, resume; and who did it. By way
of the gateway, so that it is written down there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from safelight import console, remote
from safelight.console import AsJson
from safelight.jobfilters import Bucket, Error, Group, Photo, Prefix, Processor, Search, Since, Until, Worker, chosen
from safelight.remote import Gateway

_BATCH = 1000

Note = Annotated[str | None, typer.Option(help="Why; kept with what was done.")]
AsLines = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
ProcessorName = Annotated[str | None, typer.Argument(help="As `safelight stats` names it.", show_default=False)]
AllProcessors = Annotated[bool, typer.Option("--all", help="Every processor.")]


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Something that is done to jobs, in words. `state`: in which they must be, where nothing else is said."""

    action: Literal["replay", "discard", "promote"]
    does: str
    past: str
    state: str


_REPLAY = Deed(action="replay", does="run again", past="replayed", state="dead")
_DISCARD = Deed(action="discard", does="give up", past="discarded", state="dead")
_PROMOTE = Deed(action="promote", does="run now", past="promoted", state="later")
InState = Annotated[str, typer.Option("--state", help="In which they must be; waiting ones are ready, due or later.")]
_ADJECTIVES = {"dead": "dead", "ready": "waiting", "due": "due", "later": "later"}


def _acting(deed: Deed, about: str) -> Callable[..., None]:
    def act(
        *,
        job_ids: Annotated[list[int] | None, typer.Argument(min=1, help="Jobs' numbers.", show_default=False)] = None,
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
        state: InState = deed.state,
        everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        note: Note = None,
        as_json: AsJson = False,
    ) -> None:
        wanted = chosen(
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
        if sum(map(bool, (job_ids, wanted, everything))) != 1:
            console.fail(f"Name jobs by number, or by filters, or give --all for every {state} one: one of the three.")
        wish = Wish(deed=deed, state=state, note=note, dry_run=dry_run, yes=yes)
        if job_ids:
            done = remote.run(lambda gateway: _act_on(gateway, wish, job_ids))
        else:
            done = remote.run(lambda gateway: _act_where(gateway, wish, wanted))
        if as_json:
            console.print_json(done)
        raise typer.Exit(bool(done["failures"]))

    act.__doc__ = f"""{about}

    Asks first, where more than one may be meant, unless --yes is given. Who did it is kept: safelight jobs actions

    Exit code: 0 done, or nothing matched; 1 a job was not in that state or not there; 2 wrong usage, not confirmed, no
    gateway.
    """
    return act


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be done to the jobs, and how carefully."""

    deed: Deed
    state: str
    note: str | None
    dry_run: bool
    yes: bool

    @property
    def chosen_state(self) -> dict[str, str]:
        return {} if self.state == self.deed.state else {"state": self.state}

    def body(self, wanted: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        chosen_by = {**wanted, **self.chosen_state}
        return {"filter": chosen_by, "note": self.note, "dry_run": dry_run, "limit": _BATCH}


async def _act_on(gateway: Gateway, wish: Wish, job_ids: list[int]) -> dict[str, Any]:
    changed, failures = [], []
    for job_id in dict.fromkeys(job_ids):
        try:
            await _act_on_one(gateway, wish, job_id)
            changed.append(job_id)
        except remote.Refused as refused:
            if refused.status not in (404, 409):
                raise
            failures.append({"job_id": job_id, "code": refused.code, "detail": str(refused)})
            typer.echo(f"Job {job_id}: {refused} ({refused.code})", err=True)
    would = "would be" if wish.dry_run else "were"
    typer.echo(f"{len(changed)} of {len(job_ids)} jobs {would} {wish.deed.past}.", err=True)
    return {"dry_run": wish.dry_run, "changed": changed, "failures": failures}


async def _act_on_one(gateway: Gateway, wish: Wish, job_id: int) -> None:
    if not wish.dry_run:
        await gateway.post(f"/v1/jobs/{job_id}/{wish.deed.action}", {"note": wish.note, **wish.chosen_state})
        return
    job = await gateway.get(f"/v1/jobs/{job_id}")
    ready = "due" if datetime.fromisoformat(job["run_at"]) <= datetime.now(UTC) else "later"
    if wish.state not in ((job["state"], ready) if job["state"] == "ready" else (job["state"],)):
        code = "job_not_dead" if wish.state == "dead" else "job_not_waiting"
        raise remote.Refused(409, {"code": code, "detail": f"It is {job['state']}."})


async def _act_where(gateway: Gateway, wish: Wish, wanted: dict[str, Any]) -> dict[str, Any]:
    path = f"/v1/jobs/{wish.deed.action}"
    found = await gateway.post(path, wish.body(wanted, dry_run=True))
    by_error = ", ".join(f"{number:,} {code}" for code, number in found["by_error"].items())
    what = f"{_ADJECTIVES.get(wish.state, wish.state)} jobs match"
    typer.echo(f"{found['matched']:,} {what}{': ' if by_error else '.'}{by_error}", err=True)
    done: dict[str, Any] = {"dry_run": wish.dry_run, "matched": found["matched"], "by_error": found["by_error"]}
    if wish.dry_run or not found["matched"]:
        return {**done, "changed": [], "sample": found["job_ids"][:10], "failures": []}
    _confirm(f"{wish.deed.does.capitalize()} {found['matched']:,} jobs?", wish)
    changed: list[int] = []
    while batch := (await gateway.post(path, wish.body(wanted, dry_run=False)))["job_ids"]:
        changed += batch
        if len(changed) >= found["matched"]:  # not those that die, or die again, meanwhile
            break
    typer.echo(f"{len(changed):,} jobs were {wish.deed.past}.", err=True)
    return {**done, "changed": changed, "failures": []}


def _confirm(question: str, wish: Wish) -> None:
    if wish.yes:
        return
    if not sys.stdin.isatty():
        console.fail(f"{question} Give --yes to do it, or --dry-run to see what would be done.")
    if not typer.confirm(question, err=True):
        console.fail("Nothing was changed.")


def pause(
    processor: ProcessorName = None,
    *,
    everything: AllProcessors = False,
    note: Note = None,
    as_json: AsJson = False,
) -> None:
    """Let a processor's jobs wait. Those that run finish; uploads go on. Needs a key of the admin scope.

    For example:

      safelight jobs pause preview --note "the storage is being moved"
      safelight jobs pause --all

    Exit code: 0; 2 wrong usage, not allowed, or no gateway.
    """
    for done in _turn("pause", processor, everything, note, as_json):
        already = f"was paused already, by {done['paused']['by']}"
        typer.echo(f"{done['processor']} {'waits from now on' if done['changed'] else already}.")


def resume(
    processor: ProcessorName = None,
    *,
    everything: AllProcessors = False,
    note: Note = None,
    as_json: AsJson = False,
) -> None:
    """Let a paused processor's jobs run again. Needs a key of the admin scope.

    For example:

      safelight jobs resume preview
      safelight jobs resume --all

    Exit code: 0; 2 wrong usage, not allowed, or no gateway.
    """
    for done in _turn("resume", processor, everything, note, as_json):
        typer.echo(f"{done['processor']} {'runs again' if done['changed'] else 'was not paused'}.")


def _turn(
    action: str, processor: str | None, everything: bool, note: str | None, as_json: bool
) -> list[dict[str, Any]]:
    """What is left to be said of each processor: nothing where it was printed as JSON."""
    if bool(processor) == everything:
        console.fail("Name a processor, or give --all: one of the two.")
    one = f"/{_name(processor)}" if processor else ""
    done = remote.run(lambda gateway: gateway.post(f"/v1/processors{one}/{action}", {"note": note}))
    if as_json:
        console.print_json(done)
        return []
    return done["processors"] if everything else [done]


def list_actions(
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 50,
    as_json: AsLines = False,
) -> None:
    """Show who replayed, discarded, promoted, paused and resumed what, newest first. Needs a key of the admin scope.

      safelight jobs actions --limit 10

    Exit code: 0; 2 wrong usage, not allowed, or no gateway.
    """

    async def show(gateway: Gateway) -> None:
        async for done in gateway.page("/v1/actions", {}, member="actions", most=limit):
            if as_json:
                console.print_json(done, compact=True)
                continue
            chosen = (
                ""
                if done["filter"] is None
                else f" where {done['filter'] or ('later' if done['action'] == 'promote' else 'dead')}"
            )
            what = done["processor"] or f"{done['jobs']:,} jobs{chosen}"
            note = f": {done['note']}" if done["note"] else ""
            typer.echo(f"{done['at'][:19].replace('T', ' ')}  {done['action']:<7}  {what}  by {done['actor']}{note}")

    remote.run(show)


def _name(processor: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", processor):
        console.fail(f"{processor!r} is no processor. `safelight stats` names those that there are.")
    return processor


replay_jobs = _acting(
    _REPLAY,
    """Run dead jobs again, by number or by filter. Needs a key of the admin scope.

    For example:

      safelight jobs replay 1234 1235
      safelight jobs replay --group 1f0c9a7b22d4 --dry-run
      safelight jobs replay --error original_missing --since 2h --note "restored" --yes""",
)
discard_jobs = _acting(
    _DISCARD,
    """Give up dead jobs, or waiting ones, by number or by filter. Needs a key of the admin scope.

    For example:

      safelight jobs discard 1234 1235
      safelight jobs discard --group 1f0c9a7b22d4 --dry-run
      safelight jobs discard --state ready --prefix wrong-folder/ --note "not wanted" --yes""",
)
promote_jobs = _acting(
    _PROMOTE,
    """Run jobs now that wait to be tried again later, by number or by filter. Needs a key of the admin scope.

    For example:

      safelight jobs promote 1234 1235
      safelight jobs promote --error storage_unavailable --dry-run
      safelight jobs promote --all --note "the storage is back" --yes""",
)
