"""Fixtures of the fault tests: servers and proxies of a module, and a Safelight of a test.

Everything runs on one event loop per module, because the proxies live as long as the module's servers.
"""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.harness.ground import Ground, open_ground
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.rates import Rate
from tests.faults.harness.stack import Stack, open_stack

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
_failed = pytest.StashKey[bool]()


def pytest_report_header() -> str:
    return f"fault tests: SEED={SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """This run's seed, other for each test; printed, and set by the environment variable SEED."""
    print(f"SEED={SEED}")
    return random.Random(f"{SEED}/{request.node.name}").randrange(1 << 32)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """The module's own servers, each behind a proxy."""
    async with open_ground(tmp_path_factory.mktemp("ground")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def stack(request: pytest.FixtureRequest, ground: Ground, tmp_path: Path) -> AsyncIterator[Stack]:
    """An empty Safelight without programs, on healed servers. What explains a failure is kept in tests/artifacts."""
    await ground.heal()
    async with open_stack(ground, tmp_path) as opened:
        yield opened
        if request.node.stash.get(_failed, True):
            print(f"kept: {await opened.save(request.node.name)}")


@pytest.fixture
def rate(stack: Stack, tmp_path: Path) -> Rate:
    """For a test that asserts that a fault costs no speed; asked for before its programs start."""
    return Rate(stack, tmp_path)


@pytest_asyncio.fixture(loop_scope="module")
async def open_ledger(stack: Stack, seed: int) -> AsyncIterator[Callable[..., Ledger]]:
    """Makes a ledger once the gateways run."""
    opened: list[Ledger] = []

    def make(**options: Any) -> Ledger:
        opened.append(Ledger(stack, seed=seed, **options))
        return opened[-1]

    yield make
    for ledger in opened:
        await ledger.close()
