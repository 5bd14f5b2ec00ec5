"""What must hold once every fault is healed and every job has ended, whatever happened before: I1 to I9.

`check` looks past the proxies at Postgres, S3 and the gateways, and returns one sentence for each violation.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from storage.blobs import NoSuchBlob
from tests.faults.harness.ledger import Accepted, Ledger
from tests.faults.harness.programs import Program, Sample
from tests.faults.harness.rates import PREFIX
from tests.faults.harness.stack import REDISPATCH_SECONDS, Stack

GROWTH_BYTES = 48 << 20
GROWTH_DESCRIPTORS = 12
_IN_FLIGHT = 8

Check = Callable[[Stack, Ledger], Awaitable[list[str]]]


async def check(
    stack: Stack,
    ledger: Ledger,
    *,
    drain_seconds: float = 30,
    before: Mapping[Program, Sample] | None = None,
) -> list[str]:
    """Wait for the drain, then name all violations. `before`: samples of programs, taken when they were warm."""
    await stack.drain(seconds=drain_seconds)
    checks: tuple[Check, ...] = (
        check_bytes, check_verdicts, check_artifacts, check_queue, check_orphans, check_multiparts, check_effects,
        check_recovery,
    )  # fmt: skip
    found = [violation for each in checks for violation in await each(stack, ledger)]
    return found + check_growth(before or {})


async def check_bytes(stack: Stack, ledger: Ledger) -> list[str]:
    """I1: every object that was answered 2xx lies in S3 with the bytes that were sent, unless another came after it."""
    rows = {row["id"]: row for row in await stack.fetch("select id, superseded_at, deleted_at from object")}
    gate = asyncio.Semaphore(_IN_FLIGHT)

    async def look(item: Accepted) -> str | None:
        row = rows.get(item.id)
        if row is None:
            return f"I1: {item.key} was accepted as {item.id}, but has no row"
        if row["superseded_at"] or row["deleted_at"]:
            return None
        async with gate:
            try:
                async with stack.blobs.open(stack.bucket, item.key) as reading:
                    data = b"".join([piece async for piece in reading.pieces])
            except NoSuchBlob:
                return f"I1: {item.key} was accepted, but is not in S3"
        same = hashlib.sha256(data).hexdigest() == item.sha256
        return None if same else f"I1: {item.key} has other bytes in S3 than were sent"

    return [found for found in await asyncio.gather(*map(look, ledger.accepted)) if found]


async def check_verdicts(stack: Stack, ledger: Ledger) -> list[str]:
    """I2: each accepted photo has one ended job per processor, and a status that says so."""
    planned = sorted(stack.processors)
    rows = await stack.fetch(
        """
        select object.id, object.status, object.settled_at is not null as settled,
               object.superseded_at is not null as superseded,
               array_agg(job.processor order by processor) as processors, array_agg(job.state) as states
        from object left join job on job.object_id = object.id where not starts_with(object.key, $1) group by object.id
        """,
        PREFIX,
    )
    found = []
    for row in rows:
        if row["superseded"] and row["processors"] == [None]:
            continue  # overwritten before it could be recorded: it never gets jobs
        if row["processors"] != planned or not set(row["states"]) <= {"done", "dead", "discarded"}:
            found.append(f"I2: photo {row['id']} has the jobs {row['processors']} in {row['states']}")
        elif row["status"] == "processing" or not row["settled"]:
            found.append(f"I2: photo {row['id']} is {row['status']}, though its jobs have ended")
    ids: set[uuid.UUID] = {row["id"] for row in rows}
    promised = [item for item in ledger.accepted if not item.key.startswith(PREFIX)]
    return found + [f"I2: {item.id} was accepted, but has no row" for item in promised if item.id not in ids]


async def check_artifacts(stack: Stack, _ledger: Ledger) -> list[str]:
    """I3: the artifacts of current photos and the objects in the derived bucket are the same, byte for byte."""
    rows = await stack.fetch(
        """
        select artifact.key, artifact.etag from artifact join object on object.id = artifact.object_id
        where superseded_at is null and deleted_at is null
        """
    )
    named = {row["key"]: row["etag"] for row in rows}
    stored = await list_bucket(stack, stack.derived_bucket)
    garbage = {row["key"] for row in await stack.fetch("select key from garbage")}
    found = [f"I3: two artifacts lie under one key ({len(rows)} rows)"] if len(rows) != len(named) else []
    found += [f"I3: artifact {key} is not in S3 as recorded" for key, etag in named.items() if stored.get(key) != etag]
    return found + [f"I3: {key} in S3 belongs to no photo" for key in stored if key not in named and key not in garbage]


async def check_queue(stack: Stack, _ledger: Ledger) -> list[str]:
    """I4: no lease has expired unnoticed, nothing due was left lying."""
    rows = await stack.fetch(
        """
        select id, state from job
        where state = 'running' and lease_until < now()
           or state = 'ready' and run_at < now() - $1::float8 * interval '1 s'
        """,
        REDISPATCH_SECONDS + 1,
    )
    return [f"I4: job {row['id']} was left {row['state']}" for row in rows]


async def check_orphans(stack: Stack, _ledger: Ledger) -> list[str]:
    """I5: every original in S3 has a row, or was promised to the retry of a request that was never answered."""
    known = {row["key"] for row in await stack.fetch("select key from object")}
    promised = await stack.fetch(
        "select upload ->> 'key' as key from idempotency, jsonb_array_elements(uploads) as upload where answer is null"
    )
    known |= {row["key"] for row in promised}
    return [f"I5: {key} in S3 has no row" for key in await list_bucket(stack, stack.bucket) if key not in known]


async def check_multiparts(stack: Stack, _ledger: Ledger) -> list[str]:
    """I6: every multipart upload in S3 is known, so that the sweep aborts it."""
    known = {row["key"] for row in await stack.fetch("select key from multipart")}
    return [f"I6: a multipart upload of {key} dangles" for key in await list_multiparts(stack) if key not in known]


async def check_effects(stack: Stack, _ledger: Ledger) -> list[str]:
    """I7: no job succeeded twice, but for those that a newer generation or a replay made run again."""
    rows = await stack.fetch(
        """
        select job_id, count(*) as runs from job_attempt join job on job.id = job_attempt.job_id
        where job_attempt.outcome = 'ok' and not exists (
          select from object as other join object as own on own.bucket = other.bucket and own.key = other.key
          where own.id = job.object_id and other.id <> own.id)
        group by job_id having count(*) > 1
        """
    )
    return [f"I7: job {row['job_id']} succeeded {row['runs']} times" for row in rows]


async def check_recovery(stack: Stack, ledger: Ledger) -> list[str]:
    """I9: each living gateway says that all is well and that nothing waits."""
    found = []
    for gateway in stack.gateways:
        status, ready = await ledger.get("/readyz", gateway=gateway)
        down = [name for name, state in ready["dependencies"].items() if not state["up"]]
        if status != 200 or down:
            found.append(f"I9: {gateway.name} still finds {down} down ({status})")
        _, stats = await ledger.get("/v1/stats", gateway=gateway)
        for name, counts in stats["processors"].items():
            if counts.get("oldest_ready_seconds"):
                found.append(f"I9: {gateway.name} says that a {name} job has waited {counts['oldest_ready_seconds']} s")
    return found


def check_growth(before: Mapping[Program, Sample], *, pooled: int = 0) -> list[str]:
    """I8: programs hold about as much memory and as many descriptors as before. `pooled`: how many connections a burst
    may have left in their pools since."""
    found = []
    for program, sample in before.items():
        if program.exit_code is not None:
            continue
        now = program.sample()
        if now.rss_bytes > sample.rss_bytes + GROWTH_BYTES:
            found.append(f"I8: {program.name} grew from {sample.rss_bytes >> 20} to {now.rss_bytes >> 20} MiB")
        if now.descriptors > sample.descriptors + GROWTH_DESCRIPTORS + pooled:
            found.append(f"I8: {program.name} has {now.descriptors} descriptors open, it had {sample.descriptors}")
    return found


async def list_bucket(stack: Stack, bucket: str) -> dict[str, str]:
    """ETags by key."""
    found: dict[str, str] = {}
    pages: Any = stack.blobs._client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    async for page in pages:
        found |= {item["Key"]: item["ETag"].strip('"') for item in page.get("Contents", ())}
    return found


async def list_multiparts(stack: Stack) -> list[str]:
    """Keys of the multipart uploads that are under way in the bucket of originals."""
    answer = await stack.blobs._client.list_multipart_uploads(Bucket=stack.bucket)
    return [item["Key"] for item in answer.get("Uploads", ())]
