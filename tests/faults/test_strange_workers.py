"""Workers whose children are poisoned or taken over, whose clock is wrong, or whose code is old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness.invariants import check
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.plugins import make_python_with_clock, make_python_with_processors
from tests.faults.harness.rates import Rate
from tests.faults.harness.runs import attempts, job, outcomes
from tests.faults.harness.stack import LEASE_SECONDS, Stack
from tests.faults.harness.waiting import until, until_true

OpenLedger = Callable[..., Ledger]


async def test_row_24_poison_photo(stack: Stack, open_ledger: OpenLedger, tmp_path: Path) -> None:
    """A processor that segfaults each time makes its job dead after three crashes; worker and neighbours are
    unharmed."""
    python = make_python_with_processors(tmp_path / "python", ["segfault"])
    stack.processors = (*stack.processors, "segfault")
    gateway, worker = (stack.launch(kind, python=python) for kind in ("gateway", "worker"))
    await asyncio.gather(gateway.ready(), worker.ready())
    pid, ledger = worker.pid, open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    assert await check(stack, ledger) == []
    row = await job(stack, accepted.id, "segfault")
    assert (row["state"], row["crashes"], row["error_code"]) == ("dead", 3, "decoder_crashed")
    assert row["error"]["reason"] == "signal:SIGSEGV"
    assert await outcomes(stack, accepted.id, "segfault") == ["crashed"] * 3
    assert await outcomes(stack, accepted.id, "preview") == ["ok"]
    assert (worker.pid, worker.exit_code) == (pid, None)


async def test_row_28_child_taken_over(stack: Stack, open_ledger: OpenLedger, tmp_path: Path) -> None:
    """Children that send junk, announce a huge frame or never answer are killed and replaced, and their jobs die after
    three crashes; one that would fork and stay cannot, and its job dies of that. The worker goes on with sound photos
    at the rate of before."""
    evil = ("junk", "huge", "hang")
    rate = Rate(stack, tmp_path, others=(*evil, "fork"))
    gateway = stack.launch("gateway")
    worker = stack.launch("worker", child_wall_seconds="1")
    await asyncio.gather(gateway.ready(), worker.ready())
    pid, ledger, before = worker.pid, open_ledger(), worker.sample()
    await rate.measure(ledger.put_under)
    accepted = await ledger.put()
    assert accepted is not None
    assert await check(stack, ledger, before={worker: before}) == []
    reasons = {name: (await job(stack, accepted.id, name))["error"]["reason"] for name in evil}
    assert reasons == {"junk": "protocol", "huge": "protocol", "hang": "wall_time"}
    for name in evil:
        assert await outcomes(stack, accepted.id, name) == ["crashed"] * 3
    (ready,) = (line for line in worker.log() if line.get("event") == "sandbox.ready")
    assert ready["process_filter"] is True, "this kernel has no filter of system calls, which the test needs"
    refused = await job(stack, accepted.id, "fork")
    assert (refused["state"], refused["crashes"], refused["error_code"]) == ("dead", 0, "processor_failed")
    assert "PermissionError" in refused["error"]["detail"]
    assert (worker.pid, worker.exit_code) == (pid, None)
    assert not [line for line in worker.log() if "grandchild=" in str(line.get("text"))]
    await rate.assert_kept(ledger.put_under)


@pytest.mark.parametrize("shift_seconds", [3600, -3600], ids=["ahead", "behind"])
async def test_row_30_worker_with_a_wrong_clock(
    stack: Stack, open_ledger: OpenLedger, tmp_path: Path, shift_seconds: float
) -> None:
    """A worker whose clock is an hour off neither takes the running job of another nor loses its own: only the
    database's clock counts."""
    python = make_python_with_clock(tmp_path / "python", shift_seconds=shift_seconds)
    await stack.start(gateways=1, workers=0)
    hold = f"claim.after:sleep={LEASE_SECONDS * 1.5}:1"
    wrong = stack.launch("worker", python=python, worker_slots="1", failpoint=hold)
    right = stack.launch("worker", worker_slots="1", failpoint=hold)
    await asyncio.gather(wrong.ready(), right.ready())
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await until_true(lambda: wrong.hits("claim.after") == right.hits("claim.after") == 1, "both run", seconds=10)
    assert await check(stack, ledger) == []
    rows = [*await attempts(stack, accepted.id, "preview"), *await attempts(stack, accepted.id, "exif")]
    assert "expired" not in [row["outcome"] for row in rows]
    assert {row["worker"].rsplit("-", 2)[1] for row in rows} >= {str(wrong.pid), str(right.pid)}
    assert await stack.value("select max(expiries) from job") == 0


async def test_row_31_old_worker_meets_a_new_processor(stack: Stack, open_ledger: OpenLedger, tmp_path: Path) -> None:
    """A job of a processor that the running worker does not know, or only in an older version, waits untouched for a
    worker that does; the others are done meanwhile."""
    python = make_python_with_processors(tmp_path / "python", ["echo"])
    stack.processors = (*stack.processors, "echo")
    gateway = stack.launch("gateway", python=python)
    old = stack.launch("worker")
    await asyncio.gather(gateway.ready(), old.ready())
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None

    async def redispatched() -> bool:
        row = await job(stack, accepted.id, "echo")
        done = await stack.value("select count(*) from job where outcome = 'ok'")
        return bool(done == 2 and row["dispatched_at"] > sent_at)

    async def dispatched() -> Any:
        return (await job(stack, accepted.id, "echo"))["dispatched_at"]

    sent_at = await until(dispatched, "the unknown job was sent", seconds=10)
    await until(redispatched, "it was sent again, and the known ones are done", seconds=10)
    row = await job(stack, accepted.id, "echo")
    assert (row["state"], row["attempt"], row["token"]) == ("ready", 0, 0)
    assert old.logged("task.failed") == 0
    await stack.value("update job set version = 2 where object_id = $1 and processor = 'echo'", accepted.id)
    new = stack.launch("worker", python=python)
    await new.ready()
    assert (await job(stack, accepted.id, "echo"))["token"] == 0  # the new one knows version 1
    await stack.value("update job set version = 1 where object_id = $1 and processor = 'echo'", accepted.id)
    assert await check(stack, ledger) == []
    assert f"-{new.pid}-" in (await attempts(stack, accepted.id, "echo"))[0]["worker"]
