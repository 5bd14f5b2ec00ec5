"""Files that try to hurt, through the real gateway and a real worker: each gets a verdict in time, costs no more than
one child, and leaves no payload in what is served. And a worker that runs out of descriptors or of disk lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests import hostile_photos
from tests.faults.harness.invariants import check
from tests.faults.harness.ledger import Ledger, percentile
from tests.faults.harness.programs import Program, thaw
from tests.faults.harness.rates import Rate
from tests.faults.harness.stack import Stack
from tests.faults.harness.waiting import until
from tests.hostile_structures import structures

OpenLedger = Callable[..., Ledger]
WALL_SECONDS = 15
MUTATIONS = 300
PAYLOADS = (b"<script", b"PK\x03\x04", b"%PDF", b"<html")

# What becomes of each file: the photo's status, or the code of its rejection, or of the gateway's refusal.
VERDICTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "makernote_bomb": (hostile_photos.makernote_bomb, "ready"),
    "rational_makernote": (lambda: hostile_photos.makernote_bomb(5, 100_000_000), "ready"),
    "pointer_bomb": (hostile_photos.pointer_bomb, "ready"),
    "huge_text_count": (hostile_photos.huge_text_count, "ready"),
    "text_bomb": (hostile_photos.text_bomb, "ready"),
    "profile_bomb": (lambda: hostile_photos.text_bomb(b"iCCP"), "ready"),
    "exif_bomb": (hostile_photos.exif_bomb, "ready"),
    "many_frames": (hostile_photos.many_frames_gif, "too_many_frames"),
    "rgba16_near_the_limit": (hostile_photos.rgba16_near_the_limit, "ready"),
    "pixel_bomb": (hostile_photos.pixel_bomb, "side_too_long"),
    "scan_bomb": (lambda: hostile_photos.scan_bomb(3_000, 6_000), "too_many_scans"),
    "circular_tiff": (hostile_photos.circular_tiff, "malformed"),
    "huge_tiff_counts": (hostile_photos.tiff_of_huge_counts, "malformed"),
    "lying_heic": (hostile_photos.heic_that_lies, "metadata_too_large"),
    "truncated": (lambda: hostile_photos.rgba16_near_the_limit()[:5000], "truncated"),
    **{
        name.replace(" ", "_"): (make, "ready" if verdict == "read" else verdict)
        for name, (make, verdict) in structures().items()
    },
}


async def send(ledger: Ledger, key: str, body: bytes, *, wait: float = 0) -> tuple[int, Any]:
    """One upload, as it is answered."""
    return await ledger.request("PUT", f"/v1/photos/{ledger._stack.bucket}/{key}?wait={wait:g}", data=body)


async def verdict_of(ledger: Ledger, photo_id: str) -> str:
    _, photo = await ledger.get(f"/v1/photos/{photo_id}")
    return str(photo["rejection"]["code"] if photo["rejection"] else photo["status"])


async def test_row_25_every_hostile_file_gets_its_verdict(stack: Stack, open_ledger: OpenLedger, rate: Rate) -> None:
    """Each bomb is refused, rejected or processed within the wall limit of a child; no request fails, the worker lives,
    neither it nor the gateway grows, and the rate is as before."""
    await stack.start(gateways=1, workers=1)
    ledger, pids = open_ledger(), [program.pid for program in stack.programs]
    await rate.measure(ledger.put_under)
    assert await ledger.put(wait=20) is not None
    before = {program: program.sample() for program in stack.programs}
    found, longest_seconds = {}, 0.0
    for name, (make, _) in VERDICTS.items():
        body, began = make(), time.monotonic()
        status, answer = await send(ledger, f"hostile/{name}", body, wait=3 * WALL_SECONDS)
        longest_seconds = max(longest_seconds, time.monotonic() - began)
        assert status < 500, name
        found[name] = await verdict_of(ledger, answer["id"]) if status == 201 else answer["code"]
    for name, (body, code) in hostile_photos.not_photos().items():
        status, answer = await send(ledger, f"hostile/{name.replace(' ', '_')}", body)
        assert (status, answer["code"]) == (415, code), name
    assert found == {name: verdict for name, (_, verdict) in VERDICTS.items()}
    assert longest_seconds <= WALL_SECONDS + 2
    assert await check(stack, ledger, before=before) == []
    assert [program.pid for program in stack.programs if program.exit_code is None] == pids
    await rate.assert_kept(ledger.put_under)
    assert "crashed" not in {row["outcome"] for row in await stack.fetch("select outcome from job_attempt")}


async def test_row_25_neighbours_of_bombs(stack: Stack, open_ledger: OpenLedger) -> None:
    """While heavy bombs keep one of two children busy, good photos go through the other one: none takes longer than one
    bomb runs, and most take far less."""
    await stack.start(gateways=1, workers=1, worker_slots="2")
    ledger, bomb = open_ledger(), hostile_photos.rgba16_near_the_limit()
    assert await ledger.put(wait=20) is not None
    stop = asyncio.Event()

    async def bombard() -> int:
        number = 0
        while not stop.is_set():
            status, _ = await send(ledger, f"bomb/{number}", bomb, wait=60)
            assert status == 201
            number += 1
        return number

    bombing = asyncio.create_task(bombard())
    good = await ledger.load(per_second=3, seconds=10)
    stop.set()
    bombs = await bombing
    await stack.drain(seconds=30)
    took = await stack.fetch(
        """
        select extract(epoch from finished_at - created_at)::float as seconds from job where object_id = any($1)
        """,
        [item.id for item in good],
    )
    longest = await stack.value(
        """
        select max(extract(epoch from job_attempt.ended_at - job_attempt.started_at))::float from job_attempt
        join job on job.id = job_attempt.job_id join object on object.id = job.object_id where key like 'bomb/%'
        """
    )
    seconds = [row["seconds"] for row in took]
    assert bombs >= 2
    assert len(good) == 30
    assert max(seconds) <= longest + 2
    assert percentile(seconds, 0.5) < longest / 2
    assert await check(stack, ledger) == []


async def test_row_26_mutated_files(stack: Stack, open_ledger: OpenLedger, seed: int) -> None:
    """300 files cut, flipped and spliced: each is refused or gets a verdict, no request fails, no job dies, no worker
    ends, and memory and descriptors stay flat."""
    await stack.start(gateways=1, workers=1, log_level="info")
    ledger, pids = open_ledger(), [program.pid for program in stack.programs]
    files = list(hostile_photos.mutations(hostile_photos.sound_photos(), MUTATIONS, seed))
    answers: Counter[int] = Counter()
    gate = asyncio.Semaphore(8)

    async def upload(number: int, what: str, body: bytes) -> None:
        async with gate:
            status, answer = await send(ledger, f"mutated/{number}", body)
        assert status in {201, 415}, (what, status, answer)
        answers[status] += 1

    await asyncio.gather(*(upload(number, *file) for number, file in enumerate(files[:60])))
    await stack.drain(seconds=60)
    before = {program: program.sample() for program in stack.programs}
    await asyncio.gather(*(upload(60 + number, *file) for number, file in enumerate(files[60:])))
    assert await check(stack, ledger, drain_seconds=120, before=before) == []
    assert answers.total() == MUTATIONS
    assert answers[201] >= MUTATIONS / 3
    rows = await stack.fetch("select state, outcome, count(*) from job group by state, outcome")
    assert {(row["state"], row["outcome"]) for row in rows} == {("done", "ok"), ("done", "rejected")}, (seed, rows)
    assert [program.pid for program in stack.programs if program.exit_code is None] == pids
    longest = await stack.value("select max(extract(epoch from ended_at - started_at)) from job_attempt")
    assert longest <= WALL_SECONDS


async def test_row_27_polyglots(stack: Stack, open_ledger: OpenLedger) -> None:
    """A photo that is HTML, PDF or ZIP too: no payload is in its previews, and the original is served as an attachment
    that no browser runs or guesses at."""
    await stack.start(gateways=1, workers=1)
    ledger = open_ledger()
    for name, body in hostile_photos.polyglots().items():
        assert any(payload in body for payload in PAYLOADS)
        status, photo = await send(ledger, f"polyglot/{name}.html", body, wait=30)
        assert (status, photo["status"]) == (201, "ready")
        for preset in ("thumb", "preview"):
            served, headers = await fetch_bytes(ledger, f"/v1/photos/{photo['id']}/previews/{preset}")
            assert not [payload for payload in PAYLOADS if payload in served], (name, preset)
            assert headers["Content-Type"] in {"image/webp", "image/jpeg"}
            assert_closed(headers)
        served, headers = await fetch_bytes(ledger, f"/v1/photos/{photo['id']}/original")
        assert served == body
        assert headers["Content-Disposition"].startswith("attachment")
        assert headers["Content-Type"] == "image/jpeg"
        assert_closed(headers)


def assert_closed(headers: Any) -> None:
    """Not guessed at, not run, not embedded elsewhere."""
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def fetch_bytes(ledger: Ledger, path: str) -> tuple[bytes, Any]:
    async with ledger._session.get(ledger._turn().url + path) as answer:  # type: ignore[union-attr]
        assert answer.status == 200
        return await answer.read(), answer.headers


@contextlib.asynccontextmanager
async def limited(program: Program, what: int, soft: int) -> AsyncIterator[None]:
    """The process alone may use no more of `what` (RLIMIT_*); its hard limit stays, so that it can be healed."""
    _, hard = resource.prlimit(program.pid, what)
    before = resource.prlimit(program.pid, what, (soft, hard))
    try:
        yield
    finally:
        resource.prlimit(program.pid, what, before)


async def test_row_32_no_descriptors_left(stack: Stack, open_ledger: OpenLedger) -> None:
    """A worker that can open nothing more, when it needs a connection to the storage and a new child, puts its jobs off
    or retries them, lives, and goes on when it may."""
    await stack.start(gateways=1, workers=1, max_attempts="100")
    ledger, (worker,) = open_ledger(), stack.workers
    pid, children = worker.pid, worker.children()
    stack.ground.s3_proxy.drop()
    async with limited(worker, resource.RLIMIT_NOFILE, max(map(int, os.listdir(f"/proc/{worker.pid}/fd"))) - 3):
        for child in children:
            os.kill(child, signal.SIGKILL)
        accepted = await ledger.put()
        assert accepted is not None

        async def failed() -> bool:
            statement = "select count(*) from job_attempt where outcome in ('retry', 'snoozed', 'crashed')"
            return bool(await stack.value(statement) >= 2)

        await until(failed, "its jobs were put off", seconds=20)
    assert await check(stack, ledger) == []
    assert (worker.pid, worker.exit_code) == (pid, None)
    assert {row["state"] for row in await stack.fetch("select distinct state from job")} == {"done"}


async def test_row_32_disk_full(stack: Stack, open_ledger: OpenLedger) -> None:
    """A gateway and a worker that cannot write to any file, not even their logs, take photos and do their jobs all the
    same, keep their leases over an outage too, and log again when they can."""
    await stack.start(gateways=1, workers=1)
    ledger, (gateway,), (worker,) = open_ledger(), stack.gateways, stack.workers
    pids = [gateway.pid, worker.pid]
    full_bytes = {program: program.log_path.stat().st_size for program in (gateway, worker)}
    async with contextlib.AsyncExitStack() as full:
        for program, size_bytes in full_bytes.items():
            await full.enter_async_context(limited(program, resource.RLIMIT_FSIZE, size_bytes))
        load = await ledger.load(per_second=5, seconds=3)
        await stack.drain(seconds=20)
        stack.ground.postgres_proxy.drop()
        children = worker.freeze_children()
        assert await ledger.put() is not None
        held_at = await stack.value("select clock_timestamp()")

        async def outlives_its_lease() -> bool:
            statement = "select count(*) from job where state = 'running' and now() > $1::timestamptz + interval '4 s'"
            return bool(await stack.value(statement, held_at) == 2)

        await until(outlives_its_lease, "its leases are renewed for longer than one lasts", seconds=10)
        thaw(children)
        await stack.drain(seconds=20)
        for program, size_bytes in full_bytes.items():
            assert program.log_path.stat().st_size <= size_bytes
    assert len(load) == 15
    assert {item.status for item in ledger.refused} <= {503}
    assert await ledger.put() is not None
    assert await check(stack, ledger) == []
    for program, size_bytes in full_bytes.items():
        assert program.log_path.stat().st_size > size_bytes
    assert [gateway.pid, worker.pid] == pids
    assert "expired" not in {row["outcome"] for row in await stack.fetch("select distinct outcome from job_attempt")}
