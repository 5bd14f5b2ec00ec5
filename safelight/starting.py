"""How every process that serves begins: its settings, its log, its failpoints; and how it ends where they do not fit.

Loads nothing of the command line, whose libraries would cost each of those processes memory for nothing.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Mapping
from typing import NoReturn

from safelight import logs
from safelight.settings import NO_SETTINGS, Settings, SettingsError, load
from storage import failpoints

NO_POSTGRES = "Postgres cannot be used. Check SAFELIGHT_POSTGRES_DSN and that the server is up."


def prepare(environ: Mapping[str, str] = os.environ, *, opens_door: bool = False) -> Settings:
    """The settings; the log is set up by them. `opens_door`: those of the S3 door are needed. Raises SettingsError."""
    given = {name: value for name, value in environ.items() if name not in NO_SETTINGS}
    found = load(given, opens_door=opens_door)
    logs.configure(found.process)
    try:
        failpoints.arm(os.environ)
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    return found


def explain_bind(error: OSError) -> str | None:
    """One sentence for an address that cannot be listened on; None for any other error."""
    reasons = {
        errno.EADDRINUSE: "another program listens there. Stop it, or choose another port",
        errno.EADDRNOTAVAIL: "this machine has no such address. Correct the host",
        errno.EACCES: "only the superuser may. Choose a port above 1023",
    }
    if error.errno not in reasons or "bind" not in str(error):
        return None
    where = re.search(r"\('([^']*)', (\d+)", str(error))
    address = f"{where[1]}:{where[2]}" if where else "the address"
    return f"It cannot listen on {address}: {reasons[error.errno]} (`safelight settings` lists the *_HOST and *_PORT)."


def give_up(error: SettingsError) -> NoReturn:
    """End with every problem, a line each, and exit code 2."""
    lines = ["The settings do not fit together:", *(f"  - {problem}" for problem in error.problems)]
    print(*lines, sep="\n", file=sys.stderr)  # noqa: T201 - there is no console here
    sys.exit(2)
