"""Children that die, hang, lie or print: each costs itself alone, and the pool goes on.

All tests of this file share one pool of one slot, so each also shows that the ones before it left it usable.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from processors.contract import Incomplete, Source, Unprocessable
from processors.sandbox.pool import ChildCrashed, ProcessorFailed, Sandbox
from tests import photos
from tests.unit.sandbox.pools import OPTIONS, assert_usable, gone, sandbox, source

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[Sandbox]:
    async with sandbox() as opened:
        yield opened


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        ("kill-self", "signal:SIGKILL"),
        ("segfault", "signal:SIGSEGV"),
        ("exit", "exit:7"),
        ("allocate", "memory"),
        ("junk", "protocol"),
        ("huge", "protocol"),
        ("lie", "protocol"),
    ],
)
async def test_a_dead_or_lying_child_is_named_and_replaced(pool: Sandbox, processor: str, reason: str) -> None:
    """Each way to break has its reason, and the next photo is processed by a new child."""
    (before,) = pool.child_pids
    with pytest.raises(ChildCrashed) as caught:
        await pool.run(processor, source(), OPTIONS)
    assert caught.value.reason == reason
    assert await assert_usable(pool) != before
    assert await gone(before)


async def test_a_child_that_never_answers_is_killed_at_the_wall_time() -> None:
    """A hang ends at wall_seconds, with SIGKILL, and leaves no process behind."""
    async with sandbox(wall_seconds=0.3) as pool:
        (before,) = pool.child_pids
        started = asyncio.get_running_loop().time()
        with pytest.raises(ChildCrashed, match="wall_time"):
            await pool.run("hang", source(), OPTIONS)
        assert 0.3 <= asyncio.get_running_loop().time() - started < 2
        assert await gone(before)
        await assert_usable(pool)


async def test_one_crash_costs_no_other_photo() -> None:
    """While children crash one after the other, photos in the other slot all come back, each its own."""
    async with sandbox(slots=2) as pool:

        async def crash() -> str:
            with pytest.raises(ChildCrashed) as caught:
                await pool.run("segfault", source(), OPTIONS)
            return caught.value.reason

        echoes = [pool.run("echo", source(b"%d" % n), OPTIONS) for n in range(30)]
        results = await asyncio.gather(*echoes, crash(), crash(), crash())
        assert [outcome.artifacts[0].data for outcome in results[:30]] == [b"%d" % n for n in range(30)]
        assert results[30:] == ["signal:SIGSEGV"] * 3


async def test_verdicts_of_the_processor_arrive_and_keep_the_child(pool: Sandbox) -> None:
    """Unprocessable, Incomplete and a bug are answers, not crashes: the same child goes on."""
    (before,) = pool.child_pids
    with pytest.raises(Unprocessable) as refused:
        await pool.run("refuse", source(), OPTIONS)
    assert (refused.value.code, refused.value.detail) == ("malformed", "The file is damaged.")
    with pytest.raises(Incomplete):
        await pool.run("incomplete", Source(data=b"head", size_bytes=99, complete=False), OPTIONS)
    with pytest.raises(ProcessorFailed) as failed:
        await pool.run("bug", source(), OPTIONS)
    assert failed.value.kind == "ZeroDivisionError"
    assert "_bug" in failed.value.trace and "\0" not in failed.value.trace
    for name, kind in (("bad-facts", "ValueError"), ("no-such-processor", "KeyError")):
        with pytest.raises(ProcessorFailed) as failed:
            await pool.run(name, source(), OPTIONS)
        assert failed.value.kind == kind
    assert await assert_usable(pool) == before


async def test_prints_do_not_break_the_frames(pool: Sandbox) -> None:
    """What libraries print goes to the log, bounded, and not into the answers."""
    with capture_logs() as logs:
        assert (await pool.run("print", source(), OPTIONS)).facts == {"said": True}
        await assert_usable(pool)
    assert sum(len(str(entry.get("text", ""))) for entry in logs) < 100_000


async def test_cancelling_kills_the_child_and_the_pool_goes_on(pool: Sandbox) -> None:
    """A cancelled run leaves no child at work: nobody would know what it is doing."""
    (before,) = pool.child_pids
    running = asyncio.create_task(pool.run("hang", source(), OPTIONS))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await assert_usable(pool) != before
    assert await gone(before)


async def test_what_a_taken_over_child_can_still_do(pool: Sandbox) -> None:
    """No secrets, no writing, no core, no privileges; no network and no reading where the kernel allows to
    forbid it.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        facts = (await pool.run("probe", Source(data=b"", size_bytes=port), OPTIONS)).facts
    assert facts is not None
    assert not [name for name in facts["environment"] if not name.startswith(("LANG", "LC_", "MALLOC_", "VIPS_"))]
    assert (facts["core"], facts["file_size"], facts["open_files"], facts["no_new_privileges"]) == (0, 0, 32, 1)
    if pool.confinement["network_namespace"]:
        assert facts["connect"] != "allowed"
    landlock = pool.confinement["landlock"]
    assert isinstance(landlock, int)
    if landlock:
        assert (facts["write"], facts["read_etc"]) == ("PermissionError", "PermissionError")
        assert (facts["read_parent"], facts["read_parent_memory"]) == ("PermissionError", "PermissionError")
    if landlock >= 6:
        assert facts["signal_parent"] == "PermissionError"


@pytest.mark.parametrize("processor", ["fork", "fork-away"])
async def test_a_child_starts_no_other_process(pool: Sandbox, processor: str) -> None:
    """A child cannot fork, so that nothing of it outlives its kill, not even in a session of its own; it goes on."""
    if not pool.confinement["process_filter"]:
        pytest.skip("this kernel has no filter of system calls")
    (before,) = pool.child_pids
    with pytest.raises(ProcessorFailed) as failed:
        await pool.run(processor, source(), OPTIONS)
    assert failed.value.kind == "PermissionError"
    assert await assert_usable(pool) == before


async def test_the_real_processors_run_in_the_child(pool: Sandbox) -> None:
    """Previews and facts of a real JPEG come out of a confined child, HEIC through libheif too."""
    for make in (photos.make_jpeg, photos.make_heic):
        data = make(128, 96, exif=photos.Exif())
        (artifact,) = (await pool.run("preview", source(data), OPTIONS)).artifacts
        assert (artifact.width_px, artifact.height_px, artifact.data[8:12]) == (64, 48, b"WEBP")
        facts = (await pool.run("exif", source(data), OPTIONS)).facts
        assert facts is not None and facts["make"] == "Lumen"
