"""A Safelight of these tests' own, and a browser that reaches nothing but this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.acceptance.stack import Stack
from tests.browser.visit import Visit
from tests.chromium import open_chromium


# Both end with this package: the browser's event loop would stand in the way of every asynchronous test after it.
@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(
        tmp_path_factory.mktemp("pages"),
        SAFELIGHT_LEASE_SECONDS="3",
        SAFELIGHT_SNOOZE_SECONDS="0.5",
        SAFELIGHT_RECONCILE_INTERVAL_SECONDS="0",  # originals that a test deletes are to be missed by the jobs
    )
    try:
        made.start()
        yield made
        made.stop()
    finally:
        made.end()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with open_chromium() as launched:
        yield launched


@pytest.fixture
def visit(stack: Stack, browser: Browser) -> Iterator[Any]:
    """Makes visits: `visit("read,write")` is signed in with a key of these scopes, `visit(None)` is a stranger. After
    the test, none may have left this machine, or have complained in its console."""
    made: list[Visit] = []

    def make(scopes: str | None = "read,write,admin", **options: Any) -> Visit:
        made.append(Visit(stack, browser, scopes, **options))
        return made[-1]

    yield make
    for item in made:
        item.context.close()
    for item in made:
        assert item.left_this_machine == []
        assert item.complaints == []
