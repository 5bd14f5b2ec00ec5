"""The queue: workers alive and of one release, nothing dead, nothing forgotten, reconciling done lately."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from safelight.checks.finding import Finding, fail, ok, warn
from safelight.settings import Settings
from storage import credentials, pauses, reconciliation, samples, workers
from storage.database import Connection, Database

_OLD_SECONDS = 60.0


async def check(settings: Settings) -> AsyncIterator[Finding]:
    """Only where Postgres and its schema are fit: the caller sees to that."""
    async with Database(settings.storage) as database, database.connection() as conn:
        alive = await workers.list_alive(conn, alive_seconds=settings.jobs.alive_seconds)
        counts = await workers.count_jobs(conn)
        paused = await pauses.list_paused(conn)
        yield _workers(alive, counts)
        if odd := sorted({worker["version"] for worker in alive} - {version("safelight")}):
            said = f"Workers of other releases are alive: {', '.join(odd)}; this is {version('safelight')}."
            yield warn("worker versions", said, "Fine during an upgrade; then upgrade them too.")
        for finding in _waiting(counts, paused):
            yield finding
        yield _dead(counts)
        yield await _reconciled(conn, settings)
        yield await _keys(conn)
        yield await _messages(conn)


def _workers(alive: list[dict[str, Any]], counts: dict[str, dict[str, Any]]) -> Finding:
    if alive:
        slots, number = sum(worker["slots"] for worker in alive), len(alive)
        return ok("workers", f"{number} {'worker is' if number == 1 else 'workers are'} alive, with {slots} slots.")
    waiting = sum(item.get("ready", 0) for item in counts.values())
    return fail("workers", f"No worker is alive; {waiting:,} jobs wait.", "Start one or more: safelight worker")


def _waiting(counts: dict[str, dict[str, Any]], paused: dict[str, dict[str, Any]]) -> list[Finding]:
    found = []
    for name, pause in paused.items():
        said = f"{name} has been paused since {pause['at']:%Y-%m-%d %H:%M} UTC, by {pause['by']}."
        found.append(warn("paused", said, f"When its reason is gone: safelight jobs resume {name}"))
    for name, item in counts.items():
        age = item.get("oldest_ready_seconds") or 0
        if age > _OLD_SECONDS and name not in paused:
            said = f"A due job of {name} has waited for {age:,.0f} s; {item.get('ready', 0):,} wait."
            found.append(
                warn("waiting jobs", said, "Start more workers, or see what they run: safelight stats --watch")
            )
    return found


def _dead(counts: dict[str, dict[str, Any]]) -> Finding:
    dead = {name: item["dead"] for name, item in counts.items() if item.get("dead")}
    if not dead:
        return ok("dead jobs", "No job is dead.")
    said = ", ".join(f"{number:,} of {name}" for name, number in dead.items())
    return warn("dead jobs", f"Jobs are dead: {said}.", "See what failed alike: safelight jobs groups")


async def _reconciled(conn: Connection, settings: Settings) -> Finding:
    known = {*await reconciliation.list_buckets(conn), settings.storage.default_bucket, settings.storage.derived_bucket}
    age = time.time() - await reconciliation.find_last_pass(conn, sorted(known))
    limit = 2 * settings.gateway.reconcile_pass_seconds + 3600
    if settings.gateway.reconcile_interval_seconds == 0:
        said = "Gateways do not reconcile (SAFELIGHT_RECONCILE_INTERVAL_SECONDS is 0)."
        return warn("reconciling", said, "Set it, or run `safelight reconcile` now and then.")
    if age < limit:
        return ok("reconciling", f"All buckets were compared with the storage within {age / 60:.0f} minutes.")
    return warn(
        "reconciling",
        "Not every bucket was compared with the storage lately.",
        "Fine within an hour of the first start. Else see a gateway's log, or run: safelight reconcile --dry-run",
    )


async def _keys(conn: Connection) -> Finding:
    usable = [key for key in await credentials.list_keys(conn) if key["revoked_at"] is None]
    if usable:
        return ok("keys", f"Access keys that can be used: {len(usable)}.")
    return warn("keys", "There is no access key: nobody can come in.", "Make one: safelight keys create --name NAME")


async def _messages(conn: Connection) -> Finding:
    newest = await samples.list_newest(conn, limit=1)
    if not newest:
        return ok("bucket events", "No message about buckets was unusable.")
    (sample,) = newest
    said = (
        f"A message about buckets could not be used ({sample['reason']}, by {sample['origin']}, "
        f"{sample['received_at']:%Y-%m-%d %H:%M} UTC)."
    )
    return warn(
        "bucket events", said, "Look at it in the table unusable_message: the source is not set up as it should be."
    )
