"""Swagger UI as a person uses it, in a real browser that reaches nothing but this machine.

SCREENSHOTS_DIR names a folder for a picture of the page, for people to look at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests import photos
from tests.acceptance.stack import Stack
from tests.chromium import open_chromium, watch_abroad

pytestmark = pytest.mark.needs_chromium


class Visit:
    """A page of a browser, and what went wrong while it was looked at."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.left_this_machine = watch_abroad(page)
        self.complaints: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture
def visit() -> Iterator[Visit]:
    with open_chromium() as browser:
        yield Visit(browser.new_page(viewport={"width": 1280, "height": 1600}))


def authorize(page: Page, token: str) -> None:
    """Give the page a key; storages' token for the hook has a form of its own."""
    page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".modal-ux")
    form = dialog.locator("form").filter(has_text="key (http, Bearer)")
    form.locator("input").fill(token)
    form.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").last.click()


def test_a_photo_is_uploaded_from_swagger_ui(stack: Stack, visit: Visit, tmp_path: Path) -> None:
    """/docs renders from local files alone, takes the token, and its form uploads a photo: 201 with its id."""
    path = tmp_path / "beach.jpg"
    path.write_bytes(photos.make_jpeg())
    page = visit.page
    page.goto(f"{stack.connection['http_url']}/docs")
    expect(page.locator("h1.title, h2.title").first).to_contain_text("Safelight")
    described = [method for item in stack.api.read("/openapi.json")["paths"].values() for method in item]
    expect(page.locator(".opblock")).to_have_count(len(described))

    authorize(page, stack.connection["token"])

    block = page.locator("#operations-photos-post_photos")
    block.locator(".opblock-summary").click()
    block.get_by_role("button", name="Try it out").click()
    if block.locator("input[type=file]").count() == 0:
        block.get_by_role("button", name="Add").first.click()
    block.locator("input[type=file]").first.set_input_files(path)
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table")
    expect(answer.locator(".response-col_status").last).to_contain_text("201", timeout=30_000)
    expect(answer).to_contain_text("beach.jpg")

    shots = os.environ.get("SCREENSHOTS_DIR")
    if shots:
        page.screenshot(path=str(Path(shots) / "swagger-ui.png"), full_page=True)
    (stored, *_) = stack.api.read("/v1/photos", limit=1)["photos"]
    assert stored["filename"] == "beach.jpg"
    assert visit.left_this_machine == []
    assert visit.complaints == []


def test_a_wrong_token_is_told(stack: Stack, visit: Visit) -> None:
    """A request with a token that is wrong shows the problem that the gateway answers."""
    page = visit.page
    page.goto(f"{stack.connection['http_url']}/docs#/queue/get_stats")
    authorize(page, "SL000000000000000000.wrong")
    block = page.locator("#operations-queue-get_stats")
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table")
    expect(answer.locator(".response-col_status").last).to_contain_text("401", timeout=30_000)
    expect(answer).to_contain_text("unauthorized")
    assert visit.left_this_machine == []
