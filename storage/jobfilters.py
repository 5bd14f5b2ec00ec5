"""Which jobs are meant: what people may ask for, and the SQL that it becomes. Runs nothing.

Conditions on photos need the photo's row; `source` joins it only where one of them is there, because most questions
about dead letters can be answered by an index of the jobs alone.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

# What is told and listed apart, beyond the states themselves: ready jobs by whether their time has come, and done ones
# that rejected their photo.
STATES = ("ready", "due", "later", "running", "done", "rejected", "dead", "discarded")
_ERROR_TEXT = "concat_ws(' ', job.error_code, job.error ->> 'detail', job.error ->> 'reason', job.error ->> 'cause')"


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """All that are given must hold. Times are aware; `since` and `until` mean the end of a job that has ended, the
    making of one that has not."""

    state: str | None = None  # one of STATES
    processor: str | None = None
    error_code: str | None = None
    error_group: str | None = None  # as `deadletters.group_of` makes it
    worker: str | None = None
    bucket: str | None = None
    key_prefix: str | None = None
    search: str | None = None  # part of the key or of the error's text, in any case
    photo_id: uuid.UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    finished_after: datetime | None = None
    finished_before: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    places: tuple[str, ...] = ()  # only on photos within these, each `bucket` or `bucket/prefix`; none: anywhere

    def as_json(self) -> dict[str, Any]:
        """What is given, as it is kept with an action."""
        given = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return {name: _plain(value) for name, value in given.items()}


_CONDITIONS = {
    "processor": "job.processor = {}",
    "error_code": "job.error_code = {}",
    "error_group": "job.error_group = {}",
    "worker": "job.worker = {}",
    "photo_id": "job.object_id = {}",
    "created_after": "job.created_at >= {}",
    "created_before": "job.created_at < {}",
    "finished_after": "job.finished_at >= {}",
    "finished_before": "job.finished_at < {}",
    "since": "coalesce(job.finished_at, job.created_at) >= {}",
    "until": "coalesce(job.finished_at, job.created_at) < {}",
}
_PHOTO_CONDITIONS = {"bucket": "object.bucket = {}", "key_prefix": "object.key ^@ {}"}
_IN_KEY = "strpos(lower(object.key), lower({0})) > 0"
_IN_ERROR = f"job.error_code is not null and strpos(lower({_ERROR_TEXT}), lower({{0}})) > 0"
_SEARCH = f"({_IN_KEY} or ({_IN_ERROR}))"
_SEARCH_FIRST = f"""job.id in (
  select job.id from job join object on object.id = job.object_id where {_IN_KEY}
  union all select job.id from job where {_IN_ERROR})"""
_JOINED = "job join object on object.id = job.object_id"


def in_state(state: str, *, moment: str = "now()") -> str:
    """The condition that a job is in one of STATES at a moment, as SQL says it."""
    if state not in STATES:
        raise ValueError(state)
    return {
        "due": f"(job.state = 'ready' and job.run_at <= {moment})",
        "later": f"(job.state = 'ready' and job.run_at > {moment})",
        "rejected": "(job.state = 'done' and job.outcome = 'rejected')",
    }.get(state, f"job.state = '{state}'")


def source(wanted: JobFilter) -> str:
    """What to select from: jobs, with their photos where a condition needs them."""
    names = (*_PHOTO_CONDITIONS, "search")
    needs_photo = wanted.places or any(getattr(wanted, name) is not None for name in names)
    return _JOINED if needs_photo else "job"


def where(wanted: JobFilter, *, search_first: bool = False) -> tuple[list[str], list[Any]]:
    """The conditions, with their arguments numbered from $1. Never empty. `search_first`: go through all keys and
    errors once, for a search that finds little among many jobs, rather than look at job after job."""
    searching = {"search": _SEARCH_FIRST if search_first else _SEARCH}
    found: list[str] = ["true" if wanted.state is None else in_state(wanted.state)]
    arguments: list[Any] = []
    for name, condition in (_CONDITIONS | _PHOTO_CONDITIONS | searching).items():
        value = getattr(wanted, name)
        if value is not None:
            arguments.append(value)
            found.append(condition.format(f"${len(arguments)}"))
    if wanted.places:
        buckets, _, prefixes = zip(*(place.partition("/") for place in wanted.places), strict=True)
        arguments += [list(buckets), list(prefixes)]
        found.append(
            f"exists (select from unnest(${len(arguments) - 1}::text[], ${len(arguments)}::text[])"
            " as place (bucket, prefix)"
            " where object.bucket = place.bucket and starts_with(object.key, place.prefix))"
        )
    return found, arguments


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, uuid.UUID) else value
