"""Stats, jobs and dead letters of a running Safelight, with its worker suspended, robbed of its photos, and killed."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests import photos
from tests.acceptance.stack import Api, Stack, wait_for

PROCESSORS = ("exif", "preview")
COUNTS = ("ready", "running", "done", "rejected", "dead", "discarded")


def count(stats: dict[str, Any], state: str) -> int:
    return sum(stats["processors"][name][state] for name in PROCESSORS)


def total(stats: dict[str, Any]) -> int:
    return sum(count(stats, state) for state in COUNTS)


@pytest.fixture
def orphan(stack: Stack, api: Api, s3: Any, bucket: str) -> dict[str, Any]:
    """A photo whose original vanished from the storage before any of its jobs ran: both jobs are dead."""
    stack.wait_idle()
    with stack.worker_suspended():
        photo = api.put(bucket, "lost.jpg", photos.make_jpeg(), wait=0)
        s3.delete_object(Bucket=bucket, Key="lost.jpg")
    settled = api.settle(photo["id"])
    assert [job["state"] for job in settled["jobs"]] == ["dead", "dead"]
    return settled


def test_stats_follow_jobs_through_their_states(stack: Stack, api: Api, bucket: str) -> None:
    """With the worker stopped new jobs are ready and none is lost from the counts; then all of them are done."""
    stack.wait_idle()
    before = api.read("/v1/stats")
    with stack.worker_suspended():
        ids = [api.put(bucket, f"{n}.jpg", photos.make_jpeg(200, 150 + n), wait=0)["id"] for n in range(5)]
        waiting = api.read("/v1/stats")
        assert (count(waiting, "ready"), count(waiting, "running")) == (10, 0)
        assert total(waiting) == total(before) + 10
        assert all(waiting["processors"][name]["oldest_ready_seconds"] >= 0 for name in PROCESSORS)
        wait_for(lambda: api.read("/v1/stats")["workers"] == [], "the silent worker is no longer shown", seconds=10)
    for photo_id in ids:
        api.settle(photo_id)
    after = api.read("/v1/stats")
    assert (count(after, "ready"), count(after, "running")) == (0, 0)
    assert count(after, "done") == count(before, "done") + 10
    for name in PROCESSORS:
        minute = after["processors"][name]["windows"]["1m"]
        assert minute["jobs"] >= 5
        assert 0 < minute["p50_seconds"] <= minute["p95_seconds"] <= minute["p99_seconds"] < 30
        assert after["processors"][name]["oldest_ready_seconds"] is None


def test_running_jobs_are_shown_with_their_worker(stack: Stack, api: Api, bucket: str) -> None:
    """A job whose decoder is stuck is running, with its worker, photo and age; it is done in that one run."""
    stack.wait_idle()
    with stack.decoders_suspended():
        photo = api.put(bucket, "slow.jpg", photos.make_jpeg(), wait=0)

        def shown() -> list[dict[str, Any]]:
            return [job for worker in api.read("/v1/stats")["workers"] for job in worker["running"]]

        wait_for(lambda: len(shown()) == min(2, os.cpu_count() or 1), "the jobs run")
        assert {(job["bucket"], job["key"]) for job in shown()} == {(bucket, "slow.jpg")}
        assert {job["processor"] for job in shown()} <= set(PROCESSORS)
        # Longer than the lease of three seconds: the worker renews it.
        wait_for(lambda: max(job["seconds"] for job in shown()) > 3.5, "the jobs grow older", seconds=10)
        (worker,) = api.read("/v1/stats")["workers"]
        assert (worker["pid"], worker["stopping"]) == (stack.worker(), False)
        (job, *_) = (job for job in photo["jobs"] if job["id"] in [item["job_id"] for item in worker["running"]])
        detail = api.read(job["url"])
        assert (detail["state"], detail["worker"], detail["attempt"]) == ("running", worker["id"], 1)
        assert [attempt["outcome"] for attempt in detail["attempts"]] == [None]
    settled = api.settle(photo["id"])
    assert settled["status"] == "ready"
    assert [len(api.read(job["url"])["attempts"]) for job in settled["jobs"]] == [1, 1]


def test_a_killed_worker_is_replaced_and_its_jobs_are_run(stack: Stack, api: Api, bucket: str) -> None:
    """The stats forget the dead worker within seconds, a new one comes, and the job that it held is run again."""
    stack.wait_idle()
    with stack.decoders_suspended():
        photo = api.put(bucket, "held.jpg", photos.make_jpeg(), wait=0)
        wait_for(lambda: count(api.read("/v1/stats"), "running"), "a job runs")
        ((old,), pid) = (api.read("/v1/stats")["workers"], stack.worker())
        os.kill(pid, signal.SIGKILL)

    def names() -> list[str]:
        return [worker["id"] for worker in api.read("/v1/stats")["workers"]]

    wait_for(lambda: old["id"] not in names(), "the dead worker is forgotten", seconds=6)
    wait_for(lambda: len(names()) == 1, "a new worker is shown")
    settled = api.settle(photo["id"])
    assert settled["status"] == "ready"
    outcomes = [[run["outcome"] for run in api.read(job["url"])["attempts"]] for job in settled["jobs"]]
    assert ["expired", "ok"] in outcomes
    assert all(run[-1] == "ok" for run in outcomes)


def test_a_photo_without_its_original_is_a_dead_letter(stack: Stack, api: Api, orphan: dict[str, Any]) -> None:
    """It is dead at once, named original_missing, listed among the dead and counted."""
    assert orphan["status"] == "partial"
    assert {job["error"]["code"] for job in orphan["jobs"]} == {"original_missing"}
    listed = api.read("/v1/jobs", state="dead", photo_id=orphan["id"])["jobs"]
    assert sorted(job["processor"] for job in listed) == ["exif", "preview"]
    assert all(job["finished_at"] for job in listed)
    stats = api.read("/v1/stats")
    assert count(stats, "dead") >= 2
    missing = api.get(orphan["links"]["original"])
    assert (missing.status_code, missing.json()["code"]) == (404, "original_missing")


def test_each_filter_of_jobs_keeps_what_matches(api: Api, bucket: str, orphan: dict[str, Any]) -> None:
    """State, processor, error, bucket, key, photo and times, alone and together."""
    api.put(bucket, "fine.jpg", photos.make_jpeg())

    def find(**filters: Any) -> list[tuple[str, str]]:
        found = api.read("/v1/jobs", **{"bucket": bucket, **filters})["jobs"]
        return sorted((job["key"][:4], job["processor"]) for job in found)

    lost, fine = [("lost", "exif"), ("lost", "preview")], [("fine", "exif"), ("fine", "preview")]
    assert find() == fine + lost
    assert find(state="dead") == lost
    assert find(state="done") == fine
    assert find(processor="exif") == [fine[0], lost[0]]
    assert find(error_code="original_missing") == lost
    assert find(key_prefix="fi") == fine
    assert find(photo_id=orphan["id"]) == lost
    assert find(bucket="another-bucket") == []
    created, ended = orphan["created_at"], orphan["settled_at"]
    assert find(created_before=created) == []
    assert find(created_after=created) == fine + lost
    assert find(finished_after=ended, state="done") == fine
    assert find(finished_before=created) == []


def test_dead_jobs_are_replayed_by_filter(api: Api, s3: Any, bucket: str, orphan: dict[str, Any]) -> None:
    """A dry run counts and changes nothing; a replay with the original back makes the photo ready; both are kept."""
    wanted = {"filter": {"photo_id": orphan["id"], "error_code": "original_missing"}}
    ids = sorted(job["id"] for job in orphan["jobs"])
    dry = api.post("/v1/jobs/replay", json={**wanted, "dry_run": True}).json()
    assert dry == {
        "dry_run": True,
        "matched": 2,
        "changed": 0,
        "by_error": {"original_missing": 2},
        "job_ids": ids,
    }
    assert [job["state"] for job in api.read(orphan["links"]["self"])["jobs"]] == ["dead", "dead"]
    one = api.post("/v1/jobs/replay", json={"filter": {"photo_id": orphan["id"]}, "limit": 1, "dry_run": True}).json()
    assert (one["matched"], one["job_ids"]) == (2, ids[:1])
    s3.put_object(Bucket=bucket, Key="lost.jpg", Body=photos.make_jpeg(), ContentType="image/jpeg")
    real = api.post("/v1/jobs/replay", json={**wanted, "note": "it is back"}).json()
    assert (real["matched"], real["changed"], real["job_ids"]) == (2, 2, ids)
    assert api.settle(orphan["id"])["status"] == "ready"
    detail = api.read(orphan["jobs"][0]["url"])
    assert [attempt["outcome"] for attempt in detail["attempts"]] == ["dead", "ok"]
    (action,) = detail["actions"]
    assert (action["action"], action["note"]) == ("replay", "it is back")
    assert action["actor"].startswith("up (SL")
    again = api.post("/v1/jobs/replay", json=wanted).json()
    assert (again["matched"], again["changed"]) == (0, 0)


def test_dead_jobs_are_discarded(api: Api, orphan: dict[str, Any]) -> None:
    """One by its address, the other by filter; what is not dead answers 409, and the reason is kept."""
    first, second = orphan["jobs"]
    done = api.post(f"{first['url']}/discard", json={"note": "gone for good"})
    assert (done.status_code, done.json()["state"]) == (200, "discarded")
    assert [item["note"] for item in done.json()["actions"]] == ["gone for good"]
    for action in ("discard", "replay"):
        refused = api.post(f"{first['url']}/{action}")
        assert (refused.status_code, refused.json()["code"]) == (409, "job_not_dead")
    rest = api.post("/v1/jobs/discard", json={"filter": {"photo_id": orphan["id"]}}).json()
    assert (rest["matched"], rest["changed"], rest["job_ids"]) == (1, 1, [second["id"]])
    assert api.read("/v1/jobs", photo_id=orphan["id"], state="discarded")["next_cursor"] is None
    assert {job["state"] for job in api.read(orphan["links"]["self"])["jobs"]} == {"discarded"}
