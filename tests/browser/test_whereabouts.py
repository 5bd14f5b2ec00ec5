"""What the pages answer to who misses a preview or a photo: the gateway's own sentences, where it is missed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests import photos
from tests.acceptance.stack import Stack
from tests.browser.visit import Visit, paused

pytestmark = pytest.mark.needs_chromium
Visits = Callable[..., Visit]


def _look(page: Page, name: str) -> None:
    page.get_by_role("dialog").get_by_label("Bucket and key").fill(name)
    page.keyboard.press("Enter")


def test_a_photo_without_a_preview_says_why(stack: Stack, visit: Visits) -> None:
    """While previews are paused, the page of a photo that was dropped says so, by whom and what to do; once they run
    again, the preview is there and nothing is said."""
    mine = visit("read,write")
    page = mine.goto("/", "Photos")
    reason = page.get_by_role("region", name="Why")
    with paused(stack, "preview", "moving the storage"):
        mine.drop({"patient.jpg": photos.make_jpeg(320, 240, seed=801, noise=5)})
        page.get_by_role("list", name="Files").get_by_role("link", name="patient.jpg").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("patient.jpg")
        expect(reason).to_contain_text("Its processor is paused.")
        expect(reason).to_contain_text(re.compile(r"waits, made .+: preview was paused by up .+\(moving the storage\)"))
        expect(reason).to_contain_text("Let it run again: safelight jobs resume preview")
        mine.shoot("photo-paused")
    expect(page.get_by_role("img", name="Preview of patient.jpg")).to_be_visible()
    expect(reason).to_have_count(0)


def test_who_misses_a_photo_can_ask_for_it(stack: Stack, visit: Visits) -> None:
    """A key that never arrived is explained, with the one that is meant; that one leads to its page."""
    stack.api.put("photos", "asked/Beach.jpg", photos.make_jpeg(64, 48))
    mine = visit("read")
    page = mine.goto("/", "Photos")
    page.get_by_role("button", name="Where is my photo?").click()
    dialog = page.get_by_role("dialog", name="Where is my photo?")
    _look(page, "beach.jpg")
    expect(dialog).to_contain_text("Name the bucket too.")
    _look(page, "photos/asked/beach.jpg")
    expect(dialog).to_contain_text("Nothing was ever recorded or stored under that key.")
    expect(dialog).to_contain_text("Did you mean photos/asked/Beach.jpg?")
    expect(dialog.get_by_role("link", name="Show the photo")).to_have_count(0)
    mine.shoot("whereabouts")
    _look(page, "s3://photos/asked/Beach.jpg")
    expect(dialog).to_contain_text("Everything is done.")
    dialog.get_by_role("link", name="Show the photo").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Beach.jpg")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(dialog).to_have_count(0)


def test_what_lies_elsewhere_is_not_told_to_a_limited_key(stack: Stack, visit: Visits) -> None:
    """A key that is limited to a place asks about keys there; of others it learns only that it may not."""
    stack.api.put("photos", "elsewhere/secret.jpg", photos.make_jpeg(64, 48))
    mine = visit("read", place="photos/askers/")
    page = mine.goto("/", "Photos")
    page.locator(".empty").get_by_role("button", name="Where is my photo?").click()
    dialog = page.get_by_role("dialog")
    _look(page, "photos/askers/none.jpg")
    expect(dialog).to_contain_text("Nothing was ever recorded or stored under that key.")
    _look(page, "photos/elsewhere/secret.jpg")
    expect(dialog).to_contain_text("Your key is limited to photos/askers/")
    assert len(mine.take_complaints("404")) == 1
