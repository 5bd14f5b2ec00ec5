"""Log lines, as a process of its own writes them: one form, at the wanted level, on standard error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging, sys, structlog
from safelight import logs
from safelight.settings import ProcessSettings
logs.configure(ProcessSettings(log_format=sys.argv[1], log_level=sys.argv[2]))
log = structlog.get_logger()
log.debug("a.debug", message="Quiet.")
with structlog.contextvars.bound_contextvars(request_id="r1"):
    log.info("an.event", message="Something was done.", job_id=7)
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("an.error", message="It failed.", exc_info=error)
logging.getLogger("some.library").warning("a library's %s", "warning")
logging.getLogger("some.library").info("a library's news")
logging.getLogger("botocore.hooks").warning("a repetition")
"""


def run(form: str, level: str) -> list[str]:
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM, form, level), capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_lines_are_one_object_each() -> None:
    """In production every line, a library's or one with a traceback, is one JSON object with time, level and event."""
    lines = [json.loads(line) for line in run("json", "info")]
    assert [line["event"] for line in lines] == ["an.event", "an.error", "a library's warning"]
    assert [line["level"] for line in lines] == ["info", "error", "warning"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert (lines[0]["request_id"], lines[0]["job_id"], lines[0]["message"]) == ("r1", 7, "Something was done.")
    assert "request_id" not in lines[1]
    assert "ZeroDivisionError" in lines[1]["exception"]


@pytest.mark.parametrize(
    ("level", "events"),
    [("debug", ["a.debug", "an.event", "an.error"]), ("warning", ["an.error"]), ("error", ["an.error"])],
)
def test_the_level_decides_what_is_written(level: str, events: list[str]) -> None:
    """Lines of ours below the level are left out."""
    found = [json.loads(line)["event"] for line in run("json", level)]
    assert [event for event in found if event.startswith("a.") or event.startswith("an.")] == events


def test_console_lines_are_for_people() -> None:
    """Without a terminal there are no colours, and a line has its event, its sentence and its ids."""
    first, *_ = run("console", "info")
    assert "\x1b" not in first
    assert all(part in first for part in ("an.event", "Something was done.", "job_id=7", "request_id=r1"))
