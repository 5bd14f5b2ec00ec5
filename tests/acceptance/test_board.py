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
from tests.servers import execute, run_apart


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


@pytest.fixture
def postponed(stack: Stack, api: Api, bucket: str) -> dict[str, Any]:
    """A photo whose jobs wait for an hour, as after many failures."""
    stack.wait_idle()
    with stack.worker_suspended():
        photo = api.put(bucket, "later/one.jpg", photos.make_jpeg(70, 50), wait=0)
        postpone = f"update job set run_at = now() + interval '1 hour' where object_id = '{photo['id']}'"
        run_apart(execute(stack.connection["postgres_dsn"], postpone))
    return photo


def test_jobs_for_later_are_told_apart_and_run_now(api: Api, bucket: str, postponed: dict[str, Any]) -> None:
    """They are counted apart from due ones, with the time of the next; a dry run changes nothing; promoted by number
    and by filter they run at once, and both are in the audit; what is done cannot be promoted."""
    shown = api.read("/v1/stats")["processors"]["exif"]
    assert (shown["ready"], shown["due"], shown["later"]) == (1, 0, 1)
    listed = api.read("/v1/jobs", state="later", bucket=bucket)["jobs"]
    assert sorted(job["processor"] for job in listed) == ["exif", "preview"]
    assert {shown["next_at"]} == {job["run_at"] for job in listed if job["processor"] == "exif"}
    assert api.read("/v1/jobs", state="due", bucket=bucket)["jobs"] == []
    dry = api.post("/v1/jobs/promote", json={"filter": {"bucket": bucket}, "dry_run": True}).json()
    assert (dry["matched"], dry["changed"], dry["by_error"]) == (2, 0, {"none": 2})
    first = listed[0]["id"]
    done = api.post(f"/v1/jobs/{first}/promote", json={"note": "at once"})
    assert (done.status_code, done.json()["actions"][-1]["action"]) == (200, "promote"), done.text
    rest = api.post("/v1/jobs/promote", json={"filter": {"bucket": bucket}}).json()
    assert (rest["changed"], rest["job_ids"]) == (1, [listed[1]["id"]])
    assert api.settle(postponed["id"])["status"] == "ready"
    refused = api.post(f"/v1/jobs/{first}/promote")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_not_waiting")
    assert [item["action"] for item in api.read("/v1/actions", limit=2)["actions"]] == ["promote", "promote"]


def test_waiting_jobs_are_discarded_only_where_that_is_said(api: Api, bucket: str, postponed: dict[str, Any]) -> None:
    """A discard of dead jobs passes them over, one by one and all together; with their state named they go."""
    ids = sorted(job["id"] for job in postponed["jobs"])
    refused = api.post(f"/v1/jobs/{ids[0]}/discard")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_not_dead")
    assert api.post("/v1/jobs/discard", json={"filter": {"bucket": bucket}}).json()["matched"] == 0
    assert api.post(f"/v1/jobs/{ids[0]}/discard", json={"state": "due"}).json()["code"] == "job_not_waiting"
    assert api.post(f"/v1/jobs/{ids[0]}/discard", json={"state": "later"}).json()["state"] == "discarded"
    rest = api.post("/v1/jobs/discard", json={"filter": {"bucket": bucket, "state": "ready"}}).json()
    assert rest["job_ids"] == ids[1:]
    assert api.settle(postponed["id"])["status"] == "partial"
    assert api.post("/v1/jobs/discard", json={"filter": {"state": "running"}}).status_code == 422


def test_a_jobs_page_says_what_it_made_and_how_long_it_took(api: Api, bucket: str) -> None:
    """Its photo's size and type, its run's length, and the previews or facts that this job and no other wrote."""
    photo = api.put(bucket, "made.jpg", photos.make_jpeg(640, 480))
    jobs = {job["processor"]: api.read(job["url"]) for job in photo["jobs"]}
    for job in jobs.values():
        assert (job["photo"]["size_bytes"], job["photo"]["content_type"]) == (photo["size_bytes"], "image/jpeg")
        assert (job["photo"]["status"], job["photo"]["current"]) == ("ready", True)
        assert 0 < job["seconds"] < 30
    made = jobs["preview"]["made"]
    assert [item["url"] for item in made["artifacts"]] == [item["url"] for item in photo["artifacts"]] != []
    assert (made["facts"], jobs["exif"]["made"]["artifacts"]) == (None, [])
    assert jobs["exif"]["made"]["facts"] == photo["facts"]["exif"]


def test_all_processors_are_paused_and_resumed_at_once(stack: Stack, api: Api) -> None:
    """One request each; each processor is told and written down; the second time nothing is left to do."""
    stack.wait_idle()
    try:
        paused = api.post("/v1/processors/pause", json={"note": "moving"}).json()["processors"]
        assert {item["processor"] for item in paused} >= {"exif", "preview"}
        assert all(item["changed"] and item["paused"]["note"] == "moving" for item in paused)
        again = api.post("/v1/processors/pause").json()["processors"]
        assert not any(item["changed"] for item in again)
    finally:
        resumed = api.post("/v1/processors/resume").json()["processors"]
    assert all(item["changed"] and item["paused"] is None for item in resumed)
    told = api.read("/v1/actions", limit=2 * len(paused))["actions"]
    assert sorted((item["action"], item["processor"]) for item in told) == sorted(
        (action, item["processor"]) for item in paused for action in ("pause", "resume")
    )
    guest = stack.client(stack.make_key("read,write")["token"])
    assert guest.post("/v1/processors/pause").status_code == guest.get("/v1/stats/redis").status_code == 403


def test_the_board_tells_of_turns_waits_and_redis(api: Api, bucket: str) -> None:
    """When the gateway last dispatched and when it does again, how long jobs waited, and what Redis says of itself."""
    api.put(bucket, "a.jpg", photos.make_jpeg(80, 60))
    stats = api.read("/v1/stats")
    turns = {item["name"]: item for item in stats["turns"]}
    assert list(turns) == ["dispatch", "housekeeping", "reconcile"]
    last = datetime.fromisoformat(turns["dispatch"]["last_at"])
    assert 0 <= (datetime.fromisoformat(turns["dispatch"]["next_at"]) - last).total_seconds() <= 60
    wait = stats["processors"]["preview"]["wait"]
    assert 0 <= wait["p50_seconds"] <= wait["p95_seconds"] <= wait["p99_seconds"] < 600
    found = api.read("/v1/stats/redis")["redis"]
    assert found["server"] in {"redis", "valkey"}
    assert found["version"][0].isdigit()
    assert 0 < found["used_memory_bytes"] <= found["peak_memory_bytes"]
    assert found["connected_clients"] >= 1
    assert found["stream_pending"] >= 0


def test_a_lost_worker_is_told_for_a_while(stack: Stack, api: Api) -> None:
    """A killed worker is among the gone ones, and did not leave; the one that follows works."""
    stack.wait_idle()
    old = stack.worker()
    os.kill(old, signal.SIGKILL)
    told = wait_for(
        lambda: [item for item in api.read("/v1/stats")["gone_workers"] if item["pid"] == old], "it is missed"
    )
    assert (told[0]["left_at"], told[0]["stopping"]) == (None, False)
    wait_for(lambda: [w["pid"] for w in api.read("/v1/stats")["workers"]] == [stack.worker()] != [old], "a new worker")
