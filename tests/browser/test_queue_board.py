"""The queue board and the dead letters in the browser: who works, what gave up, and what people may do about it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests import photos
from tests.acceptance.stack import Stack, wait_for
from tests.browser.visit import Visit
from tests.servers import execute, run_apart

pytestmark = pytest.mark.needs_chromium
Visits = Callable[..., Visit]


# As the runner writes it, so that no fault of the storage is needed: what deletes an original is told by its events.
_GIVE_UP = """
with given_up as (
  update job set state = 'dead', finished_at = now(), started_at = now(), attempt = max_attempts, token = 1,
    error_code = 'storage_refused', error_group = '5afe115afe11',
    error = '{"code": "storage_refused", "detail": "The storage refused the object."}'
  where object_id = '%s' returning id, processor, error, object_id
), attempts as (
  insert into job_attempt (job_id, token, processor, worker, ended_at, outcome, error_code, error)
  select id, 1, processor, 'elsewhere-1-abcdef', now(), 'dead', 'storage_refused', error from given_up
)
update object set status = 'partial', settled_at = now() where id in (select object_id from given_up)
"""


def make_dead(stack: Stack, key: str, *, seed: int) -> dict[str, Any]:
    """A photo whose jobs gave up before they could do anything. They run well when they are replayed."""
    stack.wait_idle()
    with stack.worker_suspended():
        photo = stack.api.put("photos", key, photos.make_jpeg(320, 240, noise=5, seed=seed), wait=0)
        run_apart(execute(stack.connection["postgres_dsn"], _GIVE_UP % photo["id"]))
    assert stack.api.settle(photo["id"])["status"] == "partial"
    return photo


def test_a_killed_worker_is_gone_within_five_seconds(stack: Stack, visit: Visits) -> None:
    """The board says that a killed worker is gone within five seconds, and shows the one that follows it."""
    pid = stack.worker()
    mine = visit("read")
    page = mine.goto("/queue", "Queue")
    worker = page.get_by_role("listitem").filter(has_text=f"pid {pid}")
    expect(worker).to_contain_text("Idle")
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    expect(page.locator(".worker.gone")).to_contain_text("Gone", timeout=10_000)
    assert time.monotonic() - killed_at < 5
    fresh = stack.worker()
    expect(page.get_by_role("listitem").filter(has_text=f"pid {fresh}")).to_be_visible(timeout=30_000)
    mine.shoot("queue")


def test_the_board_counts_and_draws(stack: Stack, visit: Visits) -> None:
    """What each processor has done is counted, listed behind its number, and drawn over time."""
    photo = stack.api.put("photos", "board/counted.jpg", photos.make_jpeg(320, 240, seed=601, noise=5))
    stack.api.put("photos", "board/another.jpg", photos.make_jpeg(320, 240, seed=603, noise=5))
    page = visit("read").goto("/queue", "Queue")
    card = page.get_by_role("region", name="preview")
    done = stack.api.read("/v1/stats")["processors"]["preview"]["done"]
    expect(card.get_by_role("button", name=re.compile(rf"^{done} ?done$"))).to_be_visible()
    expect(
        card.get_by_role("img", name=re.compile("^Jobs a minute over 60 minutes: now .+, at most [0-9.]+"))
    ).to_be_visible()
    card.get_by_role("button", name=re.compile("done$")).click()
    dialog = page.get_by_role("dialog", name="preview: done")
    dialog.get_by_role("searchbox", name="Search").fill("board/counted")
    entry = dialog.locator("details").filter(has_text="photos/board/counted.jpg")
    expect(dialog.locator("details")).to_have_count(1)
    entry.locator("summary").first.click()
    expect(entry.get_by_role("list", name="Attempts")).to_contain_text("Done")
    entry.get_by_role("link", name="Show the photo").click()
    expect(page).to_have_url(re.compile(photo["id"]))


def test_dependencies_say_since_when_they_are_away(stack: Stack, visit: Visits) -> None:
    """What the gateway says of its dependencies is on the board, with the time and what it means for uploads."""
    mine = visit("read")
    since = "2026-05-17T09:30:00Z"
    state = {
        "ready": False,
        "dependencies": {
            "postgres": {"up": True, "required": True, "down_since": None},
            "s3": {"up": False, "required": True, "down_since": since},
            "redis": {"up": False, "required": False, "down_since": since},
        },
    }
    mine.page.route("**/readyz", lambda route: route.fulfill(status=503, json=state))
    page = mine.goto("/queue", "Queue")
    items = page.get_by_role("listitem")
    expect(items.filter(has_text="S3")).to_contain_text(re.compile(r"Down.*since 17 May 2026.*uploads are refused"))
    expect(items.filter(has_text="Redis")).to_contain_text(re.compile(r"Down.*since 17 May 2026.*uploads go on"))
    expect(items.filter(has_text="Postgres")).to_contain_text("Up")
    mine.take_complaints("503")


def test_a_processor_is_paused_and_resumed(stack: Stack, visit: Visits) -> None:
    """Pause asks why and tells others; jobs wait meanwhile, and run after Resume."""
    stack.wait_idle()
    page = visit().goto("/queue", "Queue")
    card = page.get_by_role("region", name="exif")
    card.get_by_role("button", name="Pause exif").click()
    page.get_by_label("Why (others will see it)").fill("a new camera")
    page.get_by_role("dialog").get_by_role("button", name="Pause exif").click()
    expect(card).to_contain_text("Paused by guest")
    expect(card).to_contain_text("a new camera")
    photo = stack.api.put("photos", "paused/one.jpg", photos.make_jpeg(320, 240, seed=602, noise=5), wait=0)

    def states() -> dict[str, str]:
        jobs = stack.api.read(f"/v1/photos/{photo['id']}")["jobs"]
        return {item["processor"]: item["state"] for item in jobs}

    wait_for(lambda: states()["preview"] == "done", "the preview is made")
    assert states()["exif"] == "ready"
    card.get_by_role("button", name="Resume exif").click()
    expect(card).not_to_contain_text("Paused")
    assert stack.api.settle(photo["id"])["status"] == "ready"


def test_a_dead_job_is_replayed_from_the_page(stack: Stack, visit: Visits) -> None:
    """Dead letters are found by their key, looked into, counted by a dry run, replayed, and in the list of what was
    done; their photo becomes ready."""
    photo = make_dead(stack, "dead/replayed.jpg", seed=611)
    other = make_dead(stack, "dead/other.jpg", seed=612)
    mine = visit()
    page = mine.goto("/dead", "Dead letters")
    page.get_by_role("searchbox", name="Search").fill("dead/replayed")
    expect(page.get_by_role("button", name="Replay these 2")).to_be_visible()
    group = page.locator("details.group").filter(has_text="preview").filter(has_text="storage_refused")
    group.locator("summary").first.click()
    expect(group).to_contain_text("photos/dead/replayed.jpg")
    expect(group).not_to_contain_text("other.jpg")
    group.get_by_role("button", name=re.compile("^Inspect")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"photo_id={photo['id']}")
    expect(dialog.get_by_role("list", name="Attempts")).to_contain_text("Gave up")
    mine.shoot("inspect")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Replay these 2").click()
    expect(dialog).to_contain_text("2 jobs would be replayed.")
    assert len(stack.api.read("/v1/jobs", state="dead", photo_id=photo["id"])["jobs"]) == 2
    dialog.get_by_label("Why (kept with the jobs)").fill("the storage takes it again")
    dialog.get_by_role("button", name="Replay 2 jobs").click()
    expect(page.get_by_text("2 jobs were replayed.")).to_be_visible()
    assert stack.api.settle(photo["id"])["status"] == "ready"
    expect(page.get_by_text("No dead letter matches")).to_be_visible()
    expect(page.get_by_role("region", name="What was done")).to_contain_text("Replay 2 jobs")
    expect(page.get_by_role("region", name="What was done")).to_contain_text("the storage takes it again")
    assert len(stack.api.read("/v1/jobs", state="dead", photo_id=other["id"])["jobs"]) == 2


def test_selected_dead_jobs_are_discarded(stack: Stack, visit: Visits) -> None:
    """Of two dead letters the selected one is discarded; the other one stays."""
    first = make_dead(stack, "picked/first.jpg", seed=621)
    second = make_dead(stack, "picked/second.jpg", seed=622)
    page = visit().goto("/dead?search=picked/&processor=exif", "Dead letters")
    page.locator("details.group summary").first.click()
    page.get_by_label(re.compile("Select job .* of picked/first.jpg")).check()
    page.get_by_role("button", name="Discard selected").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard 1 job").click()
    expect(page.get_by_text("1 job was discarded.")).to_be_visible()
    assert [job["state"] for job in stack.api.read("/v1/jobs", photo_id=first["id"], processor="exif")["jobs"]] == [
        "discarded"
    ]
    assert [job["state"] for job in stack.api.read("/v1/jobs", photo_id=second["id"], processor="exif")["jobs"]] == [
        "dead"
    ]


def test_a_reader_sees_nothing_that_destroys(stack: Stack, visit: Visits) -> None:
    """With a read-only key no page has a button that changes anything, and each says why; an uploader has those of
    photos alone."""
    photo = make_dead(stack, "readers/one.jpg", seed=631)
    acting = re.compile("^(Replay|Discard|Delete|Pause|Resume|Choose photos)")
    for scopes, allowed in (("read", set()), ("read,write", {"Choose photos", "Delete"})):
        page = visit(scopes).page
        found: set[str] = set()
        for path, ready in (
            ("/", page.locator(".tile").first),
            (f"/photos/{photo['id']}", page.get_by_role("region", name="Jobs")),
            ("/queue", page.get_by_role("region", name="preview")),
            ("/dead", page.locator("details.group").first),
        ):
            page.goto(stack.connection["http_url"] + path)
            expect(ready).to_be_visible()
            for summary in page.locator("main details > summary").all():
                summary.click()
            found |= {text.strip() for text in page.get_by_role("button", name=acting).all_inner_texts()}
            expect(page.locator("input[type=checkbox]")).to_have_count(0)
        assert found == allowed
        expect(page.get_by_text("Replaying and discarding need a key with the admin scope.")).to_be_visible()
