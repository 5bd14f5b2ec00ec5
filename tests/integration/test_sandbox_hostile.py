"""The slower half of the sandbox's promises: process lifetimes, large photos, and a corpus of hostile
files.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from processors.contract import Options, Preset, Unprocessable
from processors.photos import formats
from processors.sandbox.pool import ChildCrashed, ProcessorFailed, Sandbox
from processors.sandbox.process import Child
from tests import hostile_photos
from tests.hostile_structures import structures
from tests.unit.sandbox.pools import OPTIONS, assert_usable, gone, sandbox, source


@pytest.fixture
async def pool() -> AsyncIterator[Sandbox]:
    async with sandbox() as opened:
        yield opened


@pytest.mark.parametrize("then", ["signal.pause()", "if pid: os._exit(7)\nelse: signal.pause()"])
async def test_a_grandchild_is_killed_with_its_child(then: str) -> None:
    """What a child forked, where no filter forbids it, dies with it, whether the child is killed or ends by itself: the
    whole process group is killed.
    """
    pipe = asyncio.subprocess.PIPE
    script = f"import os, signal\npid = os.fork()\nif pid: print(pid, flush=True)\n{then}"
    forker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    assert forker.stdout is not None
    child, grandchild = Child(forker), int(await forker.stdout.readline())
    async with asyncio.timeout(10):
        while "exit" in then and child.alive:  # noqa: ASYNC110  wait() would wait for the grandchild too
            await asyncio.sleep(0.005)
        await child.gone()
    assert await gone(grandchild)


async def test_a_start_that_fails_strangely_loses_no_slot(pool: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw at the start of a child fails one photo, and the next one is processed."""

    async def fail(limits: object) -> Child:
        monkeypatch.undo()
        raise RuntimeError("no event loop policy")

    monkeypatch.setattr("processors.sandbox.pool.start", fail)
    with pytest.raises(ChildCrashed):
        await pool.run("exit", source(), OPTIONS)
    with pytest.raises(ProcessorFailed) as failed:
        await pool.run("echo", source(), OPTIONS)
    assert (failed.value.kind, failed.value.trace) == ("ChildNotStarted", "RuntimeError: no event loop policy")
    async with asyncio.timeout(10):
        await assert_usable(pool)


async def test_busy_loops_end_by_cpu_time(pool: Sandbox) -> None:
    """A child that burns CPU is ended by the kernel before its wall time."""
    with pytest.raises(ChildCrashed, match="cpu_time"):
        await pool.run("spin", source(), OPTIONS)


async def test_children_are_replaced_after_their_photos() -> None:
    """After photos_per_child photos another child answers, and no photo is lost at the change."""
    async with sandbox(photos_per_child=2) as pool:
        pids = [await assert_usable(pool) for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


async def test_a_child_that_dies_idle_costs_no_photo(pool: Sandbox) -> None:
    """A child killed from outside between two photos is noticed before the next one is given to it."""
    (before,) = pool.child_pids
    os.kill(before, signal.SIGKILL)
    assert await gone(before)
    async with asyncio.timeout(5):
        while pool.child_pids:  # noqa: ASYNC110  there is no event for what the kernel does
            await asyncio.sleep(0.005)
    assert await assert_usable(pool) != before


async def test_closing_kills_all_at_once_and_frees_those_who_wait() -> None:
    """close() ends running and waiting calls with an error that is no crash, and leaves no process."""
    pool = sandbox()
    await pool.__aenter__()
    pids = pool.child_pids
    calls = [asyncio.create_task(pool.run("hang", source(), OPTIONS)) for _ in range(3)]
    await asyncio.sleep(0)
    await pool.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [ProcessorFailed] * 3
    assert all([await gone(pid) for pid in pids])
    with pytest.raises(ProcessorFailed):
        await pool.run("echo", source(), OPTIONS)


async def test_a_large_photo_does_not_block_the_event_loop(pool: Sandbox) -> None:
    """64 MiB go to a child and back while the loop keeps turning."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    data = os.urandom(1 << 20) * 64
    outcome = await pool.run("echo", source(data), OPTIONS)
    counting.cancel()
    assert outcome.artifacts[0].data == data
    assert turns > 100


async def test_children_die_with_the_worker() -> None:
    """A worker killed with SIGKILL leaves no child behind."""
    script = (
        "import asyncio\n"
        "from processors.sandbox.pool import Sandbox\n"
        "async def main():\n"
        "    async with Sandbox(slots=1, wall_seconds=9, memory_bytes=1 << 30, photos_per_child=9) as pool:\n"
        "        print('pid', *pool.child_pids, flush=True)\n"
        "        await asyncio.sleep(30)\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    line = b""
    while not line.startswith(b"pid"):
        line = await worker.stdout.readline()
        assert line, "the worker ended before its child was ready"
    worker.kill()
    await worker.wait()
    assert await gone(int(line.split()[1]))


async def test_slots_work_at_the_same_time() -> None:
    """Two slots overlap two photos: together they take less than one after the other would."""
    async with sandbox(slots=2) as pool:
        started = asyncio.get_running_loop().time()
        nap = source(struct.pack(">d", 0.4))
        first, second = await asyncio.gather(pool.run("sleep", nap, OPTIONS), pool.run("sleep", nap, OPTIONS))
        assert asyncio.get_running_loop().time() - started < 0.75
        assert first.facts != second.facts


async def test_a_photo_larger_than_the_memory_is_a_memory_crash() -> None:
    """A child that cannot even take the bytes in says so, and the next photo is processed."""
    async with Sandbox(slots=1, wall_seconds=10, memory_bytes=256 << 20, photos_per_child=9) as opened:
        with pytest.raises(ChildCrashed, match="memory"):
            await opened.run("exif", source(bytes(400 << 20)), OPTIONS)
        assert await judge(opened, hostile_photos.polyglots()["zip"]) == "read"


HOSTILE_FILES = {
    "makernote bomb": (hostile_photos.makernote_bomb, "read"),
    "pointer bomb": (hostile_photos.pointer_bomb, "read"),
    "huge text count": (hostile_photos.huge_text_count, "read"),
    "text bomb": (hostile_photos.text_bomb, "read"),
    "profile bomb": (lambda: hostile_photos.text_bomb(b"iCCP"), "read"),
    "exif bomb": (hostile_photos.exif_bomb, "read"),
    "many frames": (hostile_photos.many_frames_gif, "too_many_frames"),
    "rgba16 near the limit": (hostile_photos.rgba16_near_the_limit, "read"),
    "pixel bomb": (hostile_photos.pixel_bomb, "side_too_long"),
    "scan bomb": (lambda: hostile_photos.scan_bomb(3_000, 6_000), "too_many_scans"),
    "circular tiff": (hostile_photos.circular_tiff, "malformed"),
    "huge tiff counts": (hostile_photos.tiff_of_huge_counts, "malformed"),
    "lying heic": (hostile_photos.heic_that_lies, "metadata_too_large"),
    **structures(),
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
async def test_every_bomb_gets_its_verdict_within_the_limits(name: str) -> None:
    """Each hostile file ends with a preview or its code in a child of 1 GiB, in seconds, and the child
    lives.
    """
    make, expected = HOSTILE_FILES[name]
    limits = {"wall_seconds": 15, "memory_bytes": 1 << 30, "photos_per_child": 500}
    async with Sandbox(slots=1, **limits) as opened:  # type: ignore[arg-type]
        before = opened.child_pids
        started = time.monotonic()
        verdict = await judge(opened, make())
        assert verdict == expected
        assert time.monotonic() - started < 10
        assert opened.child_pids == before


async def test_mutated_files_all_get_a_verdict() -> None:
    """2,400 damaged files: a preview or a known code for each; no crash, no bug, no child lost, memory
    flat.
    """
    seed = int(os.environ.get("MUTATION_SEED", "20"))
    number = int(os.environ.get("MUTATIONS", "2400"))
    print("seed", seed)
    async with Sandbox(slots=2, wall_seconds=15, memory_bytes=1 << 30, photos_per_child=100_000) as opened:
        before = opened.child_pids
        files = hostile_photos.mutations(hostile_photos.sound_photos(), number, seed)
        verdicts: Counter[str] = Counter()

        async def work() -> None:
            for what, data in files:
                try:
                    verdicts[await judge(opened, data)] += 1
                except (ChildCrashed, ProcessorFailed) as error:
                    raise AssertionError(f"{what} (seed {seed}): {error}") from error

        await asyncio.gather(work(), work())
        assert opened.child_pids == before
        assert max(resident_bytes(pid) for pid in before) < 400 << 20
    print(verdicts)
    assert sum(verdicts.values()) == number
    assert set(verdicts) <= {"read", *formats.CODES}
    assert verdicts["read"] and verdicts["truncated"] and verdicts["malformed"]


async def judge(opened: Sandbox, data: bytes) -> str:
    """Both processors' verdict on a file: "read", or the code of the rejection."""
    options = Options(presets=(Preset(name="p", max_side_px=64, format="jpeg", quality=80),))
    try:
        await opened.run("exif", source(data), options)
        await opened.run("preview", source(data), options)
    except Unprocessable as error:
        return error.code
    return "read"


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
