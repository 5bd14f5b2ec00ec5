"""Why a photo has no preview: for each state of the world one verdict, with the command that helps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.explaining import VERDICTS, Evidence, Stored, explain

NOW = datetime(2026, 5, 17, 9, 30, tzinfo=UTC)
AGO = NOW - timedelta(minutes=5)
PHOTO: dict[str, Any] = {"id": "p", "deleted_at": None, "superseded_at": None}
JOB: dict[str, Any] = {
    **{"id": 7, "processor": "preview", "version": 1, "state": "ready", "outcome": None, "attempt": 0, "token": 0},
    **{"max_attempts": 8, "error": None, "error_code": None, "worker": None, "run_at": AGO, "created_at": AGO},
    **{"started_at": AGO, "finished_at": AGO, "lease_until": NOW + timedelta(seconds=20)},
}
ERROR = {"code": "unexpected", "detail": "OSError was raised."}
PAUSE = {"by": "ann (SLKEY)", "at": AGO, "note": "disk full"}


def world(*jobs: dict[str, Any], photo: dict[str, Any] | None = PHOTO, **more: Any) -> Evidence:
    """One photo with those jobs, where all else is well."""
    plain = Evidence(
        now=NOW,
        bucket="photos",
        key="a.jpg",
        photo=photo,
        jobs=[{**JOB, **job} for job in jobs],
        original=Stored(state="there", size_bytes=1234),
        watched_by=("preview", "exif"),
        known={"preview": 1, "exif": 1},
        paused={},
        workers=("w1",),
    )
    return replace(plain, **more)


THERE, MISSING = Stored(state="there", size_bytes=1234), Stored(state="missing")
DONE = {"state": "done", "outcome": "ok"}
WORLDS: dict[str, tuple[Evidence, str, str]] = {
    "never_arrived": (world(photo=None, original=MISSING, alike=("A.jpg",)), "mean photos/A.jpg?", "safelight put"),
    "unrecorded": (world(photo=None), "was not told", "safelight reconcile --bucket photos"),
    "not_watched": (world(), "nobody watched", "SAFELIGHT_HOOKS"),
    "deleted": (world(photo={**PHOTO, "deleted_at": AGO}), "5 minutes ago", "safelight put"),
    "superseded": (world(photo={**PHOTO, "superseded_at": AGO}, current_id="q"), "same key", "is there now: q"),
    "lost": (world(DONE, original=MISSING), "behind Safelight's back", "Restore"),
    "rejected": (
        world({"state": "done", "outcome": "rejected", "error": {"code": "truncated", "detail": "It ends early."}}),
        "truncated. It ends early.",
        "send a good one",
    ),
    "dead": (
        world({"state": "dead", "token": 8, "error": ERROR, "error_code": "unexpected"}),
        "after 8 runs: unexpected. OSError was raised.",
        "safelight jobs replay 7",
    ),
    "paused": (world({}, paused={"preview": PAUSE}), "by ann (SLKEY) 5 minutes", "safelight jobs resume preview"),
    "no_worker": (world({}, workers=()), "no worker is alive", "safelight worker"),
    "unknown_processor": (world({"version": 2}), "version 2", "Start workers of the release"),
    "retrying": (
        world(
            {
                **{"run_at": NOW + timedelta(seconds=90), "attempt": 3, "token": 3},
                **{"error": ERROR, "error_code": "unexpected"},
            }
        ),
        "3 of 8 attempts used; it is tried again in 90 seconds (2026-05-17T09:31:30Z)",
        "safelight jobs show 7",
    ),
    "waiting": (world({}, ahead={7: 1200}), "1,200 jobs of preview are before it, 1 worker", "safelight stats --watch"),
    "running": (world({"state": "running", "worker": "w1"}), "runs on w1", "in a moment"),
    "discarded": (
        world({"state": "discarded"}, discards={7: {"actor": "bob", "note": "spam"}}),
        "was discarded by bob (spam) 5 minutes ago",
        "Send the photo again",
    ),
    "preview_gone": (
        world(DONE, artifacts=[{"preset": "thumb", "bucket": "derived", "key": "k"}], gone=("thumb",)),
        "'thumb' was made, but the storage has it no more",
        "safelight reconcile",
    ),
}


@pytest.mark.parametrize("verdict", WORLDS)
def test_each_state_of_the_world_has_its_verdict(verdict: str) -> None:
    """The verdict, what is said, and what to do."""
    evidence, said, do = WORLDS[verdict]
    found = explain(evidence)
    assert found.verdict == verdict
    assert said in found.findings[0].said
    assert do in (found.findings[0].do or "")


def test_every_verdict_can_happen() -> None:
    """The list of verdicts names no other than these, and `ready`."""
    assert set(VERDICTS) == {*WORLDS, "ready"}


def test_a_photo_that_is_ready_names_its_previews() -> None:
    """Where they lie, for any S3 client."""
    artifacts = [{"preset": "thumb", "bucket": "derived", "key": "photos/a.jpg/thumb.webp"}]
    found = explain(world(DONE, artifacts=artifacts))
    assert found.verdict == "ready"
    assert "derived/photos/a.jpg/thumb.webp" in found.findings[-1].said


def test_the_worst_comes_first_and_nothing_is_left_out() -> None:
    """A dead job, a waiting one and one that is done are all told, in that order."""
    found = explain(world(DONE, {"id": 8}, {"id": 9, "state": "dead", "error_code": "unexpected"}))
    assert [item.verdict for item in found.findings] == ["dead", "waiting", "ready"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [("original_missing", "Put the original back"), ("decoder_crashed", "MEMORY"), ("lease_expired", "oom")],
)
def test_a_dead_job_gets_the_advice_of_its_error(code: str, advice: str) -> None:
    """Not a mere replay, which would end the same way."""
    do = explain(world({"state": "dead", "error_code": code})).findings[0].do or ""
    assert advice in do
    assert "safelight jobs replay 7" in do


def test_a_running_job_whose_worker_is_silent_says_when_it_runs_again() -> None:
    """That is when its lease ends."""
    found = explain(world({"state": "running", "worker": "w-gone"}))
    assert "silent now; it runs again when the lease ends in 20 seconds" in found.findings[0].said


@pytest.mark.parametrize(
    ("original", "watched", "verdict", "said"),
    [
        (THERE, (), "not_watched", "nobody watches"),
        (Stored(state="no_bucket"), ("exif",), "never_arrived", "no bucket 'photos'"),
        (Stored(state="unavailable"), ("exif",), "never_arrived", "cannot be asked now"),
    ],
)
def test_a_key_without_a_photo_is_told_apart(original: Stored, watched: Any, verdict: str, said: str) -> None:
    """What nobody watches, what has no bucket, and what cannot be known now."""
    found = explain(world(photo=None, original=original, watched_by=watched))
    assert (found.verdict, said in found.findings[0].said) == (verdict, True)
