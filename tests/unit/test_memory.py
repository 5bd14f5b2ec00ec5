"""The budget of bytes that uploads share: fair, whole again after any cancellation, and never exceeded."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.memory import MemoryBudget, MemoryBusy


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    """A small request behind a large one waits for its turn, though it would fit."""
    budget = MemoryBudget(10, wait_seconds=5)
    await budget.reserve(6)
    served: list[str] = []

    async def ask(name: str, size_bytes: int) -> None:
        await budget.reserve(size_bytes)
        served.append(name)

    tasks = [asyncio.create_task(ask(name, size)) for name, size in (("large", 8), ("small", 1), ("last", 1))]
    await turns()
    assert (served, budget.waiting) == ([], 3)
    budget.release(6)
    await turns()
    assert served == ["large", "small", "last"]
    assert (budget.used_bytes, budget.waiting) == (10, 0)
    await asyncio.gather(*tasks)


async def test_more_than_there_is_counts_as_all() -> None:
    """A request larger than the budget gets it all, and gives it all back."""
    budget = MemoryBudget(10, wait_seconds=5)
    await budget.reserve(1000)
    assert budget.used_bytes == 10
    budget.release(1000)
    assert budget.used_bytes == 0


async def test_waiting_ends() -> None:
    """Who waited too long is told so, leaves the line, and lets those behind through."""
    budget = MemoryBudget(10, wait_seconds=0.05)
    await budget.reserve(5)
    with pytest.raises(MemoryBusy):
        await budget.reserve(6)
    assert (budget.used_bytes, budget.waiting) == (5, 0)
    await budget.reserve(5)


async def test_a_cancelled_head_of_the_line_lets_the_others_through() -> None:
    """When the large request at the head gives up, those behind it that fit are served at once."""
    budget = MemoryBudget(10, wait_seconds=5)
    await budget.reserve(5)
    large = asyncio.create_task(budget.reserve(8))
    await turns()
    small = asyncio.create_task(budget.reserve(3))
    await turns()
    large.cancel()
    await asyncio.wait_for(small, 1)
    assert (budget.used_bytes, budget.waiting) == (8, 0)


async def test_a_cancel_in_the_moment_of_the_turn_loses_nothing() -> None:
    """Cancelled after its turn came and before it ran on, a request gives back what it was given."""
    budget = MemoryBudget(10, wait_seconds=5)
    await budget.reserve(10)
    waiting = asyncio.create_task(budget.reserve(10))
    await turns()
    budget.release(10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (budget.used_bytes, budget.waiting) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), total_bytes=st.integers(1, 50))
def test_nothing_leaks_whatever_is_cancelled(seed: int, total_bytes: int) -> None:
    """Fifty tasks that take, hold, give back and are cancelled at random never have more than there is, and leave it
    all."""

    async def run() -> None:
        chance = random.Random(seed)
        budget = MemoryBudget(total_bytes, wait_seconds=5)
        held = 0

        async def use() -> None:
            nonlocal held
            size_bytes = min(chance.randint(1, 20), total_bytes)
            await budget.reserve(size_bytes)
            held += size_bytes
            assert held <= budget.used_bytes <= total_bytes
            try:
                for _ in range(chance.randint(0, 4)):
                    await asyncio.sleep(0)
            finally:
                held -= size_bytes
                budget.release(size_bytes)

        tasks = [asyncio.create_task(use()) for _ in range(50)]
        while any(not task.done() for task in tasks):
            if chance.random() < 0.7:
                chance.choice(tasks).cancel()
            await asyncio.sleep(0)
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            assert done is None or isinstance(done, asyncio.CancelledError)
        assert (held, budget.used_bytes, budget.waiting) == (0, 0, 0)

    asyncio.run(run())
