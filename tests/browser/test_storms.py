"""Very many events: the pages stay up to date, and ask the gateway no more than is needed for that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests import photos
from tests.acceptance.stack import Stack, wait_for
from tests.browser.visit import Visit

pytestmark = pytest.mark.needs_chromium
Visits = Callable[..., Visit]

# As live.js tells them; one every 20 ms, for as long as the page is open.
_STORM = """async (type) => {
  const { live } = await import(document.querySelector("link[href$='/live.js']").href);
  window.told = 0;
  window.since = performance.now();
  setInterval(() => {
    live.dispatchEvent(new CustomEvent("photo", { detail: { type, data: { photo_id: "none" } } }));
    window.told += 1;
  }, 20);
}"""


def _count_told(page: Page) -> int:
    told: int = page.evaluate("() => window.told")
    return told


def test_a_steady_stream_of_events_does_not_hold_up_the_gallery(stack: Stack, visit: Visits) -> None:
    """While events never pause, a photo that was stored appears all the same."""
    page = visit("read").goto("/?bucket=photos&prefix=storm/", "Photos")
    expect(page.get_by_text("No photo matches")).to_be_visible()
    page.evaluate(_STORM, "photo.ready")
    stack.api.put("photos", "storm/seen.jpg", photos.make_jpeg(64, 48))
    expect(page.get_by_role("link", name="seen.jpg", exact=True)).to_be_visible(timeout=15_000)


def test_many_dead_letters_are_counted_now_and_then(visit: Visits) -> None:
    """While jobs die all the time, the number beside the tab is asked for now and then: not never, not each time."""
    mine = visit("read")
    page = mine.goto("/", "Photos")
    expect(page.locator(".grid-foot")).not_to_contain_text("Loading")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/v1/stats") else None)
    page.evaluate(_STORM, "job.dead")
    wait_for(lambda: _count_told(page) >= 150, "150 events", seconds=60)
    seconds = page.evaluate("() => (performance.now() - window.since) / 1000")
    assert 1 <= len(asked) <= 2 + seconds / 0.3, (len(asked), seconds)
