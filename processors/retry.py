"""What an error costs a job: `decide` says it, purely, and RetryMiddleware applies it and routes exhausted jobs to the
dead letter queue.

taskiq's own retry middlewares are not used: they keep retries in Redis, and see nothing of a worker that died. Here the
columns of the job are the retry, so this works with an empty Redis and after any crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from processors.contract import Unprocessable
from processors.sandbox.pool import ChildCrashed, ProcessorFailed
from processors.settings import JobSettings
from storage import jobs
from storage.blobs import BlobsUnavailable, NoSuchBlob, NoSuchBucket
from storage.database import Connection, Database, DatabaseUnavailable
from storage.jobs import Claim, Fenced

log = structlog.get_logger(__name__)

_TRACEBACK_CHARS = 8000


class JobFailed(Exception):
    """A claimed job's run ended in an error, its `__cause__`."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"job {claim.job_id}")
        self.claim = claim


def traced(claim: Claim) -> AbstractContextManager[object]:
    """Lines that are logged in the block name the request that brought the photo, where one did."""
    if claim.request_id is None:
        return contextlib.nullcontext()
    return structlog.contextvars.bound_contextvars(request_id=claim.request_id)


class Corrupted(Exception):
    """The storage gave other bytes than were stored."""


class PreviewsHomeless(BlobsUnavailable):
    """The storage has no bucket for previews, whose name this carries. No photo's fault, and soon mended: gateways make
    the bucket again."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Ready again after a while. 'retry' costs an attempt, 'crashed' a crash, 'snoozed' and 'released' nothing."""

    after_seconds: float
    outcome: Literal["retry", "crashed", "snoozed", "released"]


@dataclass(frozen=True, kw_only=True)
class Dead:
    """A dead letter, for people to look at."""

    outcome: Literal["dead", "crashed"]


@dataclass(frozen=True, kw_only=True)
class Reject:
    """The photo is at fault: the job is done, and no retry would change the verdict."""

    code: str
    detail: str


Verdict = Retry | Dead | Reject


def decide(
    error: BaseException,
    *,
    attempt: int,
    max_attempts: int,
    crashes: int,
    settings: JobSettings,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Verdict:
    """What becomes of a job whose run `attempt` (from 1) ended so, after `crashes` earlier crashes. Backoff is
    exponential with full jitter: uniform between 0 and min(cap, base x 2^n), after the n-th failure."""
    match error:
        case Unprocessable():
            return Reject(code=error.code, detail=error.detail)
        case asyncio.CancelledError():
            return Retry(after_seconds=0, outcome="released")
        case BlobsUnavailable() | DatabaseUnavailable():
            return Retry(after_seconds=settings.snooze_seconds * uniform(0.5, 1), outcome="snoozed")
        case NoSuchBlob() | NoSuchBucket():
            return Dead(outcome="dead")
        case ChildCrashed():
            if crashes + 1 >= settings.max_crashes:
                return Dead(outcome="crashed")
            return Retry(after_seconds=_backoff_seconds(crashes + 1, settings, uniform), outcome="crashed")
        case _:
            if attempt >= max_attempts:
                return Dead(outcome="dead")
            return Retry(after_seconds=_backoff_seconds(attempt, settings, uniform), outcome="retry")


def describe(error: BaseException) -> dict[str, Any]:
    """The error as it is kept with the job: a stable `code`, a sentence, and for unknown errors the traceback
    (which only people with the admin scope may see)."""
    match error:
        case Unprocessable():
            return {"code": error.code, "detail": error.detail}
        case asyncio.CancelledError():
            return {"code": "released", "detail": "The worker was stopped; the job runs elsewhere."}
        case PreviewsHomeless():
            how = "Gateways make it within seconds where they may; else create it, or set SAFELIGHT_DERIVED_BUCKET."
            return {"code": "derived_bucket_missing", "detail": f"There is no bucket {error} for previews. {how}"}
        case BlobsUnavailable():
            return {"code": "storage_unavailable", "detail": "The storage could not be used.", "cause": str(error)}
        case DatabaseUnavailable():
            return {"code": "database_unavailable", "detail": "Postgres could not be used.", "cause": str(error)}
        case NoSuchBlob() | NoSuchBucket():
            return {"code": "original_missing", "detail": "The original is no longer in the storage."}
        case Corrupted():
            return {"code": "original_corrupted", "detail": "The storage gave other bytes than were stored."}
        case ChildCrashed():
            return {"code": "decoder_crashed", "detail": f"The decoder died: {error.reason}.", "reason": error.reason}
        case ProcessorFailed():
            return {
                "code": "processor_failed",
                "detail": f"The processor raised {error.kind}.",
                "traceback": error.trace[-_TRACEBACK_CHARS:],
            }
        case _:
            return {
                "code": "unexpected",
                "detail": f"{type(error).__name__} was raised.",
                "traceback": "".join(traceback.format_exception(error))[-_TRACEBACK_CHARS:],
            }


class RetryMiddleware(TaskiqMiddleware):
    """Applies `decide` to the jobs whose run failed."""

    def __init__(self, settings: JobSettings, database: Database) -> None:
        super().__init__()
        self._settings = settings
        self._database = database

    async def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:
        if not isinstance(exception, JobFailed):
            log.error(
                "task.failed", message="A task failed outside of any job.", task=message.task_name, exc_info=exception
            )
            return
        with traced(exception.claim):
            await self._settle(exception.claim, exception.__cause__ or exception)

    async def _settle(self, claim: Claim, error: BaseException) -> None:
        verdict = decide(
            error,
            attempt=claim.attempt,
            max_attempts=claim.max_attempts,
            crashes=claim.crashes,
            settings=self._settings,
        )
        described = {key: _clean(value) for key, value in describe(error).items()}
        _report(claim, verdict, described, error)

        async def apply(conn: Connection) -> None:
            match verdict:
                case Reject(code=code, detail=detail):
                    await jobs.reject(conn, claim, code=code, detail=_clean(detail))
                case Dead(outcome=outcome):
                    await jobs.bury(conn, claim, outcome=outcome, error=described)
                case Retry(after_seconds=after_seconds, outcome=outcome):
                    noted = None if outcome == "released" else described
                    await jobs.postpone(conn, claim, after_seconds=after_seconds, outcome=outcome, error=noted)

        try:
            await self._database.persist(apply, for_seconds=self._settings.lease_seconds)
        except Fenced:
            log.info("job.fenced", message="A late verdict was thrown away.", job_id=claim.job_id, token=claim.token)
        except DatabaseUnavailable:
            log.warning("job.left", message="The job's lease will run out.", job_id=claim.job_id, token=claim.token)


def _backoff_seconds(failures: int, settings: JobSettings, uniform: Callable[[float, float], float]) -> float:
    return uniform(0, min(settings.backoff_cap_seconds, settings.backoff_base_seconds * 2 ** min(failures, 62)))


def _clean(text: str) -> str:
    """Without what Postgres' jsonb cannot hold."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _report(claim: Claim, verdict: Verdict, described: dict[str, Any], error: BaseException) -> None:
    ids = {
        "job_id": claim.job_id,
        "photo_id": str(claim.object_id),
        "token": claim.token,
        "processor": claim.processor,
    }
    match verdict:
        case Reject(code=code):
            log.info("job.rejected", message="The photo was rejected.", code=code, **ids)
        case Dead():
            log.error("job.dead", message="The job is dead.", code=described["code"], exc_info=error, **ids)
        case Retry(outcome=outcome, after_seconds=after_seconds):
            log.warning(
                f"job.{outcome}",
                message="The job runs again.",
                code=described["code"],
                after_seconds=round(after_seconds, 3),
                **ids,
            )
