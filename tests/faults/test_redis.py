"""Redis that forgets, dies, freezes or refuses costs latency, never a photo, and never a client's time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis
from redis.exceptions import BusyLoadingError, RedisError

from processors.broker import create_broker
from processors.settings import JobSettings
from tests.faults.harness.invariants import check
from tests.faults.harness.ledger import Accepted, Ledger, percentile
from tests.faults.harness.proxy import Fault
from tests.faults.harness.rates import Rate
from tests.faults.harness.stack import POLL_SECONDS, REDISPATCH_SECONDS, Stack
from tests.faults.harness.waiting import until

OpenLedger = Callable[..., Ledger]
PER_SECOND = 5


async def done_jobs(stack: Stack) -> int:
    return int(await stack.value("select count(*) from job where state = 'done'"))


async def says(stack: Stack, ledger: Ledger, *, redis_up: bool) -> None:
    """Wait until the gateway says so. It takes photos all the same."""

    async def said() -> bool:
        status, ready = await ledger.get("/readyz")
        state = ready["dependencies"]["redis"]
        return status == 200 and state["up"] is redis_up and bool(state["down_since"]) is not redis_up

    await until(said, f"readyz says that Redis is {'up' if redis_up else 'down'}", seconds=5)


def p99(accepted: list[Accepted]) -> float:
    return percentile([item.last_seconds for item in accepted], 0.99)


async def test_row_08_flushall(stack: Stack, open_ledger: OpenLedger) -> None:
    """FLUSHALL with 20 messages in the stream: all jobs are done a redispatch + 1 s later, without a restart."""
    await stack.start(gateways=1, workers=2)
    ledger = open_ledger()
    for worker in stack.workers:
        worker.suspend()
    await ledger.load(per_second=20, seconds=0.5)

    async def sent() -> bool:
        return int(await stack.redis.xlen(stack.name)) >= 18  # a suspended worker's socket may hold one each

    await until(sent, "the jobs are in the stream", seconds=10)
    await stack.redis.flushall()
    flushed_at = await stack.value("select clock_timestamp()")
    for worker in stack.workers:
        worker.resume()
    assert await check(stack, ledger) == []
    ended_at = await stack.value("select max(finished_at) from job")
    assert (ended_at - flushed_at).total_seconds() <= REDISPATCH_SECONDS + 1
    assert stack.ground.redis_proxy.total_bytes > 0


async def test_row_08_flushed_again_and_again(stack: Stack, open_ledger: OpenLedger) -> None:
    """Ten FLUSHALLs under load lose nothing, and the workers listen to the stream afterwards."""
    await stack.start(gateways=1, workers=2)
    ledger = open_ledger()
    async with ledger.loading(per_second=10):
        for _ in range(10):
            done = await done_jobs(stack)

            async def more(done: int = done) -> bool:
                return await done_jobs(stack) > done

            await until(more, "jobs go on", seconds=REDISPATCH_SECONDS + 3)
            await stack.redis.flushall()
    assert ledger.refused == []
    assert await check(stack, ledger) == []
    consumers = await stack.redis.xinfo_consumers(stack.name, "workers")
    assert len(consumers) >= 2


async def test_row_09_killed_and_empty_when_it_comes_back(stack: Stack, open_ledger: OpenLedger, rate: Rate) -> None:
    """Redis is killed -9, away for 8 s, and comes back empty: every upload is 2xx at its first try, jobs go on at the
    pace of the load by polling, the same workers listen to it again, and the rate is as before."""
    await stack.start(gateways=1, workers=2)
    ground, ledger = stack.ground, open_ledger()
    await rate.measure(ledger.put_under)
    samples = {program: program.sample() for program in stack.programs}
    before = await ledger.load(per_second=PER_SECOND, seconds=2)
    await ground.kill(ground.valkey)
    began = await stack.value("select clock_timestamp()")
    during = await ledger.load(per_second=PER_SECOND, seconds=8)
    await stack.drain(seconds=POLL_SECONDS + 2)
    waited = await stack.value(
        "select max(extract(epoch from started_at - created_at)) from job where created_at > $1", began
    )
    assert float(waited) <= 2
    await says(stack, ledger, redis_up=False)
    await ground.restart(ground.valkey)
    await says(stack, ledger, redis_up=True)
    after = await ledger.load(per_second=PER_SECOND, seconds=2)
    assert (len(before), len(during), len(after)) == (2 * PER_SECOND, 8 * PER_SECOND, 2 * PER_SECOND)
    assert ledger.refused == []
    assert p99(during) < p99(before) + 1
    assert await check(stack, ledger, before=samples) == []

    async def listening() -> bool:
        with contextlib.suppress(RedisError):
            return len(await stack.redis.xinfo_consumers(stack.name, "workers")) >= 2
        return False

    await until(listening, "both workers listen again", seconds=5)
    await rate.assert_kept(ledger.put_under)


@pytest.mark.parametrize("how", ["suspended", "blackhole", "slow"])
async def test_row_10_silent(stack: Stack, open_ledger: OpenLedger, how: str) -> None:
    """Redis is frozen, unreachable behind open connections, or answers after seconds: uploads stay within 1 s of their
    normal p99, jobs go on by polling, no task and no connection is left hanging."""
    await stack.start(gateways=1, workers=2)
    ground, ledger = stack.ground, open_ledger()
    before = await ledger.load(per_second=PER_SECOND, seconds=2)
    samples = {program: program.sample() for program in stack.programs}
    accepted_before, passed = ground.redis_proxy.connections, ground.redis_proxy.passed_bytes["up"]
    if how == "suspended":
        ground.valkey.suspend()
    else:
        fault = {"blackhole": Fault(mode="blackhole"), "slow": Fault(mode="latency", seconds=2)}[how]
        ground.redis_proxy.set(fault)
    done = await done_jobs(stack)
    during = await ledger.load(per_second=PER_SECOND, seconds=5)
    assert await done_jobs(stack) > done
    await says(stack, ledger, redis_up=False)
    assert ground.redis_proxy.connections > accepted_before  # they gave up connections and tried again
    if how == "suspended":
        assert ground.redis_proxy.passed_bytes["up"] > passed
        ground.valkey.resume()
    await ground.redis_proxy.heal()
    await says(stack, ledger, redis_up=True)
    assert len(during) == 5 * PER_SECOND
    assert ledger.refused == []
    assert p99(during) < p99(before) + 1
    assert await check(stack, ledger, before=samples) == []


async def test_row_10_slow_with_a_backlog(stack: Stack) -> None:
    """Redis takes 0.1 s for each answer and 200 jobs are to be sent: that is over within 3 s, taken or not, because
    whoever sends looks at expired leases only in between."""
    proxy = stack.ground.redis_proxy
    url = stack.ground.through_proxy(stack.ground.valkey.url, proxy)
    broker = create_broker(JobSettings(redis_url=url, redis_stream=stack.name))
    await broker.startup()
    try:
        assert await broker.send([1]) == [1]  # connected
        proxy.set(Fault(mode="latency", seconds=0.05))  # each way
        passed = proxy.total_bytes
        began = time.monotonic()
        sent = await broker.send(list(range(200)))
        assert time.monotonic() - began < 3
        assert sent == list(range(len(sent)))
        assert len(sent) >= 1
        assert proxy.total_bytes > passed
    finally:
        await proxy.heal()
        await broker.shutdown()


@contextlib.asynccontextmanager
async def full(stack: Stack) -> AsyncIterator[None]:
    await stack.redis.config_set("maxmemory", "1")
    yield
    await stack.redis.config_set("maxmemory", "0")


@contextlib.asynccontextmanager
async def read_only(stack: Stack) -> AsyncIterator[None]:
    await stack.redis.replicaof("127.0.0.1", 9)
    yield
    await stack.redis.replicaof("NO", "ONE")


@contextlib.asynccontextmanager
async def wrong_password(stack: Stack) -> AsyncIterator[None]:
    await stack.redis.config_set("requirepass", "another")
    await stack.redis.client_kill_filter(_type="normal", skipme=True)
    yield
    await stack.redis.config_set("requirepass", urlsplit(stack.ground.valkey.url).password or "")


@contextlib.asynccontextmanager
async def loading(stack: Stack) -> AsyncIterator[None]:
    """Redis starts with much to read, which takes seconds; meanwhile it answers LOADING."""
    ground = stack.ground
    script = "for i = 1, 30000 do redis.call('SET', 'filler:' .. i, i) end"
    await stack.redis.eval(script, 0)
    await stack.redis.save()
    await ground.kill(ground.valkey)
    command = ground.valkey.command
    slowly = [*command(), "--key-load-delay", "150", "--loading-process-events-interval-bytes", "1024"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground.valkey, "command", lambda: slowly)
        ground.valkey.launch()

    async def says_so() -> bool:
        try:
            async with redis.Redis.from_url(ground.valkey.url, retry=None) as client:
                await client.ping()
        except BusyLoadingError:
            return True
        except RedisError:
            return False
        return False

    await until(says_so, "Redis answers LOADING", seconds=5)
    yield
    await asyncio.to_thread(ground.valkey.wait_ready)
    await stack.redis.connection_pool.disconnect()  # those of the killed server
    await stack.redis.flushall()
    await stack.redis.save()  # or it would load all that again at its next start


FAULTS = {
    "full": (full, "OutOfMemory"),
    "read_only": (read_only, "ReadOnly"),
    "wrong_password": (wrong_password, "Authentication"),
    "loading": (loading, "BusyLoading"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_row_11_refusing(stack: Stack, open_ledger: OpenLedger, name: str) -> None:
    """Redis that is full, read-only, has another password or is still loading is as good as away: uploads are 2xx at
    once, jobs go on by polling, the log says why, and all is normal when it takes orders again."""
    refuse, reason = FAULTS[name]
    await stack.start(gateways=1, workers=2)
    ledger = open_ledger()
    before = await ledger.load(per_second=PER_SECOND, seconds=1)
    async with refuse(stack):
        during = await ledger.load(per_second=PER_SECOND, seconds=3)
        await stack.drain(seconds=POLL_SECONDS + 3)
        errors = [line["error"] for line in stack.gateways[0].log() if line["event"] == "dependency.down"]
    assert len(during) == 3 * PER_SECOND
    assert any(reason in error for error in errors), errors
    assert ledger.refused == []
    assert p99(during) < p99(before) + 1
    await says(stack, ledger, redis_up=True)
    assert await check(stack, ledger) == []
