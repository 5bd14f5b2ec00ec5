"""The processes that serve: gateway, S3 door and worker. They begin here and not in the command line, whose libraries
take a third of the time that a start takes, and would stay with each process for as long as it lives: 13 MB of some 70.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import uvloop

from safelight import exposition
from safelight.settings import Settings, SettingsError
from safelight.starting import NO_POSTGRES, explain_bind, give_up, prepare
from storage.database import DatabaseUnavailable

_NO_MASTER_KEY = (
    "SAFELIGHT_MASTER_KEY is not set. The keys' secrets are sealed with it; `safelight keys master` makes one."
)


def main(name: str) -> None:
    """Serve as one of SERVING until SIGTERM; all that there is to choose is in the environment.

    Exit code: 0 it was told to stop; 1 its port cannot be had, with the reason in one sentence; 2 wrong settings, or
    Postgres cannot be used.
    """
    try:
        found = prepare(opens_door=name == "door")
        if name == "door" and not found.gateway.master_key:
            raise SettingsError([_NO_MASTER_KEY])  # noqa: TRY301 - told like all that is wrong with the settings
    except SettingsError as error:
        give_up(error)
    serve = SERVING[name](found)
    gc.freeze()  # what was loaded stays: the collector need not go through it again while requests wait
    gc.enable()
    try:
        uvloop.run(serve)
    except DatabaseUnavailable:
        print(NO_POSTGRES, file=sys.stderr)  # noqa: T201 - there is no console here
        sys.exit(2)
    except OSError as error:
        if (sentence := explain_bind(error)) is None:
            raise
        sys.exit(sentence)


def _gateway(found: Settings) -> Coroutine[Any, Any, None]:
    from gateway.app import serve

    return serve(
        found.gateway,
        found.jobs,
        found.storage,
        found.webhooks,
        ports_file=os.environ.get("SAFELIGHT_PORTS_FILE"),
        expose=partial(exposition.serving, found.process),
    )


def _worker(found: Settings) -> Coroutine[Any, Any, None]:
    from processors.worker import work

    return work(
        found.jobs,
        found.storage,
        found.webhooks,
        master_key=found.gateway.master_key,
        expose=partial(exposition.serving, found.process),
    )


def _door(found: Settings) -> Coroutine[Any, Any, None]:
    from gateway.door.app import CHILD_OF, serve, serve_many

    ports_file = os.environ.get("SAFELIGHT_PORTS_FILE")
    if found.gateway.s3_processes > 1 and CHILD_OF not in os.environ:
        grace_seconds, metrics_port = found.jobs.grace_seconds, found.process.metrics_port
        return serve_many(found.gateway, grace_seconds=grace_seconds, ports_file=ports_file, metrics_port=metrics_port)
    expose = partial(exposition.serving, found.process)
    return serve(found.gateway, found.jobs, found.storage, ports_file=ports_file, expose=expose)


SERVING: dict[str, Callable[[Settings], Coroutine[Any, Any, None]]] = {
    "gateway": _gateway, "worker": _worker, "door": _door,
}  # fmt: skip
