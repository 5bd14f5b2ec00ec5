"""A random run of all faults under load, short here and as long as wanted with `make chaos SECONDS=600`."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.faults.chaos import run_chaos
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.stack import Stack

SECONDS = 60.0 if os.environ.get("CI") else 20.0


@pytest.mark.timeout(SECONDS + 240)
async def test_random_faults_lose_nothing(stack: Stack, open_ledger: Callable[..., Ledger], seed: int) -> None:
    """Whatever is killed, frozen, cut, emptied or overloaded in whatever order: all that was accepted is there once,
    with its verdict, and everything recovers by itself; the drain takes a lease + 5 s, and what met no outage of
    Postgres or S3 is done within 3 leases (p99)."""
    found = await run_chaos(stack, open_ledger(patience_seconds=60), seconds=SECONDS, seed=seed)
    print("\n".join(found.lines()))
    assert found.violations == []
    assert found.accepted > SECONDS
    assert (found.lost, found.duplicated) == (0, 0)
    assert found.faults.total() >= SECONDS / 2.5 - 1
