"""How every process that serves begins: its settings, its log, its failpoints; and how it ends where they do not fit.

Loads nothing of the command line, whose libraries would cost each of those processes memory for nothing.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from safelight import logs
from safelight.settings import NO_SETTINGS, Settings, SettingsError, load
from storage import failpoints


def prepare(*, opens_door: bool = False) -> Settings:
    """The settings; the log is set up by them. `opens_door`: those of the S3 door are needed. Raises SettingsError."""
    given = {name: value for name, value in os.environ.items() if name not in NO_SETTINGS}
    found = load(given, opens_door=opens_door)
    logs.configure(found.process)
    try:
        failpoints.arm(os.environ)
    except ValueError as error:
        raise SettingsError([str(error)]) from None
    return found


def give_up(error: SettingsError) -> NoReturn:
    """End with every problem, a line each, and exit code 2."""
    lines = ["The settings do not fit together:", *(f"  - {problem}" for problem in error.problems)]
    print(*lines, sep="\n", file=sys.stderr)  # noqa: T201 - there is no console here
    sys.exit(2)
