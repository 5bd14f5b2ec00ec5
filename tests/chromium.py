"""The browser of the tests: headless Chromium as it is installed, and pages that reach nothing but this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from tests.conftest import find_tool


@contextmanager
def open_chromium() -> Iterator[Browser]:
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_tool("needs_chromium"), args=arguments)
        yield browser
        browser.close()


def keep_here(pages: Page | BrowserContext) -> list[str]:
    """Stop every request that would leave this machine. The list that is returned fills with their URLs."""
    stopped: list[str] = []

    def let_through(route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.scheme in ("data", "blob") or url.hostname == "127.0.0.1":
            route.fallback()
        else:
            stopped.append(route.request.url)
            route.abort()

    pages.route("**/*", let_through)
    return stopped
