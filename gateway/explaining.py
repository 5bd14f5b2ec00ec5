"""Why a photo has no preview, in plain sentences, and what to do next. Pure: it is told everything, and asks nobody.

`explain` gives one verdict, the first of the list below that holds, and says all there is to say about each job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

VERDICTS = {
    "never_arrived": "Nothing was ever recorded or stored under that key.",
    "unrecorded": "The storage has it, but Safelight was never told.",
    "deleted": "It was deleted.",
    "lost": "Its original is gone from the storage.",
    "rejected": "The photo itself is at fault.",
    "dead": "A job was given up.",
    "paused": "Its processor is paused.",
    "no_worker": "No worker is alive.",
    "unknown_processor": "No worker of this release knows the processor.",
    "retrying": "A job failed and will be tried again.",
    "waiting": "A job waits for its turn.",
    "running": "A job runs now.",
    "discarded": "A job was discarded.",
    "not_watched": "Nobody watches that place.",
    "preview_gone": "A preview was made, and is gone from the storage.",
    "superseded": "Another photo was stored under the same key.",
    "ready": "Everything is done.",
}
_ADVICE = {
    "original_missing": "Put the original back under the same key, then replay the job: {replay}",
    "original_corrupted": "The storage gives other bytes than were stored: restore the original, then {replay}",
    "decoder_crashed": "The photo brought the decoder down each time. With more memory (SAFELIGHT_CHILD_MEMORY_BYTES) "
    "or time (SAFELIGHT_CHILD_WALL_SECONDS) for the workers it may pass; then {replay}",
    "lease_expired": "Worker after worker fell silent over it: look for `oom` in the system's log, then {replay}",
}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the storage says of the original: there (with its size and ETag), missing, or not to be asked."""

    state: str  # there, missing, no_bucket, unavailable
    size_bytes: int = 0
    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that is known about one key or generation at `now`, the database's time."""

    now: datetime
    bucket: str
    key: str
    photo: Mapping[str, Any] | None  # the object's row, whatever became of it
    jobs: Sequence[Mapping[str, Any]]
    original: Stored
    watched_by: Sequence[str]  # processors that SAFELIGHT_HOOKS names for the place
    known: Mapping[str, int]  # processors of this release
    paused: Mapping[str, Mapping[str, Any]]
    workers: Sequence[str]  # ids of the living ones
    ahead: Mapping[int, int] = field(default_factory=dict)  # job id -> due jobs of its processor before it
    discards: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # job id -> who and when
    artifacts: Sequence[Mapping[str, Any]] = ()
    gone: Sequence[str] = ()  # presets whose artifacts the storage has no more
    current_id: str | None = None  # of the generation that is current under the key
    alike: Sequence[str] = ()  # keys that resemble one that is not there


@dataclass(frozen=True, kw_only=True)
class Finding:
    verdict: str
    said: str
    do: str | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    verdict: str
    findings: tuple[Finding, ...]


def explain(evidence: Evidence) -> Explanation:
    """The verdict and one finding for everything worth saying, the worst first."""
    order = list(VERDICTS)
    findings = sorted(_find(evidence), key=lambda item: order.index(item.verdict))
    return Explanation(verdict=findings[0].verdict, findings=tuple(findings))


def _find(evidence: Evidence) -> Iterator[Finding]:
    photo = evidence.photo
    if photo is None:
        yield _absent(evidence)
        return
    if photo["deleted_at"] is not None:
        yield Finding(
            verdict="deleted",
            said=f"It was deleted {_ago(photo['deleted_at'], evidence.now)}, and its previews with it.",
            do=f"Send it again: safelight put FILE --bucket {evidence.bucket}",
        )
        return
    if photo["superseded_at"] is not None:
        there = f"The photo that is there now: {evidence.current_id}." if evidence.current_id else None
        at = _ago(photo["superseded_at"], evidence.now)
        yield Finding(verdict="superseded", said=f"Another photo was stored under the same key {at}.", do=there)
        return
    yield from _of_original(evidence)
    for job in evidence.jobs:
        yield _of_job(evidence, job)
    yield from _of_previews(evidence)


def _absent(evidence: Evidence) -> Finding:
    where, original = f"{evidence.bucket}/{evidence.key}", evidence.original
    if original.state == "there" and not evidence.watched_by:
        return Finding(
            verdict="not_watched",
            said=f"The storage has it ({original.size_bytes:,} bytes); nobody watches that place (SAFELIGHT_HOOKS).",
            do="Add the place to SAFELIGHT_HOOKS of gateways, doors and workers, then: safelight reconcile "
            f"--bucket {evidence.bucket}",
        )
    if original.state == "there":
        return Finding(
            verdict="unrecorded",
            said=f"The storage has it ({original.size_bytes:,} bytes), but Safelight was not told: it was written "
            "straight to the storage, and no event came.",
            do=f"Record it now: safelight reconcile --bucket {evidence.bucket}. So that events come: safelight setup "
            f"bucket {evidence.bucket}",
        )
    if original.state == "no_bucket":
        said = f"There is no bucket {evidence.bucket!r} in the storage, and no photo was ever recorded in it."
        return Finding(verdict="never_arrived", said=said, do="Check the bucket's name: safelight ls")
    if original.state == "unavailable":
        said = f"No photo was ever recorded as {where}, and the storage cannot be asked now."
        return Finding(verdict="never_arrived", said=said, do="Look again when the storage is back: safelight doctor")
    names = " or ".join(f"{evidence.bucket}/{key}" for key in evidence.alike)
    alike = f" Did you mean {names}?" if names else ""
    return Finding(
        verdict="never_arrived",
        said=f"No photo was ever recorded as {where}, and the storage has nothing there.{alike}",
        do=f"Keys count capitals and spaces: safelight ls {evidence.bucket}. To send it: safelight put FILE",
    )


def _of_original(evidence: Evidence) -> Iterator[Finding]:
    if evidence.original.state in ("missing", "no_bucket"):
        yield Finding(
            verdict="lost",
            said="Its original is no longer in the storage: it was deleted there behind Safelight's back.",
            do="Restore it under the same key, then replay its jobs; or delete the photo.",
        )
    if not evidence.jobs:
        watched = f"it is watched now, by {', '.join(evidence.watched_by)}" if evidence.watched_by else "nor is it now"
        yield Finding(
            verdict="not_watched",
            said=f"It is stored; nobody watched that place when it came (SAFELIGHT_HOOKS), and {watched}.",
            do=f"Name the place in SAFELIGHT_HOOKS and send the photo again, by REST or S3: {evidence.key}",
        )


def _of_job(evidence: Evidence, job: Mapping[str, Any]) -> Finding:
    match job["state"]:
        case "done" if job["outcome"] == "rejected":
            error = job["error"] or {}
            return Finding(
                verdict="rejected",
                said=f"{job['processor']} rejected the photo {_ago(job['finished_at'], evidence.now)}: "
                f"{error.get('code')}. {error.get('detail', '')}".rstrip(),
                do="The file itself is at fault, so no retry changes it: send a good one under the same key.",
            )
        case "done":
            return _said("ready", job, f"is done, {_ago(job['finished_at'], evidence.now)}.")
        case "dead":
            return _dead(evidence, job)
        case "discarded":
            by = evidence.discards.get(job["id"])
            who = f" by {by['actor']}{_note(by)}" if by else ""
            said = f"was discarded{who} {_ago(job['finished_at'], evidence.now)}."
            return _said("discarded", job, said, do="It stays so. Send the photo again to have it processed.")
        case "running":
            return _running(evidence, job)
        case _:
            return _waiting(evidence, job)


def _dead(evidence: Evidence, job: Mapping[str, Any]) -> Finding:
    error = job["error"] or {}
    replay, show = f"safelight jobs replay {job['id']}", f"safelight jobs show {job['id']}"
    advice = _ADVICE.get(job["error_code"] or "", "See each run: {show}. To try again: {replay}")
    runs = _times(job["token"])
    return _said(
        "dead",
        job,
        f"is dead {_ago(job['finished_at'], evidence.now)}, after {runs}: {job['error_code']}. "
        f"{error.get('detail', '')}".rstrip(),
        do=advice.format(replay=replay, show=show),
    )


def _running(evidence: Evidence, job: Mapping[str, Any]) -> Finding:
    since = _ago(job["started_at"], evidence.now)
    if job["worker"] in evidence.workers:
        return _said("running", job, f"runs on {job['worker']}, begun {since}.", do="Look again in a moment.")
    lease = _until(job["lease_until"], evidence.now)
    said = f"was begun {since} by {job['worker']}, which is silent now; it runs again when the lease ends {lease}."
    return _said("running", job, said, do="If no other worker is alive, start one: safelight worker")


def _waiting(evidence: Evidence, job: Mapping[str, Any]) -> Finding:
    name, since = job["processor"], _ago(job["created_at"], evidence.now)
    if pause := evidence.paused.get(name):
        said = (
            f"waits, made {since}: {name} was paused by {pause['by']} {_ago(pause['at'], evidence.now)}{_note(pause)}."
        )
        return _said("paused", job, said, do=f"Let it run again: safelight jobs resume {name}")
    if evidence.known.get(name, -1) < job["version"]:
        said = f"waits, made {since}: it needs {name} version {job['version']}, which this release does not have."
        return _said("unknown_processor", job, said, do="Start workers of the release that made it.")
    if not evidence.workers:
        return _said(
            "no_worker", job, f"waits, made {since}, and no worker is alive.", do="Start one: safelight worker"
        )
    if job["run_at"] > evidence.now:
        error = job["error"] or {}
        return _said(
            "retrying",
            job,
            f"failed ({job['error_code']}: {error.get('detail', '')}) in {_times(job['token'])}, {job['attempt']} of "
            f"{job['max_attempts']} attempts used; it is tried again {_until(job['run_at'], evidence.now)}.",
            do=f"See each run: safelight jobs show {job['id']}",
        )
    ahead, workers = evidence.ahead.get(job["id"], 0), len(evidence.workers)
    said = f"waits, made {since}; {ahead:,} jobs of {name} are before it, {workers} {_s('worker', workers)} alive."
    return _said("waiting", job, said, do="Follow the queue: safelight stats --watch. More workers make it faster.")


def _of_previews(evidence: Evidence) -> Iterator[Finding]:
    for preset in evidence.gone:
        yield Finding(
            verdict="preview_gone",
            said=f"The preview {preset!r} was made, but the storage has it no more.",
            do=f"Have it made again: safelight reconcile --bucket {evidence.bucket}",
        )
    if there := [item for item in evidence.artifacts if item["preset"] not in evidence.gone]:
        keys = ", ".join(f"{item['bucket']}/{item['key']}" for item in there)
        yield Finding(verdict="ready", said=f"Its previews: {keys}.", do=None)


def _said(verdict: str, job: Mapping[str, Any], said: str, *, do: str | None = None) -> Finding:
    return Finding(verdict=verdict, said=f"{job['processor']} (job {job['id']}) {said}", do=do)


def _note(row: Mapping[str, Any]) -> str:
    return f" ({row['note']})" if row["note"] else ""


def _times(runs: int) -> str:
    return f"{runs} {_s('run', runs)}"


def _s(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"


def _ago(at: datetime, now: datetime) -> str:
    return f"{_span((now - at).total_seconds())} ago ({_stamp(at)})"


def _until(at: datetime, now: datetime) -> str:
    return f"in {_span((at - now).total_seconds())} ({_stamp(at)})"


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(seconds: float) -> str:
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{int(seconds / size)} {word}s"
    return f"{max(0, int(seconds))} {_s('second', int(seconds))}"
