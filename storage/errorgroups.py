"""Dead letters that failed alike, told together: same processor, same error code, same message but for its numbers,
names and ids.

`group_of` is pure and is kept with each job when it fails, so that grouping a million dead letters is a walk over one
index and reads no error at all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from storage.database import Connection
from storage.jobfilters import JobFilter, source, where

_SAMPLES = 5
# What differs between two errors of one kind: quoted text, paths, addresses and ids, numbers.
_VARYING = re.compile(
    r"""'[^']*' | "[^"]*" | `[^`]*` | (?<!\w)/[\w./+-]+ | \b0x[0-9a-f]+\b
        | \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b | \b[0-9a-f]{16,}\b | \d+(?:\.\d+)?""",
    re.VERBOSE | re.IGNORECASE,
)


def group_of(error: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that errors of one kind share."""
    parts = [str(error.get(name, "")) for name in ("code", "detail", "reason")] + [_last_line(error)]
    alike = _VARYING.sub("#", "\n".join(parts)).lower()
    return hashlib.sha256(alike.encode("utf-8", "replace")).hexdigest()[:12]


def message_of(error: Mapping[str, Any] | None, *, traces: bool) -> str | None:
    """One line that tells the error. `traces`: the exception's own words too, which only admins may see."""
    if not error:
        return None
    said = _last_line(error) if traces else ""
    return said[:300] or str(error.get("detail") or error.get("code") or "")[:300]


async def list_groups(conn: Connection, wanted: JobFilter, *, limit: int) -> list[dict[str, Any]]:
    """Groups of the jobs that match and have an error, the largest first: {processor, error_code, error_group, jobs,
    first_at, last_at, sample_job_ids, error}; times of their ends, or of their last starts where they have not ended;
    samples newest first, `error` that of the newest."""
    conditions, arguments = where(wanted)
    at = "job.finished_at" if wanted.state == "dead" else "coalesce(job.finished_at, job.started_at)"
    rows = await conn.fetch(
        f"""
        with matching as (
          select job.processor, job.error_code, job.error_group, count(*) as jobs, min({at}) as first_at,
                 max({at}) as last_at
          from {source(wanted)} where job.error_code is not null and {" and ".join(conditions)}
          group by 1, 2, 3 order by jobs desc, last_at desc limit ${len(arguments) + 1}
        )
        select matching.*, sample.ids as sample_job_ids, job.error
        from matching cross join lateral (
          select array_agg(id order by id desc) as ids from (
            select job.id from {source(wanted)}
            where job.processor = matching.processor and job.error_code = matching.error_code
              and job.error_group = matching.error_group and {" and ".join(conditions)}
            order by job.id desc limit {_SAMPLES}
          ) as newest
        ) as sample join job on job.id = sample.ids[1]
        order by jobs desc, last_at desc, job.id
        """,
        *arguments,
        limit,
    )
    return [dict(row) for row in rows]


def _last_line(error: Mapping[str, Any]) -> str:
    lines = str(error.get("traceback") or "").strip().splitlines()
    return lines[-1].strip() if lines else ""
