"""A run of random faults under open-loop load, the same for the same seed: `python -m tests.faults.chaos --seconds 60
--seed 1`. Every 2.5 s something is killed, frozen, cut or emptied, often several at a time; then all is healed and the
nine invariants are checked, with how long the drain and the slowest photos took. Exits with 1 where one is violated.
`--targets worker,redis` harms only those. Only what it started itself is ever harmed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from safelight.embedded import Server
from tests.faults.harness.ground import open_ground
from tests.faults.harness.invariants import check, check_growth
from tests.faults.harness.ledger import Ledger, percentile
from tests.faults.harness.programs import Program, Sample
from tests.faults.harness.proxy import Fault
from tests.faults.harness.shim import Shim, Spoil
from tests.faults.harness.stack import LEASE_SECONDS, Stack, open_stack
from tests.faults.harness.waiting import until_true
from tests.photos import make_jpeg

EVERY_SECONDS = 2.5
RECOVERY_SECONDS = 20.0
BACK_SECONDS = 5.0  # until everything goes on after an outage of Postgres or S3
DRAIN_SECONDS = 60.0
DRAINED_SECONDS = LEASE_SECONDS + 5  # after the last heal
DONE_SECONDS = 3 * LEASE_SECONDS  # 99 of 100 photos that met no outage of what nothing goes on without
FLAT_SECONDS = 30.0  # until connections that stood ready are closed
POOLED = 10 + 8 + 32  # connections to Postgres, Redis and S3 that a gateway may keep for the next burst
WARM_PHOTOS = 10
PER_SECOND = 5.0
RERUN = ("expired", "crashed", "retry", "released", "snoozed")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run came to. `recoveries`: seconds from each fault's end to the next accepted upload, by fault."""

    seed: int
    faults: Counter[str]
    recoveries: list[tuple[str, float]]
    accepted: int
    refused: int
    lost: int
    duplicated: int
    rerun: Counter[str]
    fenced: int
    errors: Counter[str]  # lines that programs logged as errors, by event
    done_seconds: list[float]  # from acceptance to the last job's end
    calm_seconds: list[float]  # of those while neither Postgres nor S3 was harmed
    drained_seconds: float
    violations: list[str]

    def lines(self) -> list[str]:
        slowest = max(self.recoveries, key=lambda item: item[1], default=("none", 0.0))
        p50, p95, p99 = (percentile(self.done_seconds or [0.0], share) for share in (0.5, 0.95, 0.99))
        return [
            f"seed {self.seed}; faults: {', '.join(f'{name} {count}' for name, count in sorted(self.faults.items()))}",
            f"accepted {self.accepted}, lost {self.lost}, duplicated {self.duplicated}; "
            f"refused and sent again {self.refused}",
            f"runs again: {', '.join(f'{name} {count}' for name, count in sorted(self.rerun.items())) or 'none'}; "
            f"fenced off {self.fenced}; errors logged: {dict(self.errors) or 'none'}",
            f"recovery: median {percentile([item[1] for item in self.recoveries] or [0.0], 0.5):.2f} s, "
            f"slowest {slowest[1]:.2f} s ({slowest[0]})",
            f"accepted to done: p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s",
            f"without outages of Postgres and S3: {len(self.calm_seconds)} photos, p99 "
            f"{percentile(self.calm_seconds or [0.0], 0.99):.2f} s, of 3 leases = {DONE_SECONDS:g} s",
            f"drained {self.drained_seconds:.2f} s after the last heal and upload, of lease + 5 s = "
            f"{DRAINED_SECONDS:g} s",
            *(f"VIOLATED {violation}" for violation in self.violations),
        ]


@dataclass(kw_only=True)
class Run:
    """The state of one run. `busy`: what is under a fault now, so that no two faults meet on one target."""

    stack: Stack
    ledger: Ledger
    shim: Shim
    dice: random.Random
    over: asyncio.Event = field(default_factory=asyncio.Event)
    busy: set[str] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)  # of Postgres and S3, recovery included

    async def lasts(self, seconds: float) -> None:
        """So long, or until the run is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    def some(self, kind: str) -> Program:
        programs = [program for program in self.stack.programs if program.kind == kind]
        return self.dice.choice(programs)


Act = Callable[[Run], Awaitable[None]]


async def kill_program(run: Run, kind: str) -> None:
    program = run.some(kind)
    if program.exit_code is None:
        program.kill()
        program.restart()
        await program.ready()


async def kill_worker(run: Run) -> None:
    await kill_program(run, "worker")


async def kill_gateway(run: Run) -> None:
    await kill_program(run, "gateway")


async def freeze_worker(run: Run) -> None:
    """Longer than its lease, so that another one takes its jobs over."""
    program = run.some("worker")
    program.suspend()
    await run.lasts(LEASE_SECONDS * 1.5)
    program.resume()


async def freeze_gateway(run: Run) -> None:
    """In the midst of whatever it does: longer than Postgres waits for an idle transaction."""
    program = run.some("gateway")
    program.suspend()
    await run.lasts(3)
    program.resume()


async def kill_decoder(run: Run) -> None:
    children = run.some("worker").children()
    if children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.dice.choice(sorted(children)), signal.SIGKILL)


async def flush_redis(run: Run) -> None:
    await run.stack.redis.connection_pool.disconnect()  # what it had may be of a server that was killed since
    await run.stack.redis.flushall()


async def kill_server(run: Run, server: Server) -> None:
    await run.stack.ground.kill(server)
    await run.lasts(2)
    await run.stack.ground.restart(server)


async def kill_redis(run: Run) -> None:
    await kill_server(run, run.stack.ground.valkey)


async def pause_redis(run: Run) -> None:
    run.stack.ground.valkey.suspend()
    await run.lasts(3)
    run.stack.ground.valkey.resume()


async def stop_postgres(run: Run) -> None:
    """An immediate stop: no goodbye to anyone, and a recovery at the start."""
    postgres = run.stack.ground.postgres
    os.kill(postgres.pid, signal.SIGQUIT)
    await until_true(lambda: not postgres.running, "Postgres has stopped", seconds=10)
    await run.lasts(1.5)
    await run.stack.ground.restart(postgres)


async def terminate_backends(run: Run) -> None:
    conn = await asyncpg.connect(run.stack.ground.postgres.dsn_of("postgres"), timeout=5)
    try:
        statement = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1"
        assert await conn.fetchval(statement, run.stack.name) > 0
    finally:
        await conn.close(timeout=5)


async def kill_s3(run: Run) -> None:
    await kill_server(run, run.stack.ground.seaweedfs)


async def spoil_s3(run: Run) -> None:
    run.shim.set(Spoil(act="answer", status=503, code="SlowDown"))
    await run.lasts(2)
    run.shim.heal()


async def delay_s3(run: Run) -> None:
    run.stack.ground.s3_proxy.set(Fault(mode="latency", seconds=0.3, jitter_seconds=0.3))
    await run.lasts(2.5)
    await run.stack.ground.s3_proxy.heal()


async def cut_clients(run: Run) -> None:
    """Uploads that break off in their midst, some after the first part of a multipart upload."""
    bodies = [make_jpeg(96, 72, size_bytes=size) for size in (200_000, 12 << 20)]

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        yield body[: len(body) * 2 // 3]
        raise ConnectionAbortedError

    for number, body in enumerate(bodies):
        gateways = run.stack.gateways
        if gateways:
            url = f"{run.dice.choice(gateways).url}/v1/photos/{run.stack.bucket}/cut/{number}.jpg"
            headers = {"Authorization": f"Bearer {run.stack.token}", "Content-Length": str(len(body))}
            with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
                async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
                    await session.put(url, data=pieces(body), headers=headers)


# By the target that each harms.
FAULTS: tuple[tuple[str, Act], ...] = (
    ("worker", kill_worker), ("worker", kill_worker), ("worker", freeze_worker), ("worker", kill_decoder),
    ("gateway", kill_gateway), ("gateway", freeze_gateway),
    ("redis", flush_redis), ("redis", kill_redis), ("redis", pause_redis), ("postgres", stop_postgres),
    ("postgres", terminate_backends), ("s3", kill_s3), ("s3", spoil_s3), ("s3", delay_s3), ("client", cut_clients),
)  # fmt: skip
TARGETS = tuple(dict.fromkeys(target for target, _ in FAULTS))


async def harm(run: Run, target: str, act: Act) -> None:
    """One fault and its heal, and how long uploads took to be taken again after it."""
    name, began_at = act.__name__, time.time()
    run.faults[name] += 1
    try:
        await act(run)
    finally:
        run.busy.discard(target)
    healed_at = time.time()
    if target in ("postgres", "s3"):
        run.outages.append((began_at, healed_at + BACK_SECONDS))

    def taken() -> bool:
        return any(item.at - item.last_seconds >= healed_at for item in run.ledger.accepted[-200:])

    if not run.over.is_set():
        await until_true(lambda: taken() or run.over.is_set(), f"uploads are taken after {name}", seconds=60)
        run.recoveries.append((name, time.time() - healed_at))


async def run_chaos(
    stack: Stack, ledger: Ledger, *, seconds: float, seed: int, targets: Collection[str] = TARGETS
) -> Report:
    """Start two gateways and two workers on an empty stack, harm them for so long, heal, drain, check. The ledger must
    be patient enough for the longest outage."""
    faults = [item for item in FAULTS if item[0] in targets]
    upstream = stack.ground.through_proxy(stack.ground.seaweedfs.url, stack.ground.s3_proxy)
    async with Shim(upstream) as shim:
        await stack.start(gateways=2, workers=2, s3_endpoint=shim.url)
        run = Run(stack=stack, ledger=ledger, shim=shim, dice=random.Random(seed))
        harming: list[asyncio.Task[None]] = []
        async with ledger.loading(per_second=PER_SECOND):
            await until_true(lambda: len(ledger.accepted) >= WARM_PHOTOS, "the load is taken", seconds=30)
            before = {program: program.sample() for program in stack.programs}
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if free := [item for item in faults if item[0] not in run.busy]:
                    target, act = run.dice.choice(free)
                    run.busy.add(target)
                    harming.append(asyncio.create_task(harm(run, target, act)))
                await run.lasts(EVERY_SECONDS)
            run.over.set()
            await asyncio.gather(*harming)
            await heal(stack)
            healed_at = await stack.value("select clock_timestamp()")
        try:
            violations = await check(stack, ledger, drain_seconds=DRAIN_SECONDS)
        except AssertionError as error:  # the drain did not end
            violations = [str(error)]
        return await report(run, seed, [*violations, *await find_growth(before)], healed_at)


async def heal(stack: Stack) -> None:
    await stack.ground.heal()
    for program in stack.programs:
        if program.exit_code is not None:
            program.restart()
        program.resume()
    await asyncio.gather(*(program.ready() for program in stack.programs))


async def find_growth(before: Mapping[Program, Sample]) -> list[str]:
    """I8, once connections that stand ready have had the time to be closed."""
    with contextlib.suppress(AssertionError):
        await until_true(lambda: not check_growth(before, pooled=POOLED), "nothing has grown", seconds=FLAT_SECONDS)
    return check_growth(before, pooled=POOLED)


async def report(run: Run, seed: int, violations: list[str], healed_at: datetime) -> Report:
    stack, ledger = run.stack, run.ledger
    ids = {item.id for item in ledger.accepted}
    rows = await stack.fetch(
        """
        select id, extract(epoch from settled_at - created_at)::float8 as seconds,
               extract(epoch from created_at)::float8 as began_at, extract(epoch from settled_at)::float8 as ended_at
        from object where id = any($1) and settled_at is not null
        """,
        list(ids),
    )
    settled = {row["id"]: row["seconds"] for row in rows}
    calm = [row["seconds"] for row in rows if not met(run.outages, row["began_at"], row["ended_at"])]
    drained = await stack.value(
        """
        select extract(epoch from max(finished_at) - greatest($1, (select max(created_at) from object)))::float8
        from job
        """,
        healed_at,
    )
    outcomes = await stack.fetch("select outcome, count(*) from job_attempt where outcome = any($1) group by 1", RERUN)
    doubled = await stack.value("select count(*) - count(distinct (bucket, key)) from object")
    violations = [*violations, *broken_promises(run), *await find_burned(run), *slow(calm, drained or 0)]
    lines = [line for program in stack.programs for line in read_log(program)]
    return Report(
        seed=seed,
        faults=run.faults,
        recoveries=run.recoveries,
        accepted=len(ledger.accepted),
        refused=len(ledger.refused),
        lost=len(ids - settled.keys()) + sum(violation.startswith("I1") for violation in violations),
        duplicated=doubled + sum(violation.startswith("I7") for violation in violations),
        rerun=Counter({row["outcome"]: row["count"] for row in outcomes}),
        fenced=sum(line.get("event") in {"job.fenced", "job.lost"} for line in lines),
        errors=Counter(str(line.get("event")) for line in lines if line.get("level") == "error"),
        done_seconds=sorted(settled.values()),
        calm_seconds=sorted(calm),
        drained_seconds=max(0.0, drained or 0),
        violations=violations,
    )


def met(outages: list[tuple[float, float]], began_at: float, ended_at: float) -> bool:
    """Whether any of them lay in that time."""
    return any(began_at <= until and since <= ended_at for since, until in outages)


def slow(calm_seconds: list[float], drained_seconds: float) -> list[str]:
    """What took longer than it may."""
    found = []
    if drained_seconds > DRAINED_SECONDS:
        found.append(f"the drain took {drained_seconds:.1f} s, more than lease + 5 s")
    if calm_seconds and (p99 := percentile(calm_seconds, 0.99)) > DONE_SECONDS:
        found.append(f"the p99 from accepted to done is {p99:.1f} s, more than 3 leases")
    return found


def broken_promises(run: Run) -> list[str]:
    """What the invariants do not see: failures that no fault excuses, and recoveries that took too long."""
    found = [f"a request was answered {item.status} {item.code}" for item in run.ledger.refused if item.status == 500]
    found += [f"an upload was given up: {key}" for key in run.ledger.given_up]
    slow = [(name, seconds) for name, seconds in run.recoveries if seconds > RECOVERY_SECONDS]
    return found + [f"after {name} no upload was taken for {seconds:.1f} s" for name, seconds in slow]


async def find_burned(run: Run) -> list[str]:
    """No fault of these is a job's or a photo's, so none may cost an attempt, and a crash only a killed decoder's."""
    rows = await run.stack.fetch(
        "select job_id, outcome, error_code from job_attempt where outcome in ('retry', 'crashed', 'dead', 'rejected')"
    )
    crashes = [row for row in rows if (row["outcome"], row["error_code"]) == ("crashed", "decoder_crashed")]
    if len(crashes) <= run.faults["kill_decoder"]:
        rows = [row for row in rows if row not in crashes]
    return [f"job {row['job_id']} was charged for a fault: {row['outcome']}, {row['error_code']}" for row in rows]


def read_log(program: Program) -> list[dict[str, Any]]:
    """Every complete line, over all its starts."""
    found = []
    for line in program.log_path.read_text("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


async def main(folder: Path, *, seconds: float, seed: int, targets: Collection[str]) -> int:
    print(f"{seconds:g} s of faults, seed {seed}", flush=True)
    async with open_ground(folder / "ground") as ground, open_stack(ground, folder) as stack:
        ledger = Ledger(stack, seed=seed, patience_seconds=60)
        try:
            found = await run_chaos(stack, ledger, seconds=seconds, seed=seed, targets=targets)
        finally:
            await ledger.close()
        print("\n".join(found.lines()))
        if found.violations:
            print(f"kept: {await stack.save('chaos')}")
    return 1 if found.violations else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Random faults under load; exits with 1 where an invariant breaks.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--targets", default=",".join(TARGETS), help="what is harmed, separated by commas")
    given = parser.parse_args()
    chosen = given.targets.split(",")
    if not set(chosen) <= set(TARGETS):
        parser.error(f"targets are {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory(prefix="safelight-chaos-") as name:
        sys.exit(asyncio.run(main(Path(name), seconds=given.seconds, seed=given.seed, targets=chosen)))
