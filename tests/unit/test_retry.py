"""What an error costs a job: the table, the backoff's bounds and spread, and when a job may die."""

from __future__ import annotations

import asyncio
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.contract import Unprocessable
from processors.retry import Corrupted, Dead, PreviewsHomeless, Reject, Retry, Verdict, decide, describe
from processors.sandbox.errors import ChildCrashed, ProcessorFailed
from processors.settings import JobSettings
from storage.blobs import BlobRefused, BlobsUnavailable, NoSuchBlob, NoSuchBucket
from storage.database import DatabaseUnavailable

SETTINGS = JobSettings(redis_url="redis://unused", backoff_base_seconds=2, backoff_cap_seconds=100, max_crashes=3)
MAX_ATTEMPTS = 8
TRANSIENT = [RuntimeError("x"), Corrupted(), ProcessorFailed("ValueError", "trace"), BlobRefused("EntityTooLarge")]
AWAY = [BlobsUnavailable("EndpointConnectionError"), PreviewsHomeless("derived"), DatabaseUnavailable("OSError")]


def judge(error: BaseException, *, attempt: int = 1, crashes: int = 0, share: float = 1.0) -> Verdict:
    """The verdict where the jitter takes that share of what it may."""
    return decide(
        error,
        attempt=attempt,
        max_attempts=MAX_ATTEMPTS,
        crashes=crashes,
        settings=SETTINGS,
        uniform=lambda low, high: low + share * (high - low),
    )


@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS, 99])
def test_a_photo_at_fault_is_rejected_at_once(attempt: int) -> None:
    """Malformed bytes are never tried again, and never dead."""
    assert judge(Unprocessable("malformed", "It is."), attempt=attempt) == Reject(code="malformed", detail="It is.")


@pytest.mark.parametrize("error", AWAY, ids=repr)
@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS, 99])
def test_an_outage_costs_nothing(error: BaseException, attempt: int) -> None:
    """While a dependency is away a job is snoozed, however often, between half and all of snooze_seconds."""
    assert judge(error, attempt=attempt, crashes=99) == Retry(after_seconds=2, outcome="snoozed")
    assert judge(error, attempt=attempt, share=0) == Retry(after_seconds=1, outcome="snoozed")


def test_a_stopping_worker_gives_back_at_once() -> None:
    """A cancelled run is due again at once, unspent."""
    assert judge(asyncio.CancelledError(), attempt=99) == Retry(after_seconds=0, outcome="released")


@pytest.mark.parametrize("error", [NoSuchBlob("NoSuchKey"), NoSuchBucket("NoSuchBucket")], ids=repr)
def test_a_missing_original_is_for_people(error: BaseException) -> None:
    """No retry brings an original back: dead at the first attempt."""
    assert judge(error) == Dead(outcome="dead")


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_other_errors_are_tried_again_until_max_attempts(error: BaseException) -> None:
    """The longest wait doubles up to the cap, and the last attempt's failure is the job's death."""
    waits = [judge(error, attempt=attempt) for attempt in range(1, MAX_ATTEMPTS)]
    assert waits == [Retry(after_seconds=s, outcome="retry") for s in (4, 8, 16, 32, 64, 100, 100)]
    assert judge(error, attempt=MAX_ATTEMPTS) == Dead(outcome="dead")


def test_crashes_are_counted_apart() -> None:
    """A crash is no attempt: the third one is the job's death, at whatever attempt."""
    crash = ChildCrashed("signal:SIGSEGV")
    assert [judge(crash, attempt=99, crashes=crashes) for crashes in range(4)] == [
        Retry(after_seconds=4, outcome="crashed"),
        Retry(after_seconds=8, outcome="crashed"),
        Dead(outcome="crashed"),
        Dead(outcome="crashed"),
    ]


@given(
    error=st.sampled_from([*TRANSIENT, *AWAY, ChildCrashed("memory")]),
    attempt=st.integers(1, 2000),
    more=st.integers(1, 50),
    crashes=st.integers(0, 5),
    base=st.floats(0, 3600),
    cap=st.floats(0, 86400),
    share=st.floats(0, 1),
)
def test_no_job_dies_early_and_no_wait_passes_its_bounds(
    error: BaseException, attempt: int, more: int, crashes: int, base: float, cap: float, share: float
) -> None:
    """Below max_attempts and max_crashes no verdict is death, and each wait lies between 0 and its bound, however high
    the counts."""
    settings = JobSettings(redis_url="x", backoff_base_seconds=base, backoff_cap_seconds=cap, max_crashes=crashes + 2)
    verdict = decide(
        error,
        attempt=attempt,
        max_attempts=attempt + more,
        crashes=crashes,
        settings=settings,
        uniform=lambda low, high: low + share * (high - low),
    )
    assert isinstance(verdict, Retry)
    assert 0 <= verdict.after_seconds <= max(cap, settings.snooze_seconds)
    if verdict.outcome == "retry":
        assert verdict.after_seconds <= base * 2 ** min(attempt, 100)


def test_the_jitter_is_full() -> None:
    """Waits are spread evenly over the whole of 0 to the bound, so that many failed jobs do not come back together."""
    chance = random.Random(7)
    waits = []
    for _ in range(5000):
        verdict = decide(
            RuntimeError("x"), attempt=4, max_attempts=8, crashes=0, settings=SETTINGS, uniform=chance.uniform
        )
        assert isinstance(verdict, Retry)
        waits.append(verdict.after_seconds)
    assert 0 <= min(waits) < 0.1
    assert 31.9 < max(waits) <= 32
    assert [round(cut, 0) for cut in statistics.quantiles(waits, n=4)] == [8, 16, 24]


def test_the_jitter_is_random_by_default() -> None:
    """Without a given source of chance two waits differ."""
    waits = {
        decide(RuntimeError("x"), attempt=5, max_attempts=9, crashes=0, settings=SETTINGS).after_seconds  # type: ignore[union-attr]
        for _ in range(10)
    }
    assert len(waits) == 10


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unprocessable("truncated", "It ends early."), "truncated"),
        (asyncio.CancelledError(), "released"),
        (BlobsUnavailable("x"), "storage_unavailable"),
        (PreviewsHomeless("derived"), "derived_bucket_missing"),
        (DatabaseUnavailable("x"), "database_unavailable"),
        (NoSuchBlob("x"), "original_missing"),
        (Corrupted(), "original_corrupted"),
        (ChildCrashed("memory"), "decoder_crashed"),
        (ProcessorFailed("ValueError", "trace"), "processor_failed"),
        (RuntimeError("the library's text"), "unexpected"),
    ],
    ids=repr,
)
def test_errors_are_kept_by_a_stable_code(error: BaseException, code: str) -> None:
    """Each error has its code and a sentence; an unknown one's own text is kept in the traceback alone."""
    described = describe(error)
    assert described["code"] == code
    assert described["detail"].endswith(".")
    assert "the library's text" not in described["detail"]
    assert ("traceback" in described) is (code in ("processor_failed", "unexpected"))
