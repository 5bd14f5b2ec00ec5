"""Photos in the browser: uploads that are dropped, a gallery that fills by itself, and what is known of a photo."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from playwright.sync_api import Route, expect

from tests import photos
from tests.acceptance.stack import Stack, wait_for
from tests.browser.visit import Visit
from tests.photos import Exif, Gps

pytestmark = pytest.mark.needs_chromium
Visits = Callable[..., Visit]
BUDGET_BYTES = 150_000


def test_a_stranger_signs_in_and_the_first_view_is_light(stack: Stack, visit: Visits) -> None:
    """The page tells where a key comes from, refuses a wrong one in words, opens for a right one, and weighs less than
    150 KB over the wire."""
    guest = visit(None)
    page = guest.page
    weights: list[float] = []
    devtools = guest.context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.on("Network.loadingFinished", lambda event: weights.append(event["encodedDataLength"]))
    guest.goto("/", "Safelight")
    expect(page.get_by_text("make up", exact=True)).to_be_visible()
    field, button = page.get_by_label("Your key"), page.get_by_role("button", name="Sign in")
    field.fill(stack.connection["access_key"] + ".not-the-secret-of-this-key")
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("opens nothing here")
    assert len(guest.take_complaints("401")) == 1
    field.fill(f" {stack.connection['token']} ")
    button.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Photos")
    expect(page.locator(".grid-foot")).not_to_contain_text("Loading")
    assert 10_000 < sum(weights) < BUDGET_BYTES, weights
    cookie = next(item for item in guest.context.cookies() if item["name"] == "safelight_session")
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    page.get_by_role("group").get_by_label("Signed in as up").click()
    page.get_by_role("button", name="Sign out").click()
    expect(field).to_be_visible()
    page.reload()
    expect(field).to_be_visible()


def test_twenty_photos_are_dropped_and_appear(stack: Stack, visit: Visits) -> None:
    """Twenty dropped photos have twenty progress bars, and then twenty previews, without a reload."""
    mine = visit("read,write")
    page = mine.goto("/", "Photos")
    page.evaluate("() => { window.marked = true; }")
    names = [f"drop-{number:02}.jpg" for number in range(20)]
    mine.drop({name: photos.make_jpeg(640, 480, noise=4, seed=at) for at, name in enumerate(names)})
    rows = page.get_by_role("list", name="Files")
    expect(rows.get_by_role("progressbar")).to_have_count(20)
    tiles = [page.get_by_role("link", name=name, exact=True).locator("img") for name in names]
    for tile in tiles:
        expect(tile).to_have_count(1, timeout=40_000)
    for tile in tiles:
        tile.scroll_into_view_if_needed()
    shown = "(image) => image.complete && image.naturalWidth > 0"
    wait_for(lambda: all(tile.evaluate(shown) for tile in tiles), "twenty previews are drawn")
    expect(rows.get_by_text("Ready")).to_have_count(20)
    assert page.evaluate("() => window.marked")
    mine.shoot("gallery")


def test_an_upload_is_tried_again_with_its_key(stack: Stack, visit: Visits) -> None:
    """A broken connection and a 503 cost a retry with the same Idempotency-Key, and leave one photo."""
    mine = visit("read,write")
    keys: list[str] = []

    def break_twice(route: Route) -> None:
        if route.request.method != "POST":
            return route.fallback()
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            return route.abort()
        if len(keys) == 2:
            return route.fulfill(status=503, headers={"Retry-After": "0"}, json={"code": "storage_unavailable"})
        return route.fallback()

    page = mine.goto("/", "Photos")
    page.route("**/v1/photos", break_twice)
    mine.drop({"again and again.jpg": photos.make_jpeg(320, 240, seed=501, noise=5)})
    expect(page.get_by_role("link", name="again and again.jpg").first).to_be_visible(timeout=30_000)
    assert (len(keys), len(set(keys))) == (3, 1)
    assert len(mine.take_complaints("Failed to load")) == 2
    stored = [item["filename"] for item in stack.api.read("/v1/photos", limit=200)["photos"]]
    assert stored.count("again and again.jpg") == 1


def test_what_is_no_photo_is_refused_in_words(visit: Visits) -> None:
    """A file that is no image fails with the gateway's reason and can be tried again; nothing else is held up by it."""
    mine = visit("read,write")
    page = mine.goto("/", "Photos")
    mine.drop({"notes.jpg": b"no image at all", "fine.jpg": photos.make_jpeg(320, 240, seed=502, noise=5)})
    rows = page.get_by_role("list", name="Files")
    expect(rows).to_contain_text("not an image")
    expect(rows.get_by_role("button", name="Try again: notes.jpg")).to_be_visible()
    expect(page.get_by_role("link", name="fine.jpg").first).to_be_visible()
    assert len(mine.take_complaints("415")) == 1


def test_empty_files_hold_up_nothing(visit: Visits) -> None:
    """As many empty files as go at a time are refused in words, and the good one behind them is stored."""
    mine = visit("read,write")
    page = mine.goto("/", "Photos")
    empty = {f"empty-{number}.jpg": b"" for number in range(3)}
    mine.drop({**empty, "after-empty.jpg": photos.make_jpeg(320, 240, seed=505, noise=5)})
    rows = page.get_by_role("list", name="Files")
    expect(rows.get_by_text("The file is empty.")).to_have_count(3)
    expect(rows).to_contain_text("Ready")
    expect(page.get_by_role("link", name="after-empty.jpg", exact=True).first).to_be_visible()


def test_who_may_not_upload_is_told_at_the_drop(visit: Visits) -> None:
    """With a key that may only read, dropped photos are refused in words that are seen, and nothing is sent."""
    mine = visit("read")
    page = mine.goto("/queue", "Queue")
    mine.drop({"unwanted.jpg": photos.make_jpeg(64, 48)})
    expect(page.locator(".toast")).to_contain_text("it lacks the scope write")
    expect(page.get_by_role("list", name="Files")).to_have_count(0)


def test_a_rejected_photo_says_why(stack: Stack, visit: Visits) -> None:
    """A damaged photo is shown as rejected, with the reason, in the gallery and on its page."""
    whole = photos.make_jpeg(640, 480, noise=10, seed=503)
    (photo,) = stack.api.post("/v1/photos", files={"file": ("damaged.jpg", whole[:700] + bytes(900))}).json()["photos"]
    assert stack.api.settle(photo["id"])["status"] == "rejected"
    reason = stack.api.read(f"/v1/photos/{photo['id']}")["rejection"]["detail"]
    page = visit("read").goto("/?status=rejected", "Photos")
    page.get_by_role("link", name=re.compile(r"Rejected damaged\.jpg .+")).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("damaged.jpg")
    expect(page.get_by_text(reason).first).to_be_visible()


def test_a_photo_is_shown_with_its_facts(stack: Stack, visit: Visits) -> None:
    """Exposure, camera, time, a map, keys in S3 and every attempt are there, in words that photographers use."""
    exif = Exif(offset="+02:00", exposure=Fraction(1, 320), gps=Gps(latitude=-33.8568, longitude=151.2153))
    data = photos.make_jpeg(900, 600, exif=exif, noise=5)
    photo = stack.api.put("photos", "harbour/opera.jpg", data)
    page = visit("read").goto(f"/photos/{photo['id']}", "opera.jpg")
    for text in ("1/320 s", "f/2.8", "ISO 400", "Lumen Q2", "5 Jun 2021, 14:03:02 (UTC+02:00)", "5 Jun 2021, 12:03:02"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    expect(page.get_by_role("img", name=re.compile(r"33\.8568° S, 151\.2153° E"))).to_be_visible()
    expect(page.get_by_text("derived/photos/harbour/opera.jpg/thumb.webp")).to_be_visible()
    page.get_by_text("About the file").click()
    expect(page.get_by_text(photo["request_id"], exact=True)).to_be_visible()  # as JSON logs have it
    page.get_by_role("region", name="Jobs").locator("summary").first.click()
    expect(page.get_by_role("list", name="Attempts").get_by_role("listitem")).to_have_count(1)
    with page.expect_download() as downloading:
        page.get_by_role("link", name=re.compile("Original")).click()
    assert downloading.value.path().read_bytes() == data


def test_a_photo_is_deleted_after_a_question(stack: Stack, visit: Visits) -> None:
    """Delete asks first; cancelled it does nothing, confirmed the photo is gone from page and storage. It is offered
    to keys with the admin scope alone."""
    photo = stack.api.put("photos", "short/lived.jpg", photos.make_jpeg(320, 240))
    other = visit("read,write").goto(f"/photos/{photo['id']}", "lived.jpg")
    expect(other.get_by_role("link", name=re.compile("Original"))).to_be_visible()
    expect(other.get_by_role("button", name="Delete")).to_have_count(0)
    page = visit().goto(f"/photos/{photo['id']}", "lived.jpg")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Cancel").click()
    assert stack.api.get(f"/v1/photos/{photo['id']}").status_code == 200
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete the photo").click()
    expect(page.get_by_text("lived.jpg was deleted.")).to_be_visible()
    assert stack.api.get(f"/v1/photos/{photo['id']}").status_code == 404
    assert stack.list_keys("photos", "short/") == []


def test_coming_back_to_the_gallery_is_coming_back_to_the_place(stack: Stack, visit: Visits) -> None:
    """Far down in an endless list, a photo is opened and left again: the list is where it was. Where the first page
    does not fill the window, the next follows by itself."""
    small = photos.make_jpeg(64, 48)
    for number in range(75):
        stack.api.put("photos", f"many/{number:03}.jpg", small, wait=0)
    wide = visit("read").page
    wide.set_viewport_size({"width": 1600, "height": 3000})
    wide.goto(f"{stack.connection['http_url']}/?bucket=photos&prefix=many/")
    expect(wide.locator(".tile")).to_have_count(75)
    page = visit("read").goto("/?bucket=photos&prefix=many/", "Photos")
    tile = page.get_by_role("link", name=re.compile(r"003\.jpg$"))
    wait_for(
        lambda: page.evaluate("() => { scrollTo(0, document.body.scrollHeight); }") or tile.count(), "the second page"
    )
    tile.scroll_into_view_if_needed()
    tile.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("003.jpg")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("heading", level=1)).to_have_text("004.jpg")
    page.get_by_role("link", name="Back to the photos").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Photos")
    expect(tile).to_be_in_viewport()
    page.go_back()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Photos")
    expect(tile).to_be_in_viewport()


def test_without_a_stream_the_gallery_polls(stack: Stack, visit: Visits) -> None:
    """Where server-sent events cannot be had, a photo that somebody else stores appears all the same."""
    mine = visit("read")
    mine.page.route("**/v1/events*", lambda route: route.fulfill(status=404, json={}))
    page = mine.goto("/?bucket=photos&prefix=polled/", "Photos")
    expect(page.get_by_text("No photo matches")).to_be_visible()
    expect(page.get_by_role("img", name="Looking every few seconds")).to_be_visible()
    stack.api.put("photos", "polled/one.jpg", photos.make_jpeg(320, 240))
    expect(page.get_by_role("link", name="one.jpg", exact=True)).to_be_visible(timeout=10_000)
    assert mine.take_complaints("404")


def test_the_keyboard_is_enough(stack: Stack, visit: Visits) -> None:
    """The first Tab offers to skip to the content; after a link is followed, the new page's heading has the focus."""
    page = visit("read").goto("/", "Photos")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to content"
    page.get_by_role("link", name="Queue").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Queue")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("link", name="Queue")).to_have_attribute("aria-current", "page")


def test_filters_narrow_the_list_and_can_be_shared(stack: Stack, visit: Visits) -> None:
    """Camera and time narrow the list as one types, stand in the address, and are undone by Clear."""
    for name, camera, taken in (
        ("old", "Lumen M1", "2019-03-04T10:00:00"),
        ("new", "Borealis X", "2024-08-09T10:00:00"),
    ):
        exif = Exif(make=None, model=camera, taken_at=taken)
        stack.api.put("photos", f"filtered/{name}.jpg", photos.make_jpeg(320, 240, exif=exif, noise=5))
    mine = visit("read")
    page = mine.goto("/?bucket=photos&prefix=filtered/", "Photos")
    old, new = (page.get_by_role("link", name=name, exact=True) for name in ("old.jpg", "new.jpg"))
    expect(old).to_be_visible()
    expect(page.get_by_label("Bucket and prefix")).to_have_value("photos/filtered/")
    page.get_by_label("Camera").fill("borealis")
    expect(old).to_have_count(0)
    expect(new).to_be_visible()
    expect(page).to_have_url(re.compile("camera=borealis"))
    page.get_by_label("Camera").fill("")
    page.get_by_label("Taken until").fill("2019-03-04")
    expect(new).to_have_count(0)
    expect(old).to_be_visible()
    page.reload()
    expect(old).to_be_visible()
    expect(page.get_by_label("Taken until")).to_have_value("2019-03-04")
    page.get_by_label("Taken until").fill("2019-03-03")
    expect(page.get_by_text("No photo matches")).to_be_visible()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page).to_have_url(f"{mine.url}/")
    expect(new).to_be_visible()


def test_a_limited_key_uploads_into_its_place(stack: Stack, visit: Visits) -> None:
    """Whose key is limited to a place sees that place alone, uploads into it under the file's name, and is told that
    the queue is not for them."""
    stack.api.put("photos", "elsewhere/hidden.jpg", photos.make_jpeg(64, 48))
    mine = visit("read,write", place="photos/guests/")
    page = mine.goto("/", "Photos")
    expect(page.get_by_text("No photos yet")).to_be_visible()
    mine.drop({"mine.jpg": photos.make_jpeg(320, 240, noise=5, seed=504)})
    expect(page.locator(".tile")).to_have_count(1)
    expect(page.get_by_role("list", name="Files")).to_contain_text("Ready")
    assert stack.list_keys("photos", "guests/") == ["guests/mine.jpg"]
    mine.goto("/queue", "Queue")
    expect(page.get_by_text("The queue is for keys that are not limited.")).to_be_visible()


def test_a_revoked_key_shows_the_sign_in_again(stack: Stack, visit: Visits) -> None:
    """Once the key is revoked the page hides what it showed and asks for a key."""
    mine = visit("read")
    page = mine.goto("/queue", "Queue")
    expect(page.get_by_role("region", name="preview")).to_be_visible()
    stack.run("keys", "revoke", mine.key["access_key"])
    expect(page.get_by_text("Your session has ended.")).to_be_visible(timeout=10_000)
    expect(page.get_by_role("region", name="preview")).to_have_count(0)
    mine.take_complaints("401")
