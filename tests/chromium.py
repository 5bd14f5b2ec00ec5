"""The browser of the tests: headless Chromium as it is installed, and pages that reach nothing but this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.conftest import find_tool

# The browser itself finds nothing elsewhere, whoever in it asks. Taking every request into a test's own hands instead
# (`route`) holds each of them up until the test has answered, and on a busy machine some of them for long.
_NOTHING_ELSEWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
_SECONDS = 20  # for what is expected of a page: the machine may have much else to do

expect.set_options(timeout=_SECONDS * 1000)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    arguments = [_NOTHING_ELSEWHERE, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_tool("needs_chromium"), args=arguments)
        yield browser
        browser.close()


def watch_abroad(pages: Page | BrowserContext) -> list[str]:
    """The list that is returned fills with the URLs of requests that would leave this machine."""
    asked: list[str] = []

    def look(request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.hostname != "127.0.0.1":
            asked.append(request.url)

    pages.on("request", look)
    return asked
