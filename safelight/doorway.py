"""The process of the S3 door. `safelight door` becomes it, because the command line's libraries would stay with each
process for as long as it lives: 13 MB of some 70.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import uvloop

from gateway.door.app import CHILD_OF, serve, serve_many
from safelight import exposition
from safelight.settings import Settings, SettingsError
from safelight.starting import explain_bind, give_up, prepare

_NO_MASTER_KEY = (
    "SAFELIGHT_MASTER_KEY is not set. The keys' secrets are sealed with it; `safelight keys master` makes one."
)


def main() -> None:
    """Serve until SIGTERM; all that there is to choose is in the environment."""
    try:
        found = prepare(opens_door=True)
        if not found.gateway.master_key:
            raise SettingsError([_NO_MASTER_KEY])  # noqa: TRY301 - told like all that is wrong with the settings
    except SettingsError as error:
        give_up(error)
    try:
        _serve(found)
    except OSError as error:
        if (sentence := explain_bind(error)) is None:
            raise
        sys.exit(sentence)


def _serve(found: Settings) -> None:
    ports_file = os.environ.get("SAFELIGHT_PORTS_FILE")
    if found.gateway.s3_processes > 1 and CHILD_OF not in os.environ:
        grace_seconds, metrics_port = found.jobs.grace_seconds, found.process.metrics_port
        parent = serve_many(
            found.gateway, grace_seconds=grace_seconds, ports_file=ports_file, metrics_port=metrics_port
        )
        uvloop.run(parent)
    else:
        expose = partial(exposition.serving, found.process)
        uvloop.run(serve(found.gateway, found.jobs, found.storage, ports_file=ports_file, expose=expose))


if __name__ == "__main__":
    main()
