"""Every page for everybody: what axe-core finds serious, in dark and light, on a desk and on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import pytest
from playwright.sync_api import expect

from tests import photos
from tests.acceptance.stack import Stack
from tests.browser.test_queue_board import make_dead
from tests.browser.visit import Visit, paused
from tests.photos import Exif, Gps

pytestmark = pytest.mark.needs_chromium


@pytest.fixture(scope="module")
def shown(stack: Stack) -> dict[str, Any]:
    """A photo with everything, a rejected one and a dead letter."""
    exif = Exif(offset="+02:00", gps=Gps(), description="A pier")
    photo = stack.api.put("photos", "axe/pier.jpg", photos.make_jpeg(640, 480, exif=exif, noise=5))
    whole = photos.make_jpeg(640, 480, noise=10, seed=701)
    rejected = stack.api.put("photos", "axe/damaged.jpg", whole[:700] + bytes(900))
    make_dead(stack, "axe/dead.jpg", seed=702)
    return {"photo": photo["id"], "rejected": rejected["id"]}


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
@pytest.mark.parametrize("colours", ["dark", "light"])
def test_axe_finds_no_serious_fault(
    stack: Stack,
    shown: dict[str, Any],
    visit: Callable[..., Visit],
    colours: Literal["dark", "light"],
    phone: bool,
) -> None:
    """Sign-in, gallery with its filter and uploads, photos, queue and jobs with a dialog, dead letters with an open
    group."""
    kind = f"{colours}-{'phone' if phone else 'desk'}"
    guest = visit(None, colours=colours, phone=phone)
    guest.goto("/", "Safelight")
    guest.shoot(f"sign-in-{kind}")
    assert guest.faults() == []

    mine = visit(colours=colours, phone=phone)
    page = mine.goto("/", "Photos")
    page.get_by_role("button", name="Filter").click()
    mine.drop({f"axe-{kind}.jpg": photos.make_jpeg(320, 240, noise=5, seed=703)})
    expect(page.get_by_role("list", name="Files")).to_contain_text("Ready")
    mine.shoot(f"gallery-{kind}")
    assert mine.faults() == []

    mine.goto(f"/photos/{shown['photo']}", "pier.jpg")
    expect(page.get_by_role("img", name=re.compile("map of the world"))).to_be_visible()
    page.get_by_role("region", name="Jobs").locator("summary").first.click()
    expect(page.get_by_role("list", name="Attempts")).to_be_visible()
    mine.shoot(f"photo-{kind}")
    assert mine.faults() == []
    mine.goto(f"/photos/{shown['rejected']}", "damaged.jpg")
    expect(page.get_by_role("region", name="Why")).to_contain_text("The photo itself is at fault.")
    mine.shoot(f"rejected-{kind}")
    assert mine.faults() == []

    mine.goto("/queue", "Queue")
    expect(page.get_by_role("img", name=re.compile("^Run time")).first).to_be_visible()
    mine.shoot(f"queue-{kind}")
    assert mine.faults() == []
    page.get_by_role("button", name="Pause preview").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert mine.faults() == []

    mine.goto("/jobs?search=axe/", "Jobs")
    page.locator("details.job summary").first.click()
    expect(page.get_by_role("list", name="Attempts")).to_be_visible()
    mine.shoot(f"jobs-{kind}")
    assert mine.faults() == []
    page.get_by_label("State").select_option("dead")
    page.get_by_role("button", name="Replay all that match").click()
    expect(page.get_by_role("dialog")).to_contain_text("would be replayed")
    assert mine.faults() == []

    mine.goto("/dead", "Dead letters")
    page.locator("details.group summary").first.click()
    page.get_by_role("checkbox").first.check()
    mine.shoot(f"dead-{kind}")
    assert mine.faults() == []
    page.get_by_role("button", name="Replay selected").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert mine.faults() == []


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
@pytest.mark.parametrize("colours", ["dark", "light"])
def test_axe_finds_no_serious_fault_where_something_is_missing(
    stack: Stack,
    visit: Callable[..., Visit],
    colours: Literal["dark", "light"],
    phone: bool,
) -> None:
    """An empty gallery, the question after a photo and its answer, why a photo has no preview, a failed upload, and
    a gallery whose gateway fails."""
    kind = f"{colours}-{'phone' if phone else 'desk'}"
    mine = visit("read,write", place=f"photos/axe-{kind}/", colours=colours, phone=phone)
    page = mine.goto("/", "Photos")
    expect(page.get_by_text("No photos yet")).to_be_visible()
    mine.shoot(f"empty-{kind}")
    assert mine.faults() == []

    page.locator(".empty").get_by_role("button", name="Where is my photo?").click()
    page.get_by_label("Bucket and key").fill(f"photos/axe-{kind}/none.jpg")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Nothing was ever recorded")
    mine.shoot(f"whereabouts-{kind}")
    assert mine.faults() == []
    page.keyboard.press("Escape")

    with paused(stack, "preview", "moving the storage"):
        mine.drop({"late.jpg": photos.make_jpeg(320, 240, noise=5, seed=704), "empty.jpg": b""})
        expect(page.locator(".tile")).to_have_count(1)
        mine.shoot(f"failed-upload-{kind}")
        assert mine.faults() == []
        page.locator(".tile a").click()
        expect(page.get_by_role("region", name="Why")).to_contain_text("paused")
        page.get_by_role("button", name="Close the list of uploads").click()
        mine.shoot(f"photo-paused-{kind}")
        assert mine.faults() == []

    mine.goto(f"/?status=partial&bucket=photos&prefix=axe-{kind}/", "Photos")
    expect(page.get_by_text("No photo matches")).to_be_visible()
    mine.shoot(f"no-match-{kind}")
    assert mine.faults() == []
    page.route(
        "**/v1/photos?*", lambda route: route.fulfill(status=503, json={"title": "Postgres is away.", "code": "x"})
    )
    page.reload()
    expect(page.get_by_text("The photos cannot be shown.")).to_be_visible()
    mine.shoot(f"cannot-be-shown-{kind}")
    assert mine.faults() == []
    page.goto(f"{mine.url}/healthz")  # where nothing is asked for again
    assert mine.take_complaints("503")
