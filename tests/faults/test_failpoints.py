"""Every place at which the product can be made to fail is made to fail by some test."""

from __future__ import annotations

import re

from tests.faults.harness.programs import ROOT

PRODUCT = ("gateway", "processors", "safelight", "storage")
_REACHED = re.compile(r'failpoints\.reach\("([^"]+)"\)')
_ARMED = re.compile(r"\b([a-z0-9_]+\.[a-z0-9_]+):(?:kill|exit|raise|hang|stop|sleep=)")


def sources(*folders: str) -> str:
    """All Python source in these folders, but for this file."""
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return "\n".join(path.read_text("utf-8") for path in paths if path.name != "test_failpoints.py")


def test_every_failpoint_is_used_by_a_test() -> None:
    """Each name that the product reaches is named by a test that arms it."""
    points = set(_REACHED.findall(sources(*PRODUCT)))
    tests = sources("tests/faults", "tests/integration")
    assert len(points) >= 20
    assert [name for name in sorted(points) if not re.search(rf"\b{re.escape(name)}\b", tests)] == []


def test_no_test_arms_a_failpoint_that_is_never_reached() -> None:
    """Each name that a fault test arms is reached somewhere in the product: a renamed point cannot leave a test that
    proves nothing."""
    points = set(_REACHED.findall(sources(*PRODUCT)))
    armed = set(_ARMED.findall(sources("tests/faults")))
    assert len(armed) >= 10
    assert armed - points == set()
