"""A Postgres that stops, cuts connections, is full, read-only, bloated or silent: uploads say 503 and nothing that was
promised is lost; all goes on within seconds of its return, by the same processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from storage import jobs
from tests.faults.harness.invariants import check, list_bucket
from tests.faults.harness.ledger import Ledger, Refused, percentile
from tests.faults.harness.proxy import Fault, Link
from tests.faults.harness.rates import Rate
from tests.faults.harness.runs import outcomes, running
from tests.faults.harness.stack import Stack
from tests.faults.harness.waiting import until, until_true

OpenLedger = Callable[..., Ledger]
DOWN_SECONDS = 5
BACK_SECONDS = 5
KNOWN = {"preview": 1, "exif": 1}


@contextlib.asynccontextmanager
async def outsider(stack: Stack, database: str = "postgres") -> AsyncIterator[Any]:
    """A connection of a third party, straight to the server."""
    conn = await asyncpg.connect(stack.ground.postgres.dsn_of(database), timeout=5)
    try:
        yield conn
    finally:
        await conn.close(timeout=5)


def assert_only_unavailable(refused: list[Refused]) -> None:
    """Whatever was refused was refused with 503, the reason and when to come again."""
    assert {(item.status, item.code) for item in refused} <= {(503, "database_unavailable")}, refused
    assert all(item.retry_after for item in refused)


async def test_row_12_immediate_stop(stack: Stack, open_ledger: OpenLedger) -> None:
    """Postgres stopped at once and down for 5 s under load: only 2xx, or 503 with Retry-After. 5 s after its return
    uploads are taken, without a restart of anything; nothing accepted is lost, and jobs in flight end undisturbed."""
    await stack.start(gateways=2, workers=1, lease_seconds="15", failpoint="child.running:sleep=1:2")
    ledger, pids = open_ledger(), [program.pid for program in stack.programs]
    in_flight = await ledger.put()
    assert in_flight is not None
    await running(stack, in_flight.id)
    postgres = stack.ground.postgres
    async with ledger.loading(per_second=4):
        await until_true(lambda: len(ledger.accepted) > 4, "the load is taken", seconds=10)
        os.kill(postgres.pid, signal.SIGQUIT)
        await until_true(lambda: not postgres.running, "Postgres has stopped", seconds=10)
        began = time.monotonic()
        await until_true(lambda: time.monotonic() - began >= DOWN_SECONDS, "it stays away", seconds=DOWN_SECONDS + 1)
        refused_meanwhile = len(ledger.refused)
        status, ready = await ledger.get("/readyz")
        assert (status, ready["dependencies"]["postgres"]["up"]) == (503, False)
        accepted = len(ledger.accepted)
        await stack.ground.restart(postgres)
        await until_true(lambda: len(ledger.accepted) > accepted, "uploads are taken again", seconds=BACK_SECONDS)
    assert refused_meanwhile >= DOWN_SECONDS
    assert_only_unavailable(ledger.refused)
    assert ledger.given_up == []
    assert await check(stack, ledger) == []
    for processor in stack.processors:
        assert await outcomes(stack, in_flight.id, processor) == ["ok"]
    assert [program.pid for program in stack.programs if program.exit_code is None] == pids


async def test_row_13_backends_terminated_one_after_the_other(
    stack: Stack, open_ledger: OpenLedger, rate: Rate
) -> None:
    """A stream of pg_terminate_backend under load costs retries and nothing else; afterwards the rate is 95 % of the
    baseline's at least."""
    await stack.start(gateways=1, workers=2)
    ledger = open_ledger()
    await rate.measure(ledger.put_under)
    killed = 0
    async with outsider(stack) as conn, ledger.loading(per_second=5):

        async def terminated_enough() -> bool:
            nonlocal killed
            killed += await conn.fetchval(
                """
                with victim as (select pid from pg_stat_activity where datname = $1 and backend_type = 'client backend'
                                order by random() limit 1)
                select count(*) from victim where pg_terminate_backend(pid)
                """,
                stack.name,
            )
            return bool(killed >= 100)

        await until(terminated_enough, "100 backends were terminated", seconds=30)
    assert_only_unavailable([item for item in ledger.refused if item.status])
    assert await check(stack, ledger) == []
    assert {row["state"] for row in await stack.fetch("select distinct state from job")} == {"done"}
    await rate.assert_kept(ledger.put_under)


async def test_row_13_no_connection_left(stack: Stack, open_ledger: OpenLedger) -> None:
    """While strangers hold every connection that Postgres has, a gateway that needs one more says 503; once they let go
    all goes on within 5 s."""
    await stack.start(gateways=1, workers=1)
    ledger = open_ledger()
    assert await ledger.put() is not None
    async with contextlib.AsyncExitStack() as held:
        assert await hold_all(stack, held) >= 90
        newcomer = await stack.start_gateway()
        assert await ledger.put(gateway=newcomer, patience_seconds=0) is None
        status, ready = await ledger.get("/readyz", gateway=newcomer)
        assert (status, ready["dependencies"]["postgres"]["up"]) == (503, False)
        burst = [ledger.put(gateway=stack.gateways[0], patience_seconds=0) for _ in range(20)]
        await asyncio.gather(*burst)
        assert_only_unavailable(ledger.refused)
        assert "TooManyConnections" in newcomer.log_path.read_text("utf-8")
    assert await ledger.put(gateway=newcomer, patience_seconds=BACK_SECONDS) is not None
    assert await check(stack, ledger) == []


async def hold_all(stack: Stack, held: contextlib.AsyncExitStack) -> int:
    """Open connections until there are none left. Returns how many."""
    for count in range(300):
        try:
            await held.enter_async_context(outsider(stack))
        except asyncpg.TooManyConnectionsError:
            return count
    raise AssertionError("Postgres has more connections than expected")


@pytest.mark.parametrize("record_seconds", ["0", "5"], ids=["client_retries", "gateway_retries"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_row_14_cut_at_the_commit(stack: Stack, open_ledger: OpenLedger, when: Any, record_seconds: str) -> None:
    """The connection breaks before or after Postgres got the COMMIT of an upload, so that nobody knows: the client gets
    503 or 2xx, and with its retry there is one photo."""
    quiet = {"dispatch_interval_seconds": "60", "reconcile_interval_seconds": "0"}  # no other commits meanwhile
    await stack.start(
        gateways=1, workers=0, failpoint="tx.before_commit:sleep=1:1", record_seconds=record_seconds, **quiet
    )
    (gateway,) = stack.gateways
    proxy, ledger = stack.ground.postgres_proxy, open_ledger()
    sending = asyncio.create_task(ledger.put(idempotency_key="commit-unknown"))
    await until_true(lambda: gateway.hits("tx.before_commit") == 1, "the commit is near", seconds=10)
    proxy.set(Fault(mode="cut_when", pattern=b"COMMIT", direction="up", when=when))
    await until_true(lambda: proxy.fired == 1, "the commit was cut", seconds=5)
    accepted = await sending
    assert accepted is not None
    assert_only_unavailable(ledger.refused)
    assert len(ledger.refused) == (1 if record_seconds == "0" else 0)
    assert accepted.replayed == (record_seconds == "0" and when == "after")
    rows = await stack.fetch("select id from object")
    assert [row["id"] for row in rows] == [accepted.id]
    assert list(await list_bucket(stack, stack.bucket)) == [accepted.key]
    await stack.start_worker()
    assert await check(stack, ledger) == []


async def test_row_14_away_after_the_commit(stack: Stack, open_ledger: OpenLedger) -> None:
    """Postgres that goes away between a photo's commit and its answer: 503, which says that the photo is stored, and
    names it; the retry is answered with it."""
    await stack.start(gateways=1, workers=1, failpoint="reply.before:sleep=2:1", record_seconds="0.2")
    (gateway,) = stack.gateways
    ledger = open_ledger()
    body, headers = ledger.photo(), {"Idempotency-Key": "stored"}
    url = f"/v1/photos/{stack.bucket}/a.jpg"
    asking = asyncio.create_task(ledger.request("PUT", url, data=body, headers=headers))
    await until_true(lambda: gateway.hits("reply.before") == 1, "the photo is committed", seconds=10)
    stack.ground.postgres_proxy.refuse()
    stack.ground.postgres_proxy.drop()
    status, answer = await asking
    assert (status, answer["code"]) == (503, "database_unavailable")
    assert "is stored" in answer["detail"]
    assert "Nothing was accepted" not in answer["detail"]
    assert answer["stored"] == [str(await stack.value("select id from object"))]
    await stack.ground.postgres_proxy.heal()
    again = await ledger.put(body, key="a.jpg", idempotency_key="stored")
    assert again is not None
    assert again.replayed
    assert answer["stored"] == [str(again.id)]
    assert await check(stack, ledger) == []


@contextlib.asynccontextmanager
async def read_only(stack: Stack) -> AsyncIterator[None]:
    """The whole server refuses writes, as a standby or one with a full disk does."""
    async with outsider(stack) as conn:
        try:
            await conn.execute("alter system set default_transaction_read_only = on")
            await conn.fetchval("select pg_reload_conf()")
            yield
        finally:
            await conn.execute("alter system reset default_transaction_read_only")
            await conn.fetchval("select pg_reload_conf()")


async def test_row_15_read_only(stack: Stack, open_ledger: OpenLedger) -> None:
    """While Postgres takes no writes uploads get 503, readyz names it, and photos can still be read; when it takes them
    again uploads go on within 5 s, by themselves."""
    await stack.start(gateways=1, workers=1)
    ledger = open_ledger()
    accepted = await ledger.put(wait=20)
    assert accepted is not None
    async with read_only(stack):

        async def not_ready() -> bool:
            status, ready = await ledger.get("/readyz")
            return status == 503 and not ready["dependencies"]["postgres"]["up"]

        await until(not_ready, "readyz says so", seconds=5)
        assert await ledger.put(patience_seconds=0) is None
        assert_only_unavailable(ledger.refused)
        assert (await ledger.get(f"/v1/photos/{accepted.id}"))[0] == 200
        assert await stack.value("select count(*) from object") == 1
    assert await ledger.put(patience_seconds=BACK_SECONDS) is not None
    assert await check(stack, ledger) == []


async def test_row_16_a_transaction_that_never_ends(stack: Stack) -> None:
    """An open repeatable-read transaction keeps every dead row version of 3,000 claims and releases: the last claims
    are not much slower than the first."""
    await fill(stack, 200)
    async with outsider(stack, stack.name) as conn, conn.transaction(isolation="repeatable_read"):
        await conn.fetchval("select count(*) from job")
        first = await churn(stack, 200)
        await churn(stack, 2600)
        last = await churn(stack, 200)
        dead = await stack.value("select n_dead_tup from pg_stat_user_tables where relname = 'job'")
    assert dead > 1500
    assert percentile(last, 0.95) < 5 * percentile(first, 0.95) + 0.02


async def test_row_17_listening_connection_dies_silently(stack: Stack, open_ledger: OpenLedger) -> None:
    """Where the connection that listens says nothing any more, ?wait= still answers within 2 s of the photo's end, and
    within 15 s there is a new one."""
    await stack.start(gateways=1, workers=1)
    ledger = open_ledger()
    link, pid = await listening(stack)
    stack.ground.postgres_proxy.set(Fault(mode="blackhole"), only=link)
    passed = dict(link.passed)
    accepted = await ledger.put(wait=20)
    assert accepted is not None
    finished = await stack.value("select extract(epoch from settled_at) from object where id = $1", accepted.id)
    assert accepted.at - float(finished) <= 2
    assert link.passed == passed

    async def another_listens() -> bool:
        found = await stack.fetch("select pid from pg_stat_activity where query ilike 'listen%' and pid <> $1", pid)
        return bool(found)

    await until(another_listens, "another connection listens", seconds=15)
    assert await check(stack, ledger) == []


async def listening(stack: Stack) -> tuple[Link, int]:
    """The proxy's link of the gateway's listening connection, and the pid of its backend."""

    async def found() -> tuple[Link, int] | None:
        rows = await stack.fetch(
            "select pid, client_port from pg_stat_activity where datname = $1 and query ilike 'listen%'", stack.name
        )
        for row in rows:
            for link in stack.ground.postgres_proxy.links:
                if link.writers[-1].get_extra_info("sockname")[1] == row["client_port"]:
                    return link, row["pid"]
        return None

    answer = await until(found, "the gateway listens", seconds=10)
    assert answer is not None
    return answer


async def test_row_35_backlog_of_50000_jobs(stack: Stack, open_ledger: OpenLedger) -> None:
    """With 50,000 jobs ready a claim takes no longer than with 200, stats and metrics answer within a second, and a new
    photo is recorded as fast as ever."""
    await fill(stack, 200)
    short = await churn(stack, 300)
    await fill(stack, 49_800)
    await stack.fetch("analyze")
    long = await churn(stack, 300)
    assert percentile(long, 0.5) < 2 * percentile(short, 0.5) + 0.002
    assert percentile(long, 0.9) < max(0.020, 3 * percentile(short, 0.9))  # the last ones tell of the machine's load

    await stack.start(gateways=1, workers=0, redispatch_seconds="3600")
    ledger = open_ledger()
    assert await ledger.put() is not None
    for path in ("/v1/stats", "/metrics"):
        took = [await timed(ledger, path) for _ in range(5)]
        assert percentile(took, 0.5) < 1, path
    _, stats = await ledger.get("/v1/stats")
    assert sum(counts["ready"] for counts in stats["processors"].values()) >= 50_000


async def timed(ledger: Ledger, path: str) -> float:
    """Seconds that a GET took."""
    began = time.monotonic()
    async with ledger._session.get(ledger._turn().url + path) as answer:  # type: ignore[union-attr]
        assert answer.status == 200
        await answer.read()
    return time.monotonic() - began


async def fill(stack: Stack, number: int) -> None:
    """So many more jobs that are due and counted as sent."""
    await stack.fetch(
        """
        with made as (
          insert into object (id, bucket, key, etag, size_bytes, content_type)
          select gen_random_uuid(), 'backlog', gen_random_uuid()::text, 'e', 1, 'image/jpeg'
          from generate_series(1, $1) returning id
        )
        insert into job (object_id, processor, version, max_attempts, dispatched_at)
        select id, 'preview', 1, 8, now() from made
        """,
        number,
    )


async def churn(stack: Stack, number: int) -> list[float]:
    """Find, claim and release so many due jobs, one after the other. Returns how long each finding and claim took."""
    took: list[float] = []
    async with stack.database.connection() as conn:
        while len(took) < number:
            began = time.monotonic()
            (job_id,) = await jobs.list_due(conn, known=KNOWN, limit=1)
            claim = await jobs.claim(conn, job_id, worker="churn", lease_seconds=60, known=KNOWN)
            took.append(time.monotonic() - began)
            assert claim is not None
            await jobs.postpone(conn, claim, after_seconds=0, outcome="released")
    return took
