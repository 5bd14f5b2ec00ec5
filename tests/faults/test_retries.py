"""What an error costs: missing originals, passing and permanent failures, dead letters and what people do with them."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from processors.contract import Unprocessable
from processors.retry import Reject, Retry, decide
from processors.sandbox.pool import ChildCrashed, ProcessorFailed
from processors.settings import JobSettings
from tests.faults.harness.invariants import check, check_bytes
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.rates import Rate
from tests.faults.harness.stack import TIMES, Stack
from tests.photos import make_jpeg

OpenLedger = Callable[..., Ledger]
BASE_SECONDS, CAP_SECONDS = float(TIMES["backoff_base_seconds"]), float(TIMES["backoff_cap_seconds"])


async def preview_job(stack: Stack, photo_id: object) -> dict[str, Any]:
    (row,) = await stack.fetch("select * from job where object_id = $1 and processor = 'preview'", photo_id)
    return row


async def runs(stack: Stack, job_id: int) -> list[dict[str, Any]]:
    return await stack.fetch("select * from job_attempt where job_id = $1 order by token", job_id)


async def test_row_20_original_deleted_behind_our_back(stack: Stack, open_ledger: OpenLedger) -> None:
    """Where the original is gone from S3 before its jobs run, they are dead at once with the reason original_missing,
    and an error is logged for each; no attempt is wasted on retries."""
    await stack.start(gateways=1, workers=0)
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await stack.blobs.delete(stack.bucket, accepted.key)
    worker = await stack.start_worker()
    violations = await check(stack, ledger)
    assert violations == await check_bytes(stack, ledger) == [f"I1: {accepted.key} was accepted, but is not in S3"]
    rows = await stack.fetch("select * from job")
    assert {(row["state"], row["attempt"], row["error_code"]) for row in rows} == {("dead", 1, "original_missing")}
    assert worker.logged("job.dead") == 2
    status, photo = await ledger.get(f"/v1/photos/{accepted.id}")
    assert (status, photo["status"]) == (200, "partial")


async def test_row_21_passing_failure(stack: Stack, open_ledger: OpenLedger, rate: Rate) -> None:
    """Three failures in a row cost three attempts, each retry begins within its jitter bound, and the fourth run
    succeeds; the error of the last failure is kept with each run, and the rate is as before."""
    await stack.start(gateways=1, workers=0)
    worker = await stack.start_worker(failpoint="artifact.put_before:raise:6")  # both previews of three runs
    ledger = open_ledger()
    await rate.measure(ledger.put_under)
    accepted = await ledger.put()
    assert accepted is not None
    assert await check(stack, ledger) == []
    await rate.assert_kept(ledger.put_under)
    assert worker.hits("artifact.put_before") == 6
    job = await preview_job(stack, accepted.id)
    assert (job["outcome"], job["attempt"], job["crashes"], job["expiries"]) == ("ok", 4, 0, 0)
    rows = await runs(stack, job["id"])
    assert [(row["outcome"], row["error_code"]) for row in rows] == [("retry", "unexpected")] * 3 + [("ok", None)]
    for number, (failed, again) in enumerate(itertools.pairwise(rows), start=1):
        waited_seconds = (again["started_at"] - failed["ended_at"]).total_seconds()
        # The dispatcher looks twice a second, and a run may wait for a slot.
        assert 0 <= waited_seconds <= min(CAP_SECONDS, BASE_SECONDS * 2**number) + 1


def test_row_21_delays_are_spread_evenly_below_their_bounds(seed: int) -> None:
    """Over 4,000 draws each delay lies between 0 and min(cap, base x 2^n), with the mean and the quartiles of a uniform
    distribution; the bound doubles until the cap, for failures and crashes alike."""
    settings = JobSettings(redis_url="redis://127.0.0.1/0", max_attempts=100, max_crashes=100)
    uniform = random.Random(seed).uniform
    for number in range(1, 12):
        bound = min(settings.backoff_cap_seconds, settings.backoff_base_seconds * 2**number)
        for error, attempt, crashes in ((OSError(), number, 0), (ChildCrashed("wall_time"), 1, number - 1)):
            delays = []
            for _ in range(4000):
                verdict = decide(
                    error, attempt=attempt, max_attempts=100, crashes=crashes, settings=settings, uniform=uniform
                )
                assert isinstance(verdict, Retry)
                delays.append(verdict.after_seconds / bound)
            assert 0 <= min(delays) < 0.01 < 0.99 < max(delays) <= 1
            assert abs(statistics.fmean(delays) - 0.5) < 0.03
            assert all(
                abs(found - wanted) < 0.04
                for found, wanted in zip(statistics.quantiles(delays, n=4), (0.25, 0.5, 0.75), strict=True)
            )


def test_row_22_no_permanent_failure_is_ever_retried(seed: int) -> None:
    """Whatever the counts are, an unprocessable photo is rejected; a bug in a processor is not its photo's fault."""
    chance = random.Random(seed)
    settings = JobSettings(redis_url="redis://127.0.0.1/0")
    for _ in range(100):
        judge = partial(
            decide, attempt=chance.randint(1, 7), max_attempts=8, crashes=chance.randint(0, 2), settings=settings
        )
        assert isinstance(judge(Unprocessable("malformed", "It is.")), Reject)
        assert isinstance(judge(ProcessorFailed("ValueError", "")), Retry)


async def test_row_22_permanent_failure(stack: Stack, open_ledger: OpenLedger) -> None:
    """Files that begin like photos and are none are rejected in their first run, with a code, and never run again; the
    photo says why, and no dead letter is made."""
    await stack.start(gateways=1, workers=1)
    ledger = open_ledger()
    whole = make_jpeg(320, 240, noise=40)
    bodies = {"cut": whole[: len(whole) // 8], "zeros": whole[:30] + bytes(5000), "bomb": _declared(whole, 60_000)}
    photos = {name: await ledger.put(body, key=f"{name}.jpg") for name, body in bodies.items()}
    assert await check(stack, ledger) == []
    for name, accepted in photos.items():
        assert accepted is not None
        job = await preview_job(stack, accepted.id)
        assert (job["state"], job["outcome"], job["attempt"], job["token"]) == ("done", "rejected", 1, 1), name
        assert [row["outcome"] for row in await runs(stack, job["id"])] == ["rejected"]
        _, photo = await ledger.get(f"/v1/photos/{accepted.id}")
        assert photo["status"] == "rejected"
        assert photo["rejection"]["code"] == job["error_code"]
    assert await stack.value("select count(*) from job where state = 'dead'") == 0


def _declared(jpeg: bytes, side_px: int) -> bytes:
    """The JPEG, whose header claims so many pixels per side."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + side_px.to_bytes(2, "big") * 2 + jpeg[place + 4 :]


async def test_row_23_dead_letter_is_replayed_once(stack: Stack, open_ledger: OpenLedger) -> None:
    """A job that used up its attempts is listed with its error, its runs and the traceback; of 20 replays at once one
    acts and 19 are told so, it is written down once, and the job succeeds."""
    await stack.start(gateways=2, workers=0, max_attempts="2")
    ledger = open_ledger()
    ((accepted, job_id),) = await make_dead_letters(stack, ledger, 1)
    status, page = await ledger.get("/v1/jobs?state=dead")
    assert (status, [item["id"] for item in page["jobs"]]) == (200, [job_id])
    status, job = await ledger.get(f"/v1/jobs/{job_id}")
    assert (status, job["state"], job["attempt"], job["error"]["code"]) == (200, "dead", 2, "unexpected")
    assert [run["outcome"] for run in job["attempts"]] == ["retry", "dead"]
    assert all("FailpointReached" in run["error"]["traceback"] for run in job["attempts"])

    statuses = await act_at_once(ledger, [(job_id, "replay")] * 20)
    assert sorted(statuses) == [200] + [409] * 19
    await stack.start_worker()
    assert await check(stack, ledger) == []
    status, job = await ledger.get(f"/v1/jobs/{job_id}")
    assert (job["state"], job["outcome"]) == ("done", "ok")
    assert [(item["action"], item["note"]) for item in job["actions"]] == [("replay", "by the test")]
    assert job["actions"][0]["actor"]
    assert [run["outcome"] for run in job["attempts"]] == ["retry", "dead", "ok"]
    _, photo = await ledger.get(f"/v1/photos/{accepted}")
    assert photo["status"] == "ready"


async def test_row_23_discarded_dead_letter_stays_so(stack: Stack, open_ledger: OpenLedger) -> None:
    """Of 10 discards and 10 replays at once one acts, whatever it is; a discarded job never runs again, is no dead
    letter, and cannot be replayed."""
    await stack.start(gateways=2, workers=0, max_attempts="1")
    ledger = open_ledger()
    (accepted, job_id), (_, other_id) = await make_dead_letters(stack, ledger, 2)
    statuses = await act_at_once(ledger, [(job_id, "discard")] * 20)
    assert sorted(statuses) == [200] + [409] * 19
    assert await act_at_once(ledger, [(job_id, "replay")]) == [409]
    statuses = await act_at_once(ledger, [(other_id, action) for action in ("discard", "replay") for _ in range(10)])
    assert sorted(statuses) == [200] + [409] * 19
    assert await stack.value("select count(*) from job_action where job_id = $1", other_id) == 1
    await stack.start_worker()
    later = await ledger.put()
    assert later is not None
    assert await check(stack, ledger) == []
    _, job = await ledger.get(f"/v1/jobs/{job_id}")
    assert (job["state"], [item["action"] for item in job["actions"]]) == ("discarded", ["discard"])
    assert [run["outcome"] for run in job["attempts"]] == ["dead"]
    _, page = await ledger.get("/v1/jobs?state=dead")
    assert page["jobs"] == []
    _, photo = await ledger.get(f"/v1/photos/{accepted}")
    assert photo["status"] == "partial"


async def make_dead_letters(stack: Stack, ledger: Ledger, count: int) -> list[tuple[uuid.UUID, int]]:
    """Photos whose preview job has used up its attempts: (photo id, job id). No worker runs afterwards."""
    broken = await stack.start_worker(failpoint="artifact.put_before:raise")
    photos = [await ledger.put() for _ in range(count)]
    await stack.drain(seconds=15)
    assert broken.hits("artifact.put_before") >= count
    await broken.stop()
    found = []
    for accepted in photos:
        assert accepted is not None
        job = await preview_job(stack, accepted.id)
        assert job["state"] == "dead"
        found.append((accepted.id, job["id"]))
    return found


async def act_at_once(ledger: Ledger, actions: list[tuple[int, str]]) -> list[int]:
    """The statuses of POSTs that are all sent together."""

    async def act(job_id: int, action: str) -> int:
        status, _ = await ledger.request("POST", f"/v1/jobs/{job_id}/{action}", json={"note": "by the test"})
        return status

    return list(await asyncio.gather(*(act(*each) for each in actions)))
