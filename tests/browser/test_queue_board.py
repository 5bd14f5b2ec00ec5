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


def job_id(photo: dict[str, Any], processor: str) -> int:
    return next(int(job["id"]) for job in photo["jobs"] if job["processor"] == processor)


def make_later(stack: Stack, *keys: str, seed: int) -> list[dict[str, Any]]:
    """Photos whose jobs are to be tried in an hour."""
    stack.wait_idle()
    with stack.worker_suspended():
        made = [
            stack.api.put("photos", key, photos.make_jpeg(320, 240, noise=5, seed=seed + number), wait=0)
            for number, key in enumerate(keys)
        ]
        later = "update job set run_at = now() + interval '1 hour' where state = 'ready'"
        run_apart(execute(stack.connection["postgres_dsn"], later))
    return made


def make_dead(stack: Stack, key: str, *, seed: int) -> dict[str, Any]:
    """A photo whose jobs gave up before they could do anything. They run well when they are replayed."""
    stack.wait_idle()
    with stack.worker_suspended():
        photo = stack.api.put("photos", key, photos.make_jpeg(320, 240, noise=5, seed=seed), wait=0)
        run_apart(execute(stack.connection["postgres_dsn"], _GIVE_UP % photo["id"]))
    assert stack.api.settle(photo["id"])["status"] == "partial"
    return photo


def test_a_killed_worker_is_gone_within_five_seconds(stack: Stack, visit: Visits) -> None:
    """The board says that a killed worker is gone within five seconds, also to who comes later, and shows the one that
    follows it."""
    pid = stack.worker()
    mine = visit("read")
    page = mine.goto("/queue", "Queue")
    worker = page.get_by_role("listitem").filter(has_text=f"pid {pid}")
    expect(worker).to_contain_text("Idle")
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    gone = page.locator(".worker.gone").filter(has_text=f"pid {pid}")
    expect(gone).to_contain_text("Gone", timeout=10_000)
    assert time.monotonic() - killed_at < 5
    expect(gone).to_contain_text("It did not say goodbye")
    page.reload()
    expect(gone).to_contain_text("Gone")
    fresh = stack.worker()
    expect(page.get_by_role("listitem").filter(has_text=f"pid {fresh}")).to_be_visible(timeout=30_000)
    mine.shoot("queue")


def test_a_stop_is_told_as_a_stop(stack: Stack, visit: Visits) -> None:
    """An idle worker that is told to stop is in the line of those that stopped, and is never shown as gone."""
    stack.wait_idle()
    pid = stack.worker()
    page = visit("read").goto("/queue", "Queue")
    expect(page.get_by_role("listitem").filter(has_text=f"pid {pid}")).to_contain_text("Idle")
    os.kill(pid, signal.SIGTERM)
    expect(page.get_by_text(re.compile(rf"Stopped as told: .*-{pid} "))).to_be_visible(timeout=10_000)
    fresh = stack.worker()
    expect(page.get_by_role("listitem").filter(has_text=f"pid {fresh}")).to_be_visible(timeout=30_000)
    expect(page.locator(".worker.gone").filter(has_text=f"pid {pid}")).to_have_count(0)


def test_the_board_counts_and_draws(stack: Stack, visit: Visits) -> None:
    """What each processor has done is counted, listed behind its number, and drawn over time."""
    photo = stack.api.put("photos", "board/counted.jpg", photos.make_jpeg(320, 240, seed=601, noise=5))
    stack.api.put("photos", "board/another.jpg", photos.make_jpeg(320, 240, seed=603, noise=5))
    page = visit("read").goto("/queue", "Queue")
    card = page.get_by_role("region", name="preview")
    done = stack.api.read("/v1/stats")["processors"]["preview"]["done"]
    expect(card.get_by_role("link", name=re.compile(rf"^{done} ?done$"))).to_be_visible()
    expect(card).to_contain_text(re.compile("ran for p50 .+, p95 .+, p99 .+; they had waited p50 .+, p95 .+, p99 "))
    expect(
        card.get_by_role("img", name=re.compile("^Jobs a minute over 60 minutes: now .+, at most [0-9.]+"))
    ).to_be_visible()
    card.get_by_role("link", name=re.compile("done$")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    page.get_by_role("searchbox", name="Search").fill("board/counted")
    listed = page.get_by_role("region", name="Jobs that match")
    entry = listed.locator("details.job").filter(has_text="photos/board/counted.jpg")
    expect(listed.locator("details.job")).to_have_count(1)
    entry.locator("summary").first.click()
    expect(entry.get_by_role("list", name="Attempts")).to_contain_text("Done")
    for said in ("image/jpeg", "version 1", "Duration", "Began", "Ended", f'"job_id": {job_id(photo, "preview")}'):
        expect(entry).to_contain_text(said)
    expect(entry.get_by_role("link", name="thumb")).to_have_attribute("href", re.compile("/previews/thumb$"))
    entry.get_by_role("link", name="photos/board/counted.jpg").click()
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
    expect(dialog.locator("code").filter(has_text=photo["id"])).to_have_text(photo["id"])
    expect(dialog).to_contain_text(f'"job_id": {job_id(photo, "preview")}')
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


def test_jobs_for_later_say_when_and_are_run_now(stack: Stack, visit: Visits) -> None:
    """The board counts them apart from due ones; the list says when they are due; one is run by itself, the rest after
    a dry run, and both are in the list of what was done."""
    (photo,) = make_later(stack, "later/run.jpg", seed=641)
    page = visit().goto("/queue", "Queue")
    card = page.get_by_role("region", name="preview")
    expect(card).to_contain_text("the next later one is due")
    card.get_by_role("link", name=re.compile("^1 ?later$")).click()
    listed = page.get_by_role("region", name="Jobs that match")
    entry = listed.locator("details.job").filter(has_text="photos/later/run.jpg")
    expect(entry).to_contain_text(re.compile(r"Later\s*due \d+ \w+ \d{4}, \d\d:\d\d:\d\d"))
    entry.locator("summary").first.click()
    entry.get_by_role("button", name="Run now").click()
    expect(page.get_by_text(f"Job {job_id(photo, 'preview')} was told to run now.")).to_be_visible()
    page.goto(stack.connection["http_url"] + "/jobs?state=later&search=later/run")
    page.get_by_role("button", name="Run all that match").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 job would be told to run now.")
    dialog.get_by_role("button", name="Run 1 job").click()
    expect(page.get_by_text("No job matches.").first).to_be_visible()
    assert stack.api.settle(photo["id"])["status"] == "ready"
    told = stack.api.read("/v1/actions", limit=2)["actions"]
    assert [(item["action"], item["jobs"]) for item in told] == [("promote", 1), ("promote", 1)]


def test_waiting_jobs_are_discarded_from_the_list(stack: Stack, visit: Visits) -> None:
    """All that match a search, counted first; the others stay; the discarded ones are counted and listed."""
    gone, stays = make_later(stack, "waits/gone.jpg", "waits/stays.jpg", seed=651)
    page = visit().goto("/jobs?state=ready", "Jobs")
    page.get_by_role("searchbox", name="Search").fill("waits/gone")
    expect(page.get_by_text("The newest 2; these are all.")).to_be_visible()
    page.get_by_role("button", name="Discard all that match").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why (kept with the jobs)").fill("not wanted")
    dialog.get_by_role("button", name="Discard 2 jobs").click()
    expect(page.get_by_text("2 jobs were discarded.")).to_be_visible()
    page.get_by_label("State").select_option("discarded")
    expect(page.get_by_role("region", name="Jobs that match").locator("details.job")).to_have_count(2)
    assert stack.api.settle(gone["id"])["status"] == "partial"
    assert {job["state"] for job in stack.api.read("/v1/jobs", photo_id=stays["id"])["jobs"]} == {"ready"}
    assert stack.api.post("/v1/jobs/promote", json={"filter": {"photo_id": stays["id"]}}).json()["changed"] == 2
    stack.api.settle(stays["id"])


def test_all_is_paused_and_resumed_from_the_board(stack: Stack, visit: Visits) -> None:
    """Pause all asks why, once for all of them; Resume all lets them run."""
    stack.wait_idle()
    page = visit().goto("/queue", "Queue")
    page.get_by_role("button", name="Pause all").click()
    page.get_by_label("Why (others will see it)").fill("moving house")
    page.get_by_role("dialog").get_by_role("button", name="Pause all processors").click()
    for name in ("exif", "preview"):
        expect(page.get_by_role("region", name=name)).to_contain_text("moving house")
    page.get_by_role("button", name="Resume all").click()
    for name in ("exif", "preview"):
        expect(page.get_by_role("region", name=name)).not_to_contain_text("Paused")


def test_the_board_tells_of_redis_and_turns(visit: Visits) -> None:
    """What Redis says of itself is shown to admins and to nobody else; when the gateway dispatches, to all."""
    mine = visit()
    page = mine.goto("/queue", "Queue")
    about = page.get_by_role("region", name="Redis")
    for said in ("Version", "Memory", "When full", "Append-only file", "Clients", "taken and not acknowledged"):
        expect(about).to_contain_text(said)
    expect(page.get_by_role("region", name="Turns")).to_contain_text(re.compile("Dispatch of due jobs.*next at"))
    page.get_by_role("region", name="Turns").scroll_into_view_if_needed()
    mine.shoot("queue-redis")
    page = visit("read").goto("/queue", "Queue")
    expect(page.get_by_role("region", name="Turns")).to_contain_text("Dispatch of due jobs")
    expect(page.get_by_role("region", name="Redis")).to_have_count(0)


def test_focus_stays_while_dead_letters_are_read_again(stack: Stack, visit: Visits) -> None:
    """A button of a group keeps the focus when its number changes, and gets it back from its dialog; and an address
    with a time that is none shows the page."""
    make_dead(stack, "focus/one.jpg", seed=661)
    page = visit().goto("/dead?search=focus/&processor=exif&since=x", "Dead letters")
    page.locator("details.group summary").first.click()
    button = page.get_by_role("button", name=re.compile("^Replay [0-9]"))
    button.focus()
    expect(button).to_have_text("Replay 1")
    make_dead(stack, "focus/two.jpg", seed=662)
    expect(button).to_have_text("Replay 2", timeout=30_000)
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("2 jobs would be replayed.")
    page.keyboard.press("Escape")
    expect(button).to_be_focused()


def test_more_groups_than_are_shown_are_told(visit: Visits) -> None:
    """Of a hundred and one groups the page shows the hundred largest, and says so."""
    mine = visit()
    groups = [
        {
            "processor": "exif",
            "error_code": f"code_{number}",
            "error_group": f"{number:012d}",
            "message": "It failed.",
            "jobs": 200 - number,
            "first_at": "2026-05-17T09:30:00Z",
            "last_at": "2026-05-17T09:30:00Z",
            "sample_job_ids": [1],
        }
        for number in range(101)
    ]
    mine.page.route("**/v1/jobs/groups*", lambda route: route.fulfill(json={"groups": groups}))
    answer = {"dry_run": True, "matched": 90_000, "changed": 0, "by_error": {}, "job_ids": []}
    mine.page.route("**/v1/jobs/replay", lambda route: route.fulfill(json=answer))
    page = mine.goto("/dead", "Dead letters")
    expect(page.get_by_text("90,000 dead letters, in more than 100 groups; the 100 largest are shown")).to_be_visible()
    expect(page.locator("details.group")).to_have_count(100)


def test_a_reader_sees_nothing_that_destroys(stack: Stack, visit: Visits) -> None:
    """With a read-only key no page has a button that changes anything, and each says why; an uploader has the one that
    uploads."""
    photo = make_dead(stack, "readers/one.jpg", seed=631)
    acting = re.compile("^(Replay|Discard|Run|Delete|Pause|Resume|Choose photos)")
    for scopes, allowed in (("read", set()), ("read,write", {"Choose photos"})):
        page = visit(scopes).page
        found: set[str] = set()
        for path, ready in (
            ("/", page.locator(".tile").first),
            (f"/photos/{photo['id']}", page.get_by_role("region", name="Jobs")),
            ("/queue", page.get_by_role("region", name="preview")),
            ("/jobs?state=dead", page.locator("details.job").first),
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
