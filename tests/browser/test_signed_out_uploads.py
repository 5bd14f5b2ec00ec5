"""The list of uploads belongs to who sends them: nobody else sees a name, and nothing goes on for who has left."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests import photos
from tests.acceptance.stack import Stack, wait_for
from tests.browser.visit import Visit

pytestmark = pytest.mark.needs_chromium
Visits = Callable[..., Visit]


def _sign_in(page: Page, token: str) -> None:
    page.get_by_label("Your key").fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Photos")


def test_signing_out_ends_the_uploads(stack: Stack, visit: Visits) -> None:
    """What was being sent is cut off, what waited is never sent, and the next person sees none of the names."""
    mine = visit("read,write")
    sent: list[str] = []
    cut: list[str] = []

    def hold(route: Route) -> None:
        if route.request.method != "POST":
            return route.fallback()
        sent.append(re.findall(r'filename="([^"]+)"', (route.request.post_data_buffer or b"").decode("latin-1"))[0])
        return None if sent[-1].startswith("private") else route.fallback()

    page = mine.goto("/", "Photos")
    page.on("requestfailed", lambda request: cut.append(request.url) if request.method == "POST" else None)
    page.route("**/v1/photos", hold)
    mine.drop({f"private-{number}.jpg": photos.make_jpeg(64, 48, seed=820 + number) for number in range(5)})
    wait_for(lambda: page.evaluate("() => 1") and len(sent) == 3, "three are being sent")
    page.get_by_label("Signed in as guest").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your key")).to_be_visible()
    expect(page.get_by_text("Your session has ended.")).to_have_count(0)
    wait_for(lambda: page.evaluate("() => 1") and len(cut) == 3, "they are cut off")
    _sign_in(page, stack.connection["token"])
    expect(page.get_by_text("private-")).to_have_count(0)
    mine.drop({"mine.jpg": photos.make_jpeg(320, 240, seed=829, noise=5)})
    expect(page.get_by_role("list", name="Files")).to_contain_text("Ready")
    assert len(sent) == 4, sent
    assert sent[-1] == "mine.jpg"


def test_a_session_that_ends_hides_the_uploads(stack: Stack, visit: Visits) -> None:
    """Where the session ended by itself, the list is there again for the same key, and gone for another."""
    mine = visit("read,write")
    page = mine.goto("/", "Photos")
    mine.drop({"tax return.jpg": photos.make_jpeg(320, 240, seed=830, noise=5)})
    files = page.get_by_role("list", name="Files")
    expect(files).to_contain_text("Ready")
    for token, seen in ((f"{mine.key['access_key']}.{mine.key['secret_key']}", 1), (stack.connection["token"], 0)):
        _end_session(mine)
        expect(page.get_by_text("Your session has ended.")).to_be_visible(timeout=30_000)
        expect(page.get_by_text("tax return.jpg")).not_to_be_visible()
        _sign_in(page, token)
        expect(files).to_have_count(seen)
    mine.take_complaints("401")


def _end_session(mine: Visit) -> None:
    csrf = mine.context.request.get(f"{mine.url}/v1/session").json()["csrf_token"]
    answer = mine.context.request.delete(f"{mine.url}/v1/session", headers={"X-CSRF-Token": csrf})
    assert answer.status == 204
