"""Postgres: within reach, new enough, writable, with room, the right schema and the right time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from safelight.checks.finding import Finding, fail, judge_clock, ok, warn
from safelight.settings import Settings
from storage import condition
from storage.condition import Condition
from storage.database import Database, DatabaseUnavailable

_OLDEST = 15


async def check(settings: Settings) -> AsyncIterator[Finding]:
    try:
        async with Database(settings.storage) as database, database.connection() as conn:
            asked_at = datetime.now(UTC)
            found = await condition.examine(conn)
            answered_at = datetime.now(UTC)
            async with database.connection() as other:
                heard = await condition.hears(conn, other)
    except DatabaseUnavailable as error:
        cause = error.__cause__ or error
        yield fail(
            "postgres",
            f"Postgres cannot be used: {type(cause).__name__}: {cause}",
            "Check SAFELIGHT_POSTGRES_DSN, that the server is up, and that it lets this machine in.",
        )
        return
    yield _version(found)
    yield _writing(found)
    yield _notifications(heard)
    yield _schema(found)
    yield judge_clock(
        "postgres clock", "Postgres'", (found.now - asked_at - (answered_at - asked_at) / 2).total_seconds()
    )
    if found.connections > 0.8 * found.max_connections:
        yield warn(
            "postgres connections",
            f"{found.connections} of {found.max_connections} connections are used.",
            "Raise max_connections, or lower SAFELIGHT_POSTGRES_POOL_SIZE of each process.",
        )


def _version(found: Condition) -> Finding:
    if found.version < _OLDEST:
        return fail("postgres", f"Postgres is {found.version_text}.", f"Use Postgres {_OLDEST} or later.")
    return ok("postgres", f"Postgres {found.version_text} answers.")


def _writing(found: Condition) -> Finding:
    if found.read_only:
        return fail(
            "postgres writing",
            "Postgres is read-only, or a standby.",
            "Point SAFELIGHT_POSTGRES_DSN at the primary (target_session_attrs=read-write), or make it writable.",
        )
    if not found.durable:
        return warn(
            "postgres writing",
            "fsync or full_page_writes is off: a power cut can lose what was accepted.",
            "Switch both on, unless this is for tests.",
        )
    return ok("postgres writing", "It can be written, and keeps what it was given.")


def _notifications(heard: bool) -> Finding:
    if heard:
        return ok("postgres notifications", "What one connection tells, another hears (LISTEN, NOTIFY).")
    return warn(
        "postgres notifications",
        "LISTEN does not hear NOTIFY: jobs and pages hear of news only when they next look.",
        "Connect past the pooler, or let it pool by session: one that pools by transaction loses what is heard.",
    )


def _schema(found: Condition) -> Finding:
    own = condition.own_schema_version()
    if found.schema is None:
        return fail("schema", "The database has no schema yet.", "Make it: safelight migrate")
    if found.schema < own:
        said = f"The schema is at version {found.schema}; this release wants {own}."
        return fail("schema", said, "Bring it up to date, before the new programs start: safelight migrate")
    if found.schema > own:
        said = f"The schema is at version {found.schema}, newer than this release's {own}."
        return warn("schema", said, "Fine during an upgrade; then upgrade this machine too.")
    return ok("schema", f"The schema is at version {own}, as this release wants it.")
