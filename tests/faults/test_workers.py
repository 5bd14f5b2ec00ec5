"""Workers that are killed at any point, frozen, stopped or scaled lose nothing and do nothing twice."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable

from tests.faults.harness.invariants import check
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.programs import Program, alive, thaw
from tests.faults.harness.rates import Rate
from tests.faults.harness.runs import attempts, job, now, outcomes, running
from tests.faults.harness.stack import LEASE_SECONDS, REDISPATCH_SECONDS, Stack
from tests.faults.harness.waiting import until, until_true

OpenLedger = Callable[..., Ledger]
KILL_POINTS = (
    "claim.after", "read.after", "child.running", "artifact.put_before", "artifact.put_after", "finish.before_commit",
    "finish.after_commit",
)  # fmt: skip


async def test_row_01_killed_at_every_point(stack: Stack, open_ledger: OpenLedger) -> None:
    """A worker that is killed at any point of a run, the commit's two sides included, costs its job one lease + 1 s:
    another worker runs it again, and each effect is there once."""
    armed = ",".join(f"{point}:kill:1" for point in KILL_POINTS)
    lease_seconds = 2
    short = {"worker_slots": "1", "lease_seconds": str(lease_seconds)}
    await stack.start(gateways=1, workers=0)
    victim = stack.launch("worker", failpoint=armed, **short)
    other = stack.launch("worker", **short)
    await asyncio.gather(victim.ready(), other.ready())
    ledger = open_ledger()
    left = set(KILL_POINTS)
    while left:
        other.suspend()
        accepted = await ledger.put()
        assert accepted is not None
        await victim.ended(seconds=10)
        killed_at = await now(stack)
        other.resume()
        assert victim.exit_code == -signal.SIGKILL
        (point,) = {name for name in left if victim.hits(name)}  # of two jobs, either may have come first
        left.remove(point)
        await stack.drain(seconds=15)
        for processor in ("preview", "exif"):
            rows = await attempts(stack, accepted.id, processor)
            assert [row["outcome"] for row in rows][-1] == "ok"
            for lost, again in itertools.pairwise(rows):
                assert lost["outcome"] == "expired", point
                assert (again["started_at"] - killed_at).total_seconds() <= lease_seconds + 1, point
        victim.restart()
        await victim.ready()
    assert await check(stack, ledger) == []
    assert stack.errors() == []


async def test_row_01_killed_while_it_beats(stack: Stack, open_ledger: OpenLedger) -> None:
    """A worker that is killed just before it renews its leases is as dead as any other: the job runs again within a
    lease + 1 s of the last beat, by the worker that comes after it."""
    await stack.start(gateways=1, workers=0)
    victim = await stack.start_worker(failpoint="child.running:sleep=8:1,beat.before:kill:1", worker_slots="1")
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await victim.ended(seconds=10)
    assert victim.hits("beat.before") == 1
    victim.restart()
    assert await check(stack, ledger) == []
    rows = [*await attempts(stack, accepted.id, "preview"), *await attempts(stack, accepted.id, "exif")]
    lost = [row for row in rows if row["outcome"] == "expired"]
    assert lost
    assert all((row["ended_at"] - row["started_at"]).total_seconds() <= LEASE_SECONDS + 1 for row in lost)


async def test_row_01_child_killed_in_the_midst_of_a_photo(stack: Stack, open_ledger: OpenLedger) -> None:
    """A decoder that is killed -9 over a photo costs the job one crash; the worker lives and runs it again at once."""
    await stack.start(gateways=1, workers=1, failpoint="child.running:sleep=0")
    (worker,) = stack.workers
    pid, children = worker.pid, worker.freeze_children()
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await until_true(lambda: worker.hits("child.running") == 2, "both children have a photo", seconds=10)
    for child in children:
        os.kill(child, signal.SIGKILL)
    assert await check(stack, ledger) == []
    for processor in ("preview", "exif"):
        assert await outcomes(stack, accepted.id, processor) == ["crashed", "ok"]
        assert (await job(stack, accepted.id, processor))["crashes"] == 1
    assert (worker.pid, worker.exit_code) == (pid, None)


async def test_row_02_parent_killed_leaves_no_children(stack: Stack, open_ledger: OpenLedger) -> None:
    """kill -9 of a worker takes all its decoders with it within 1 s, those at work too; another worker takes over
    within a lease + 1 s."""
    await stack.start(gateways=1, workers=1)
    (victim,) = stack.workers
    children = victim.freeze_children()
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await running(stack, accepted.id)
    await stack.start_worker()
    killed_at = await now(stack)
    victim.kill()
    await until_true(lambda: not any(map(alive, children)), "the children are gone", seconds=1)
    assert await check(stack, ledger) == []
    rows = await attempts(stack, accepted.id, "preview")
    assert [row["outcome"] for row in rows] == ["expired", "ok"]
    assert (rows[1]["started_at"] - killed_at).total_seconds() <= LEASE_SECONDS + 1


async def test_row_03_workers_killed_again_and_again(
    stack: Stack, open_ledger: OpenLedger, rate: Rate, seed: int
) -> None:
    """Under steady load, with a busy worker killed -9 again and again: nothing is lost, no innocent job dies, and
    afterwards the rate is 95 % of the baseline's at least."""
    await stack.start(gateways=1, workers=2)
    ledger = open_ledger()
    await rate.measure(ledger.put_under)
    async with ledger.loading(per_second=5):
        for number in range(4):
            victim = stack.workers[(seed + number) % len(stack.workers)]

            async def busy(worker: Program = victim) -> bool:
                statement = "select exists (select from job where state = 'running' and worker like $1)"
                return bool(await stack.value(statement, f"%-{worker.pid}-%"))

            await until(busy, f"{victim.name} runs a job", seconds=15)
            victim.kill()
            victim.restart()
            await victim.ready()
    assert await check(stack, ledger) == []
    assert {row["state"] for row in await stack.fetch("select distinct state from job")} == {"done"}
    await rate.assert_kept(ledger.put_under)
    assert await stack.value("select count(*) from job_attempt where outcome = 'expired'") >= 2


async def test_row_04_told_to_stop(stack: Stack, open_ledger: OpenLedger) -> None:
    """SIGTERM: an idle worker is gone within 2 s; a busy one finishes its job first; one whose decoder is blocked
    gives its job back, unspent, when its grace is over, and another worker runs it without waiting for the lease."""
    await stack.start(gateways=1, workers=1, lease_seconds="60")
    ledger = open_ledger()
    (idle,) = stack.workers
    assert await idle.stop() <= 2
    assert idle.exit_code == 0

    busy = await stack.start_worker(lease_seconds="60", failpoint="child.running:sleep=2:2")
    accepted = await ledger.put()
    assert accepted is not None
    await running(stack, accepted.id)
    assert await busy.stop() <= 5
    assert busy.exit_code == 0
    assert await outcomes(stack, accepted.id, "preview") == ["ok"]

    blocked = await stack.start_worker(lease_seconds="60", grace_seconds="1")
    blocked.freeze_children()
    accepted = await ledger.put()
    assert accepted is not None
    await running(stack, accepted.id)
    assert await blocked.stop() <= 1 + 3
    assert blocked.exit_code == 0
    row = await job(stack, accepted.id, "preview")
    assert (row["state"], row["attempt"], row["lease_until"]) == ("ready", 0, None)
    await stack.start_worker(lease_seconds="60")
    assert await check(stack, ledger, drain_seconds=5) == []
    assert await outcomes(stack, accepted.id, "preview") == ["released", "ok"]


async def test_row_04_killed_while_it_stops(stack: Stack, open_ledger: OpenLedger) -> None:
    """A worker that is killed in the midst of stopping costs its job a lease, not more."""
    await stack.start(gateways=1, workers=0)
    victim = await stack.start_worker(failpoint="shutdown.begin:kill:1", grace_seconds="0", worker_slots="1")
    victim.freeze_children()
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await running(stack, accepted.id)
    victim.terminate()
    await victim.ended(seconds=10)
    assert (victim.exit_code, victim.hits("shutdown.begin")) == (-signal.SIGKILL, 1)
    victim.restart()
    assert await check(stack, ledger) == []
    assert await outcomes(stack, accepted.id, "preview") == ["expired", "ok"]


async def test_row_05_frozen_longer_than_its_lease(stack: Stack, open_ledger: OpenLedger) -> None:
    """A worker that freezes between the put and the commit loses its job to another one; thawed, it is fenced off,
    and the effect is there once."""
    await stack.start(gateways=1, workers=0)
    frozen = await stack.start_worker(failpoint="artifact.put_after:stop:1")
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await until_true(lambda: frozen.hits("artifact.put_after") == 1, "the worker freezes", seconds=10)
    frozen_at = await now(stack)
    other = await stack.start_worker()
    await stack.drain(seconds=15)
    rows = await attempts(stack, accepted.id, "preview")
    assert [row["outcome"] for row in rows] == ["expired", "ok"]
    assert (rows[0]["ended_at"] - frozen_at).total_seconds() <= LEASE_SECONDS + 1
    assert f"-{other.pid}-" in rows[1]["worker"]
    frozen.resume()
    await until_true(lambda: fenced(frozen) >= 1, "the late worker is fenced off", seconds=10)
    assert await check(stack, ledger) == []
    assert await outcomes(stack, accepted.id, "preview") == ["expired", "ok"]
    assert await stack.value("select count(*) from artifact where object_id = $1", accepted.id) == 2
    later = await ledger.put()
    assert later is not None
    assert await check(stack, ledger) == []


async def test_row_05_frozen_in_the_midst_of_its_commit(stack: Stack, open_ledger: OpenLedger) -> None:
    """A worker that freezes with a transaction open holds its locks no longer than Postgres lets it: another worker
    finishes the job after the lease, and the thawed one changes nothing."""
    await stack.start(gateways=1, workers=0)
    frozen = await stack.start_worker(failpoint="finish.before_commit:stop:1", worker_slots="1")
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await until_true(lambda: frozen.hits("finish.before_commit") == 1, "the worker freezes", seconds=10)
    await stack.start_worker()
    await stack.drain(seconds=LEASE_SECONDS + 10)
    frozen.resume()
    await until_true(lambda: fenced(frozen) >= 1, "the late worker is fenced off", seconds=10)
    assert await check(stack, ledger) == []
    for processor in ("preview", "exif"):
        assert (await outcomes(stack, accepted.id, processor)).count("ok") == 1


def fenced(worker: Program) -> int:
    """Runs that the worker threw away: at the commit, or because a beat told it before."""
    return worker.logged("job.fenced") + worker.logged("job.lost")


async def test_row_33_scaled_up_and_down(stack: Stack, open_ledger: OpenLedger) -> None:
    """From one worker to four and back under load: each takes its share, none is lost, nothing runs twice."""
    await stack.start(gateways=1, workers=1, worker_slots="1")
    ledger = open_ledger()
    (first,) = stack.workers
    async with ledger.loading(per_second=8):
        added = [stack.launch("worker", worker_slots="1") for _ in range(3)]
        await asyncio.gather(*(worker.ready() for worker in added))

        async def shared() -> bool:
            rows = await stack.fetch("select distinct worker from job_attempt where outcome = 'ok'")
            return all(any(f"-{worker.pid}-" in row["worker"] for row in rows) for worker in stack.workers)

        await until(shared, "each of four workers ended a job", seconds=20)
        await asyncio.gather(*(worker.stop() for worker in added))
        ended = first.logged("job.done")
        await until_true(lambda: first.logged("job.done") > ended + 4, "the last worker goes on", seconds=10)
    assert [worker.exit_code for worker in added] == [0, 0, 0]
    assert await check(stack, ledger) == []
    assert {row["outcome"] for row in await stack.fetch("select outcome from job_attempt")} <= {"ok", "released"}


async def test_row_39_dispatchers_killed_at_their_points(stack: Stack, open_ledger: OpenLedger) -> None:
    """A gateway that dies after it marked a job as sent, or after it took one back, delays the job by a redispatch +
    1 s: any other process goes on with it."""
    await stack.start(gateways=0, workers=1)
    gateway = await stack.start_gateway(failpoint="mark.after:kill:1,reap.after:kill:1")
    ledger = open_ledger()
    (worker,) = stack.workers
    worker.suspend()
    accepted = await ledger.put(gateway=gateway)
    await gateway.ended(seconds=10)
    assert (gateway.exit_code, gateway.hits("mark.after")) == (-signal.SIGKILL, 1)
    killed_at = await now(stack)
    worker.resume()
    await stack.drain(seconds=10)
    ended = await stack.value("select max(finished_at) from job")
    assert (ended - killed_at).total_seconds() <= REDISPATCH_SECONDS + 1
    assert accepted is None or accepted.id == await stack.value("select id from object")

    gateway.restart()
    await gateway.ready()
    children = worker.freeze_children()
    accepted = await ledger.put()
    assert accepted is not None
    await running(stack, accepted.id)
    worker.suspend()
    await gateway.ended(seconds=LEASE_SECONDS + 5)
    assert (gateway.exit_code, gateway.hits("reap.after")) == (-signal.SIGKILL, 1)
    thaw(children)
    worker.resume()
    gateway.restart()
    await gateway.ready()
    assert await check(stack, ledger) == []
    assert (await outcomes(stack, accepted.id, "preview"))[-1] == "ok"


async def test_row_39_background_work_outlives_unforeseen_errors(stack: Stack, open_ledger: OpenLedger) -> None:
    """An error that nobody foresaw in a heartbeat or in a round of dispatching costs that turn alone: a job of two
    leases' length keeps its lease, and later jobs are sent."""
    await stack.start(gateways=1, workers=0, failpoint="mark.after:raise:1")
    hold = f"beat.before:raise:1,child.running:sleep={LEASE_SECONDS * 2}:1"
    worker = await stack.start_worker(failpoint=hold, poll_seconds="60")
    (gateway,) = stack.gateways
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    assert await check(stack, ledger) == []
    assert gateway.hits("mark.after") + worker.hits("beat.before") == 2
    assert await outcomes(stack, accepted.id, "preview") == await outcomes(stack, accepted.id, "exif") == ["ok"]
    assert gateway.logged("dispatch.failed") == worker.logged("worker.turn_failed") == 1
