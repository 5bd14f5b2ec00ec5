"""The queue board of a running Safelight: pauses that hold across restarts, trends, groups, and who did what."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests import photos
from tests.acceptance.stack import Api, Stack, wait_for


@pytest.fixture
def paused_exif(stack: Stack, api: Api) -> Iterator[dict[str, Any]]:
    """What pausing exif answered; it runs again afterwards."""
    stack.wait_idle()
    answer = api.post("/v1/processors/exif/pause", json={"note": "camera database is wrong"})
    assert answer.status_code == 200, answer.text
    yield answer.json()
    assert api.post("/v1/processors/exif/resume").status_code == 200
    stack.wait_idle()


def states(api: Api, photo: dict[str, Any]) -> dict[str, str]:
    return {job["processor"]: job["state"] for job in api.read(photo["links"]["self"])["jobs"]}


def test_a_paused_processor_waits_through_a_restart(
    stack: Stack, api: Api, bucket: str, paused_exif: dict[str, Any]
) -> None:
    """Uploads go on and the other processor runs; a new worker leaves the paused one alone as well, and so does one
    that finds its ids in Redis; resumed, its jobs run at once and lost no attempt."""
    assert (paused_exif["changed"], paused_exif["paused"]["note"]) == (True, "camera database is wrong")
    photo = api.put(bucket, "a.jpg", photos.make_jpeg(), wait=0)
    wait_for(lambda: states(api, photo) == {"preview": "done", "exif": "ready"}, "the other one is done")
    again = api.post("/v1/processors/exif/pause", json={"note": "me too"}).json()
    assert (again["changed"], again["paused"]) == (False, paused_exif["paused"])
    shown = api.read("/v1/stats")["processors"]
    assert (shown["exif"]["paused"], shown["preview"]["paused"]) == (paused_exif["paused"], None)
    old = stack.worker()
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: [w["pid"] for w in api.read("/v1/stats")["workers"]] == [stack.worker()] != [old], "a new worker")
    later = api.put(bucket, "b.jpg", photos.make_jpeg(90, 60), wait=0)
    wait_for(lambda: states(api, later)["preview"] == "done", "the new worker works")
    assert [states(api, item)["exif"] for item in (photo, later)] == ["ready", "ready"]
    assert api.post("/v1/processors/exif/resume", json={"note": "mended"}).json() == {
        "processor": "exif",
        "changed": True,
        "paused": None,
    }
    for item in (photo, later):
        settled = api.settle(item["id"])
        assert settled["status"] == "ready"
        (job,) = (job for job in settled["jobs"] if job["processor"] == "exif")
        assert job["attempt"] == 1
    done = api.read("/v1/actions", limit=2)["actions"]
    assert [(item["action"], item["processor"], item["note"]) for item in done] == [
        ("resume", "exif", "mended"),
        ("pause", "exif", "camera database is wrong"),
    ]
    assert all(item["actor"].startswith("up (SL") for item in done)


def test_only_admins_pause_and_read_actions(stack: Stack, api: Api) -> None:
    """Reading and writing keys see the board and change nothing of it; what is no processor is told apart."""
    guest = stack.client(stack.make_key("read,write")["token"])
    for method, path in (("POST", "/v1/processors/exif/pause"), ("GET", "/v1/actions")):
        assert guest.request(method, path).status_code == 403
    assert guest.get("/v1/stats/history").status_code == guest.get("/v1/jobs/groups").status_code == 200
    assert api.read("/v1/stats")["processors"]["exif"]["paused"] is None
    for action in ("pause", "resume"):
        unknown = api.post(f"/v1/processors/sharpen/{action}")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "no_such_processor")


def test_the_history_shows_what_just_ran(stack: Stack, api: Api, bucket: str) -> None:
    """A photo's runs are in the last steps of the last ten minutes, with their times."""
    before = sum(api.read("/v1/stats/history", minutes=10)["processors"]["preview"]["ok"])
    api.put(bucket, "a.jpg", photos.make_jpeg())
    trend = api.read("/v1/stats/history", minutes=10)
    ran = trend["processors"]["preview"]
    assert sum(ran["ok"]) == before + 1
    assert sum(ran["ok"][-6:]) >= 1
    assert any(seconds and 0 < seconds < 30 for seconds in ran["p95_seconds"][-6:])
    assert trend["step_seconds"] * 120 >= 600
    assert abs((datetime.now(UTC) - datetime.fromisoformat(trend["to"])).total_seconds()) < 60
    assert api.get("/v1/stats/history", params={"minutes": 0}).status_code == 422


def test_dead_letters_are_found_grouped_and_replayed(stack: Stack, api: Api, s3: Any, bucket: str) -> None:
    """Ten photos whose originals vanished are one group for each processor; a part of a key finds one; the group's
    name replays it, after a dry run that changed nothing."""
    stack.wait_idle()
    with stack.worker_suspended():
        made = [api.put(bucket, f"lost/IMG_{n}.jpg", photos.make_jpeg(40, 30 + n), wait=0) for n in range(10)]
        for photo in made:
            s3.delete_object(Bucket=bucket, Key=photo["key"])
    for photo in made:
        api.settle(photo["id"])
    groups = api.read("/v1/jobs/groups", bucket=bucket)["groups"]
    told = {(group["processor"], group["error_code"], group["jobs"]) for group in groups}
    assert told == {("exif", "original_missing", 10), ("preview", "original_missing", 10)}
    assert {group["message"] for group in groups} == {"The original is no longer in the storage."}
    (found,) = api.read("/v1/jobs", search="img_7", bucket=bucket, processor="exif")["jobs"]
    assert (found["key"], found["error_group"]) == ("lost/IMG_7.jpg", groups[0]["error_group"])
    wanted = {"bucket": bucket, "error_group": groups[0]["error_group"], "processor": "exif"}
    before = api.read("/v1/actions")
    dry = api.post("/v1/jobs/replay", json={"filter": wanted, "dry_run": True}).json()
    assert (dry["matched"], dry["changed"], len(dry["job_ids"])) == (10, 0, 10)
    assert api.read("/v1/actions") == before
    for photo in made:
        s3.put_object(Bucket=bucket, Key=photo["key"], Body=photos.make_jpeg(40, 30 + int(photo["key"][9])))
    done = api.post("/v1/jobs/replay", json={"filter": wanted, "note": "restored"}).json()
    assert done["changed"] == 10
    (line,) = api.read("/v1/actions", limit=1)["actions"]
    assert (line["action"], line["filter"], line["jobs"], line["note"]) == ("replay", wanted, 10, "restored")
    stack.wait_idle()
    assert [group["processor"] for group in api.read("/v1/jobs/groups", bucket=bucket)["groups"]] == ["preview"]
    assert api.post("/v1/jobs/discard", json={"filter": {"bucket": bucket}}).json()["changed"] == 10
