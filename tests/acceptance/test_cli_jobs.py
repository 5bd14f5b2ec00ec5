"""jobs and stats, as somebody on call types them, against a running Safelight."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import photos
from tests.acceptance.stack import Api, Finished, Stack, wait_for
from tests.servers import execute, run_apart


@pytest.fixture
def lost(stack: Stack, api: Api, s3: Any, bucket: str) -> Iterator[list[dict[str, Any]]]:
    """Three photos whose originals vanished before their jobs ran: six dead jobs."""
    stack.wait_idle()
    with stack.worker_suspended():
        made = [api.put(bucket, f"lost/{n}.jpg", photos.make_jpeg(50, 40 + n), wait=0) for n in range(3)]
        for photo in made:
            s3.delete_object(Bucket=bucket, Key=photo["key"])
    settled = [api.settle(photo["id"]) for photo in made]
    yield settled
    api.post("/v1/jobs/discard", json={"filter": {"bucket": bucket}})


def told(done: Finished, code: int = 0) -> Any:
    """The JSON of a command that must end with that code."""
    assert done.returncode == code, done.stderr.decode()
    return json.loads(done.stdout)


def test_dead_jobs_are_listed_grouped_and_shown(stack: Stack, bucket: str, lost: list[dict[str, Any]]) -> None:
    """By state, by a part of the key, by age; alike ones as a group; one with its runs and errors; as text and JSON."""
    listed = stack.command("jobs", "list", "--state", "dead", "--bucket", bucket, "--json").stdout.splitlines()
    assert {json.loads(line)["key"] for line in listed} == {f"lost/{n}.jpg" for n in range(3)}
    assert len(listed) == 6
    table = stack.command("jobs", "list", "--search", "LOST/1", "--bucket", bucket, "--since", "1h").stdout.decode()
    assert table.count(f"{bucket}/lost/1.jpg") == 2
    assert table.count("original_missing") == 2
    assert "lost/2.jpg" not in table
    assert stack.command("jobs", "list", "--until", "1h", "--bucket", bucket, "--json").stdout == b""
    groups = told(stack.command("jobs", "groups", "--bucket", bucket, "--json"))["groups"]
    assert [(group["error_code"], group["jobs"]) for group in groups] == [("original_missing", 3)] * 2
    assert groups[0]["error_group"] in stack.command("jobs", "groups", "--bucket", bucket).stdout.decode()
    number = str(lost[0]["jobs"][0]["id"])
    shown = stack.command("jobs", "show", number).stdout.decode()
    assert f"on {bucket}/lost/0.jpg" in shown
    assert "original_missing The original is no longer in the storage." in shown
    assert told(stack.command("jobs", "show", number, "--json"))["state"] == "dead"


def test_jobs_are_replayed_by_group_after_a_dry_run(
    stack: Stack, api: Api, s3: Any, bucket: str, lost: list[dict[str, Any]]
) -> None:
    """A dry run changes nothing; without --yes and a terminal nothing happens; with it they run, and it is written
    down."""
    group = told(stack.command("jobs", "groups", "--bucket", bucket, "--processor", "exif", "--json"))["groups"][0]
    chosen = ["--group", group["error_group"], "--bucket", bucket, "--processor", "exif"]
    dry = told(stack.command("jobs", "replay", *chosen, "--dry-run", "--json"))
    assert (dry["matched"], dry["changed"], len(dry["sample"])) == (3, [], 3)
    refused = stack.command("jobs", "replay", *chosen)
    assert refused.returncode == 2
    assert "Give --yes" in refused.stderr.decode()
    assert api.read("/v1/jobs", state="dead", bucket=bucket, processor="exif")["jobs"] != []
    for photo in lost:
        s3.put_object(Bucket=bucket, Key=photo["key"], Body=photos.make_jpeg(50, 40 + int(photo["key"][5])))
    done = told(stack.command("jobs", "replay", *chosen, "--yes", "--note", "restored", "--json"))
    assert sorted(done["changed"]) == sorted(dry["sample"])
    stack.wait_idle()
    assert api.read("/v1/jobs", state="dead", bucket=bucket, processor="exif")["jobs"] == []
    first = stack.command("jobs", "actions", "--limit", "1").stdout.decode()
    assert "replay   3 jobs where" in first
    assert first.endswith(": restored\n")


def test_jobs_are_discarded_by_number(stack: Stack, api: Api, lost: list[dict[str, Any]]) -> None:
    """The named ones, each told apart; one that is not dead or not there is exit code 1."""
    first, second = (str(job["id"]) for job in lost[0]["jobs"])
    assert told(stack.command("jobs", "discard", first, "--dry-run", "--json"))["changed"] == [int(first)]
    assert api.read(f"/v1/jobs/{first}")["state"] == "dead"
    assert stack.command("jobs", "discard", first).returncode == 0
    mixed = told(stack.command("jobs", "discard", first, second, "999999999", "--json"), code=1)
    assert mixed["changed"] == [int(second)]
    assert [item["code"] for item in mixed["failures"]] == ["job_not_dead", "no_such_job"]
    assert api.read(f"/v1/jobs/{second}")["state"] == "discarded"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay"], "one of the three"),
        (["replay", "1", "--all"], "one of the three"),
        (["replay", "--since", "soon"], "--since is 'soon'"),
        (["list", "--state", "odd"], "Must be one of"),
        (["pause", "exif/x"], "is no processor"),
        (["show", "0"], "greater than or equal to 1"),
    ],
)
def test_wrong_usage_is_exit_code_2(stack: Stack, arguments: list[str], said: str) -> None:
    """With a sentence that says what is wrong, and nothing on standard output."""
    done = stack.command("jobs", *arguments)
    assert (done.returncode, said in done.stderr.decode(), done.stdout) == (2, True, b""), done.stderr.decode()


def test_jobs_for_later_are_promoted(stack: Stack, api: Api, bucket: str) -> None:
    """They are listed with the time at which they are due, shown by stats, and run after a promotion by filter."""
    stack.wait_idle()
    with stack.worker_suspended():
        photo = api.put(bucket, "a.jpg", photos.make_jpeg(), wait=0)
        later = f"update job set run_at = '2999-01-01T00:00Z' where object_id = '{photo['id']}'"
        run_apart(execute(stack.connection["postgres_dsn"], later))
    listed = stack.command("jobs", "list", "--state", "later", "--bucket", bucket).stdout.decode()
    assert listed.count("2999-01-01") == 2
    dry = told(stack.command("jobs", "promote", "--bucket", bucket, "--dry-run", "--json"))
    assert (dry["matched"], dry["changed"]) == (2, [])
    first, second = sorted(job["id"] for job in photo["jobs"])
    assert told(stack.command("jobs", "promote", str(first), "--json"))["changed"] == [first]
    assert told(stack.command("jobs", "promote", "--bucket", bucket, "--yes", "--json"))["changed"] == [second]
    assert api.settle(photo["id"])["status"] == "ready"
    refused = told(stack.command("jobs", "promote", str(first), "--json"), code=1)
    assert [item["code"] for item in refused["failures"]] == ["job_not_waiting"]
    assert f"on {bucket}/a.jpg" in stack.command("jobs", "show", str(first)).stdout.decode()
    assert "promote" in stack.command("jobs", "actions", "--limit", "1").stdout.decode()


def test_all_processors_are_paused_and_resumed(stack: Stack) -> None:
    """With --all, and a line for each."""
    stack.wait_idle()
    paused = stack.command("jobs", "pause", "--all").stdout.decode()
    resumed = stack.command("jobs", "resume", "--all").stdout.decode()
    for name in ("exif", "preview"):
        assert f"{name} waits from now on.\n" in paused
        assert f"{name} runs again.\n" in resumed
    assert stack.command("jobs", "pause").returncode == 2


def test_a_processor_is_paused_and_resumed(stack: Stack, api: Api, bucket: str) -> None:
    """Told once, idempotent, shown by stats and by why, refused without the admin scope."""
    stack.wait_idle()
    guest = stack.make_key("read,write")["token"]
    refused = stack.command("jobs", "pause", "exif", token=guest)
    assert (refused.returncode, "needs the scope 'admin'" in refused.stderr.decode()) == (2, True)
    assert stack.command("jobs", "pause", "exif", "--note", "why not").stdout == b"exif waits from now on.\n"
    try:
        photo = api.put(bucket, "a.jpg", photos.make_jpeg(), wait=0)
        assert b"was paused already" in stack.command("jobs", "pause", "exif").stdout
        why = stack.command("why", photo["id"])
        assert why.returncode == 1
        assert b"(why not)" in why.stdout
        assert b"safelight jobs resume exif" in why.stdout
        assert "exif (paused)" in stack.command("stats").stdout.decode()
    finally:
        assert stack.command("jobs", "resume", "exif").stdout == b"exif runs again.\n"
    assert stack.command("jobs", "resume", "exif").stdout == b"exif was not paused.\n"
    assert api.settle(photo["id"])["status"] == "ready"


def test_stats_are_shown_and_watched_until_interrupted(stack: Stack, api: Api) -> None:
    """Once as a table and as JSON; watched as a line of JSON each time; it notices that the worker is gone."""
    stack.wait_idle()
    assert told(stack.command("stats", "--json"))["processors"].keys() >= {"exif", "preview"}
    assert "Processor" in stack.command("stats").stdout.decode()
    process = subprocess.Popen(
        [sys.executable, "-m", "safelight", "stats", "--watch", "--json", "--interval", "0.2"],
        env={"PATH": os.defpath, "SAFELIGHT_URL": api.url, "SAFELIGHT_KEY": api.token or ""},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["workers"]
        with stack.worker_suspended():
            wait_for(lambda: json.loads(process.stdout.readline())["workers"] == [], "the worker is missed")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) in (0, 1, 130)
    finally:
        process.kill()
