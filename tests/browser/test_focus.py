"""Where the focus is after a page was shown or changed by itself: never lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests import photos
from tests.acceptance.stack import Stack
from tests.browser.visit import Visit, paused

pytestmark = pytest.mark.needs_chromium
Visits = Callable[..., Visit]


def test_a_photo_that_changes_keeps_the_focus(stack: Stack, visit: Visits) -> None:
    """By keyboard into a photo: its heading has the focus. When its preview comes, a focused control keeps it, in the
    gallery as well; when somebody deletes the photo, the heading that says so has it."""
    with paused(stack, "preview"):
        photo = stack.api.put("photos", "focus/kept.jpg", photos.make_jpeg(320, 240, seed=811, noise=5), wait=0)
        gallery = visit("read").goto("/?bucket=photos&prefix=focus/", "Photos")
        page = visit("read").goto("/?bucket=photos&prefix=focus/", "Photos")
        tile = gallery.locator(".tile a")
        tile.focus()
        page.locator(".tile a").focus()
        page.keyboard.press("Enter")
        heading = page.get_by_role("heading", level=1)
        expect(heading).to_have_text("kept.jpg")
        expect(page.get_by_role("region", name="In S3")).to_be_visible()
        expect(heading).to_be_focused()
        original = page.get_by_role("link", name="Original")
        while not original.evaluate("(link) => link === document.activeElement"):
            page.keyboard.press("Tab")
    expect(page.get_by_role("img", name="Preview of kept.jpg")).to_be_visible()
    expect(original).to_be_focused()
    expect(tile.locator("img")).to_have_count(1)
    expect(tile).to_be_focused()
    assert stack.api.request("DELETE", f"/v1/photos/{photo['id']}").status_code == 204
    expect(heading).to_have_text("There is no such photo")
    expect(heading).to_be_focused()


def test_a_page_that_had_to_be_fetched_has_the_focus(stack: Stack, visit: Visits) -> None:
    """A photo that no list has yet shown is opened by a link: once it is there, its heading has the focus."""
    photo = stack.api.put("photos", "focus/fetched.jpg", photos.make_jpeg(64, 48))
    page = visit("read").goto("/?bucket=photos&prefix=nothing/", "Photos")
    page.evaluate("(path) => document.querySelector('.brand').setAttribute('href', path)", f"/photos/{photo['id']}")
    page.locator(".brand").focus()
    page.keyboard.press("Enter")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text("fetched.jpg")
    expect(heading).to_be_focused()
