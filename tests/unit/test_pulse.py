"""The circuit breaker of a storage that is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage import pulse
from storage.pulse import Pulse
from tests.faults.harness.waiting import until_true

QUICK_SECONDS = 0.01


class Storage:
    """Answers what `answers` says, once it is let."""

    def __init__(self) -> None:
        self.answers: list[bool] = []
        self.asked = 0

    async def ask(self) -> bool:
        self.asked += 1
        await until_true(lambda: bool(self.answers), "it may answer", seconds=5)
        return self.answers.pop(0)


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Pulse, Storage]]:
    monkeypatch.setattr(pulse, "OVERDUE_SECONDS", 0)
    monkeypatch.setattr(pulse, "_PAUSE_SECONDS", QUICK_SECONDS)
    storage = Storage()
    found = Pulse(storage.ask)
    watching = asyncio.create_task(found.watch())
    yield found, storage
    assert not watching.done()
    watching.cancel()


async def call(pulse: Pulse) -> None:
    async with pulse.calling():
        await asyncio.Event().wait()


async def test_silence_ends_every_call_and_an_answer_lets_new_ones_in(watched: tuple[Pulse, Storage]) -> None:
    """Asked in vain three times in a row, all calls end and new ones are refused; one answer is enough afterwards."""
    found, storage = watched
    calls = [asyncio.create_task(call(found)) for _ in range(3)]
    storage.answers = [False, False, True, False, False]  # an answer in between starts the count anew
    await until_true(lambda: storage.asked == 6, "it was asked again", seconds=5)
    assert not any(item.done() for item in calls)
    storage.answers = [False]
    for item in calls:
        with pytest.raises(TimeoutError):
            await item
    with pytest.raises(TimeoutError):
        await call(found)
    storage.answers = [False, True]
    await until_true(lambda: not found.silent, "it was heard", seconds=5)
    async with found.calling():
        pass


async def test_nothing_is_asked_while_no_call_waits(watched: tuple[Pulse, Storage]) -> None:
    """A storage that answers its calls, or has none, is left in peace."""
    found, storage = watched
    for _ in range(5):
        async with found.calling():
            pass
        await asyncio.sleep(QUICK_SECONDS)
    assert storage.asked == 0
