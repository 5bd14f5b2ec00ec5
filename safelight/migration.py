"""`safelight migrate`: the database's schema, from the version that is there to the one that this release wants."""

from __future__ import annotations

from typing import Annotated

import typer

from safelight import console
from safelight.console import AsJson
from storage import condition
from storage.database import Database


def migrate(
    *,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 where it would.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema up to date. Safe to repeat, and from many machines at once.

    Run it before the programs of a new release start; those of the old one go on meanwhile (docs/upgrading.md).

      safelight migrate
      safelight migrate --check || echo "an upgrade is due"

    Exit code: 0 it is up to date; 1 with --check: it is not; 2 wrong settings, or Postgres cannot be used.
    """
    wanted = condition.own_schema_version()

    async def run(database: Database) -> tuple[int | None, int | None]:
        async with database.connection() as conn:
            before = await condition.read_schema_version(conn)
        return before, before if check else await database.migrate()

    before, after = console.with_database(run)
    behind = after is None or after < wanted
    if as_json:
        console.print_json({"from": before, "to": after, "wanted": wanted, "up_to_date": not behind})
    else:
        typer.echo(_tell(before, after, wanted))
    raise typer.Exit(behind)


def _tell(before: int | None, after: int | None, wanted: int) -> str:
    if after is None:
        return f"There is no schema yet; this release wants version {wanted}: safelight migrate"
    if after < wanted:
        return f"The schema is at version {after}; this release wants {wanted}: safelight migrate"
    if after > wanted:
        return f"The schema is at version {after}, newer than this release's {wanted}."
    if before == after:
        return f"The schema is at version {after}; there was nothing to do."
    return f"The schema is at version {after} now; it was at {before or 'none'}."
