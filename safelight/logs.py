"""How the project logs: structlog, one stable event name and one sentence per line, ids beside it. JSON in
production."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Any, TextIO, cast

import structlog

from safelight.settings import ProcessSettings

# Their lines repeat what ours say, or say it once per message.
_QUIET = ("taskiq", "botocore", "aiobotocore", "boto3", "urllib3", "asyncio", "aiohttp")


class _Sink:
    """Standard error that never fails: a full disk or a closed pipe costs lines, not requests or jobs."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()


def configure(settings: ProcessSettings) -> None:
    """Send our own lines and the libraries' warnings to standard error, in one form."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = settings.log_format == "json"
    encode = json.JSONEncoder(default=repr).encode  # made once: json.dumps makes one for every line
    renderer: Any = (
        structlog.processors.JSONRenderer(lambda event, **_: encode(event))
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # others print local variables, secrets among them
        )
    )
    tracebacks = [structlog.processors.format_exc_info] if as_json else []
    structlog.configure(
        processors=[*shared, *tracebacks, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Sink(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tracebacks, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    # It writes what strangers sent, headers with keys among it, for every request that is not HTTP.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    logging.getLogger("taskiq.receiver").setLevel(logging.CRITICAL)  # our middleware reports every failure
