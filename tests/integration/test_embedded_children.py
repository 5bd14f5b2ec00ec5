"""Starting again what has died."""

from __future__ import annotations

import os
import signal
import sys
import time

from safelight.embedded import children
from safelight.embedded.children import Child, Keeper, stop_children


class Mortal:
    """A process that dies at once, or lives on."""

    name = "mortal"

    def __init__(self, lives: bool) -> None:
        self.lives = lives
        self.launches = 0

    @property
    def running(self) -> bool:
        return self.lives

    def launch(self) -> None:
        self.launches += 1


def run_for(keeper: Keeper, launches: int, mortal: Mortal) -> list[str]:
    news: list[str] = []
    deadline = time.monotonic() + 5
    while mortal.launches < launches and time.monotonic() < deadline:
        news += keeper.tend()
    return news


def test_pauses_double_with_each_death() -> None:
    """A process that cannot live does not keep the machine busy."""
    mortal = Mortal(lives=False)
    news = run_for(Keeper([mortal], first_pause_seconds=0.01), 4, mortal)
    assert [line.rpartition(" in ")[2] for line in news] == ["0.01 s", "0.02 s", "0.04 s", "0.08 s"]


def test_a_pause_never_exceeds_the_longest() -> None:
    """A repaired dependency is noticed within ten seconds."""
    keeper = Keeper([Mortal(lives=False)], first_pause_seconds=children.LONGEST_PAUSE_SECONDS)
    keeper.tend()
    assert keeper._pauses["mortal"] == children.LONGEST_PAUSE_SECONDS == 10


def test_what_lives_is_left_alone() -> None:
    """A running process is neither reported nor launched."""
    mortal = Mortal(lives=True)
    assert Keeper([mortal]).tend() == []
    assert mortal.launches == 0


def test_a_child_that_ignores_the_request_to_stop_is_killed_after_the_grace() -> None:
    """Stopping has an end, whatever a child does."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    reading, writing = os.pipe()
    stubborn = Child("stubborn", [sys.executable, "-c", code], {}, output=writing)
    polite = Child("polite", [sys.executable, "-c", "import time; time.sleep(60)"], {})
    for child in (stubborn, polite):
        child.launch()
    assert os.read(reading, 1) == b"\n"  # its handler is set
    stop_children([stubborn, polite], grace_seconds=0.2)
    assert (stubborn.exit_code, polite.exit_code) == (-signal.SIGKILL, -signal.SIGTERM)
    os.close(reading)
    os.close(writing)
