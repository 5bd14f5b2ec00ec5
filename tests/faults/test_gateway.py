"""Gateways that are killed at any point of an upload, clients that vanish, stall or drip, requests sent many times."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from processors.broker import create_broker
from processors.settings import JobSettings
from tests.faults.harness.invariants import check, list_bucket, list_multiparts
from tests.faults.harness.ledger import Ledger, percentile
from tests.faults.harness.programs import Program
from tests.faults.harness.rates import Rate
from tests.faults.harness.stack import REDISPATCH_SECONDS, Stack
from tests.faults.harness.waiting import until, until_true
from tests.photos import padded

OpenLedger = Callable[..., Ledger]
MIB = 1 << 20
BODY_BYTES = 12 * MIB  # three parts
BEFORE_COMMIT = ("body.first_chunk", "body.middle", "s3.part_sent", "s3.completed", "tx.before_commit")
AFTER_COMMIT = ("tx.after_commit", "reply.before")
LOCK_SECONDS = 15  # of an Idempotency-Key whose gateway died
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def test_row_06_killed_at_every_point(stack: Stack, open_ledger: OpenLedger) -> None:
    """One upload whose gateway is killed at seven points in turn: before the commit nothing is recorded, after it
    exactly one photo is; every retry with the Idempotency-Key goes on from there, and the last one is answered with
    that photo."""
    armed = ",".join(f"{point}:kill:1" for point in (*BEFORE_COMMIT, *AFTER_COMMIT))
    await stack.start(gateways=1, workers=1, failpoint=armed)
    (gateway,) = stack.gateways
    ledger = open_ledger()
    body = padded(ledger.photo(), BODY_BYTES)
    recorded = []
    for point in (*BEFORE_COMMIT, *AFTER_COMMIT):
        assert await ledger.put(body, key="one.jpg", idempotency_key="one", patience_seconds=0) is None
        await gateway.ended(seconds=10)
        assert (gateway.exit_code, gateway.hits(point)) == (-signal.SIGKILL, 1), point
        recorded.append(await stack.value("select count(*) from object"))
        await forget_lock(stack)
        gateway.restart()
        await gateway.ready()
    assert recorded == [0] * len(BEFORE_COMMIT) + [1] * len(AFTER_COMMIT)
    accepted = await ledger.put(body, key="one.jpg", idempotency_key="one", patience_seconds=0)
    assert accepted is not None
    assert accepted.replayed
    assert accepted.id == await stack.value("select id from object")
    assert len(ledger.refused) == len(recorded)
    assert await check(stack, ledger) == []


async def forget_lock(stack: Stack) -> None:
    """As if the time had passed for which a dead gateway keeps an Idempotency-Key."""
    await stack.value("update idempotency set locked_until = now() where answer is null")


async def test_row_06_killed_before_it_nudges(stack: Stack, open_ledger: OpenLedger) -> None:
    """A gateway that dies between the commit and the message to Redis delays the job by a redispatch + 1 s."""
    await stack.start(gateways=1, workers=0, failpoint="nudge.before:kill:1")
    await stack.start_worker()
    (gateway,) = stack.gateways
    (worker,) = stack.workers
    worker.suspend()  # or its dispatcher would be first
    ledger = open_ledger()
    await ledger.put(patience_seconds=0)
    await gateway.ended(seconds=10)
    assert (gateway.exit_code, gateway.hits("nudge.before")) == (-signal.SIGKILL, 1)
    worker.resume()
    resumed_at = await stack.value("select clock_timestamp()")
    await stack.drain(seconds=10)
    ended_at = await stack.value("select max(finished_at) from job")
    assert (ended_at - resumed_at).total_seconds() <= REDISPATCH_SECONDS + 1
    assert await stack.value("select count(*) from job where outcome = 'ok'") == 2
    gateway.restart()
    await gateway.ready()
    assert await check(stack, ledger) == []


async def test_row_06_never_retried(stack: Stack, open_ledger: OpenLedger) -> None:
    """What a killed gateway left behind and no client ever asks for again is no half: a complete object gets its
    photo and its previews, an incomplete upload is aborted, by whichever gateway runs."""
    fast = {"reconcile_interval_seconds": "0.2", "reconcile_pass_seconds": "1", "reconcile_grace_seconds": "0"}
    await stack.start(gateways=0, workers=1)
    gateway = await stack.start_gateway(failpoint="s3.part_sent:kill:1,s3.completed:kill:1", **fast)
    ledger = open_ledger()
    bodies = {key: padded(ledger.photo(), BODY_BYTES) for key in ("half.jpg", "whole.jpg")}
    for key, body in bodies.items():
        assert await ledger.put(body, key=key, patience_seconds=0) is None
        await gateway.ended(seconds=10)
        gateway.restart()
        await gateway.ready()
    assert gateway.hits("s3.part_sent") == gateway.hits("s3.completed") == 1
    await stack.value("update multipart set seen_at = seen_at - interval '1 h'")
    await stack.value("update idempotency set created_at = created_at - interval '1 d', locked_until = null")

    async def collected() -> bool:
        rows = {row["key"]: row["status"] for row in await stack.fetch("select key, status from object")}
        return rows == {"whole.jpg": "ready"} and not await list_multiparts(stack)

    await until(collected, "the object is a photo, the upload is aborted", seconds=20)
    assert await check(stack, ledger) == []
    assert list(await list_bucket(stack, stack.bucket)) == ["whole.jpg"]


async def test_row_06_killed_while_it_deletes(stack: Stack, open_ledger: OpenLedger) -> None:
    """A gateway that dies between the deletion of a photo and that of its previews leaves them to the housekeeping,
    which an unforeseen error does not end either."""
    await stack.start(gateways=0, workers=1)
    killed = await stack.start_gateway(failpoint="sweep.before_delete:kill:1")
    ledger = open_ledger()
    accepted = await ledger.put(wait=10)
    assert accepted is not None
    try:
        await ledger.request("DELETE", f"/v1/photos/{accepted.id}", gateway=killed)
    except OSError:
        pass
    else:
        raise AssertionError("the gateway answered")
    await killed.ended(seconds=10)
    assert (killed.exit_code, killed.hits("sweep.before_delete")) == (-signal.SIGKILL, 1)
    assert len(await list_bucket(stack, stack.derived_bucket)) == 2
    other = await stack.start_gateway(failpoint="sweep.before_delete:raise:1")

    async def swept() -> bool:
        return not await list_bucket(stack, stack.derived_bucket)

    await until(swept, "the previews are deleted", seconds=20)
    assert other.logged("housekeeping.failed") == other.hits("sweep.before_delete") == 1
    assert await check(stack, ledger) == []


async def test_row_07_client_disconnects(stack: Stack, open_ledger: OpenLedger) -> None:
    """A client that vanishes in the midst of a body leaves neither object nor row nor multipart upload; where the
    gateway dies as it aborts, the upload is known and aborted later."""
    fast = {"reconcile_interval_seconds": "0.2", "reconcile_pass_seconds": "1", "reconcile_grace_seconds": "0"}
    await stack.start(gateways=1, workers=0, failpoint="s3.part_sent:sleep=0,abort.before:sleep=0", **fast)
    (gateway,) = stack.gateways
    ledger = open_ledger()
    await vanish_after_a_part(stack, ledger, gateway)
    await until_true(lambda: gateway.hits("abort.before") == 1, "the upload is aborted", seconds=5)

    async def nothing_left() -> bool:
        left = await stack.value("select count(*) from multipart") + await stack.value("select count(*) from object")
        return not (left or await list_multiparts(stack))

    await until(nothing_left, "nothing is left", seconds=5)
    assert await list_bucket(stack, stack.bucket) == {}
    await gateway.stop()

    dying = await stack.start_gateway(failpoint="s3.part_sent:sleep=0,abort.before:kill:1", **fast)
    await vanish_after_a_part(stack, ledger, dying)
    await dying.ended(seconds=5)
    assert dying.hits("abort.before") == 1
    assert len(await list_multiparts(stack)) == await stack.value("select count(*) from multipart") == 1
    await stack.value("update multipart set seen_at = seen_at - interval '1 h'")
    dying.restart()
    await dying.ready()
    await until(nothing_left, "the dangling upload is aborted", seconds=20)
    assert await check(stack, ledger) == []


async def vanish_after_a_part(stack: Stack, ledger: Ledger, gateway: Program) -> None:
    """Send a body until a part of it is in S3, then cut the connection."""
    parts = gateway.hits("s3.part_sent")
    body = padded(ledger.photo(), BODY_BYTES)
    _, writer = await open_upload(stack, gateway, "gone.jpg", 2 * BODY_BYTES)
    writer.write(body)
    await writer.drain()
    await until_true(lambda: gateway.hits("s3.part_sent") > parts, "a part is in S3", seconds=10)
    assert await list_multiparts(stack) == ["gone.jpg"]
    writer.transport.abort()


async def open_upload(stack: Stack, gateway: Program, key: str, size_bytes: int) -> Client:
    """A connection that has sent the head of a PUT."""
    port = int(gateway.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"PUT /v1/photos/{stack.bucket}/{key} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {stack.token}\r\n"
        f"Content-Length: {size_bytes}\r\n\r\n".encode()
    )
    await writer.drain()
    return reader, writer


async def test_row_07_two_hundred_slow_clients(stack: Stack, open_ledger: OpenLedger, rate: Rate) -> None:
    """80 clients whose body stalls, 60 that send 1 B/s, 60 that drip their headers: stalled ones get 408 within the
    limit of 2 s + 2 s, dripping bodies within the grace of 10 s + 3 s; memory stays flat, an ordinary client notices
    nothing, and once they are gone the rate is as before."""
    small = {"s3_max_connections": "6", "postgres_pool_size": "4"}  # so that warm pools are no growth
    await stack.start(gateways=1, workers=1, chunk_timeout_seconds="2", **small)
    (gateway,) = stack.gateways
    ledger = open_ledger()
    await rate.measure(ledger.put_under)
    await ledger.load(per_second=5, seconds=1)
    before = {gateway: gateway.sample()}
    head = ledger.photo()[:64]

    async def stalls(number: int) -> tuple[int, float]:
        reader, writer = await open_upload(stack, gateway, f"slow/{number}.jpg", 100_000)
        writer.write(head)
        return await answer_of(reader, writer)

    async def trickles(number: int) -> tuple[int, float]:
        reader, writer = await open_upload(stack, gateway, f"slow/{number}.jpg", 100_000)
        writer.write(head)
        dripping = asyncio.create_task(drip(writer, b"x"))
        try:
            return await answer_of(reader, writer)
        finally:
            dripping.cancel()

    dripping = [asyncio.create_task(drip_headers(gateway)) for _ in range(60)]
    stalled = [asyncio.create_task(stalls(number)) for number in range(80)]
    trickled = [asyncio.create_task(trickles(number)) for number in range(80, 140)]
    during = await ledger.load(per_second=5, seconds=3)
    grown_bytes = gateway.sample().rss_bytes - before[gateway].rss_bytes
    for tasks, limit_seconds in ((stalled, 2 + 2), (trickled, 10 + 3)):
        answers = await asyncio.gather(*tasks)
        assert {status for status, _ in answers} == {408}
        assert max(seconds for _, seconds in answers) <= limit_seconds
    for task in dripping:
        task.cancel()
    await asyncio.gather(*dripping, return_exceptions=True)
    assert len(during) == 15
    assert percentile([item.seconds for item in during], 0.9) < 1.5
    assert grown_bytes < 48 * MIB

    async def closed() -> bool:
        return gateway.sample().descriptors <= before[gateway].descriptors + 12

    await until(closed, "their connections are closed", seconds=10)
    assert await check(stack, ledger, before=before) == []
    assert [key for key in await list_bucket(stack, stack.bucket) if key.startswith("slow/")] == []
    await rate.assert_kept(ledger.put_under)


BOUNDARY = "--edge\r\n"
TEXT_FIELD = f'{BOUNDARY}Content-Disposition: form-data; name="title"\r\n\r\nthe s'
STALLS = {
    "in the lines before the first part": ("/v1/photos", "multipart/form-data; boundary=edge", "nothing yet"),
    "in the headers of a part": ("/v1/photos", "multipart/form-data; boundary=edge", f"{BOUNDARY}Content-Dispo"),
    "in a text field": ("/v1/photos", "multipart/form-data; boundary=edge", TEXT_FIELD),
    "in JSON of a stranger": ("/v1/session", "application/json", '{"token": "x'),
    "in JSON of a key": ("/v1/webhooks", "application/json", '{"url": "x'),
}


async def test_row_07_stalled_where_no_photo_is_read(stack: Stack, open_ledger: OpenLedger) -> None:
    """Clients that fall silent, or send a byte now and then, in a form but not in a file of it, or in a JSON body: each
    gets 408 within the limits, and none holds a place among the uploads afterwards."""
    await stack.start(gateways=1, workers=0, chunk_timeout_seconds="1", max_uploads="8")  # six for one key
    (gateway,) = stack.gateways
    ledger = open_ledger()

    async def stalls(path: str, content_type: str, begin: str, *, drips: bool) -> tuple[int, float]:
        reader, writer = await open_post(stack, gateway, path, content_type)
        writer.write(begin.encode())
        dripping = asyncio.create_task(drip(writer, b"x", every_seconds=0.5)) if drips else None
        try:
            return await answer_of(reader, writer)
        finally:
            if dripping:
                dripping.cancel()

    cases = [(what, drips) for what in STALLS for drips in (False, True)]
    answers = await asyncio.gather(*(stalls(*STALLS[what], drips=drips) for what, drips in cases))
    assert {case: status for case, (status, _) in zip(cases, answers, strict=True) if status != 408} == {}
    assert max(seconds for _, seconds in answers) <= 3 * 1 + 5
    assert await ledger.put(patience_seconds=0) is not None


async def open_post(stack: Stack, gateway: Program, path: str, content_type: str) -> Client:
    """A connection that has sent the head of a POST."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {stack.token}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: 100000\r\n\r\n".encode()
    )
    await writer.drain()
    return reader, writer


async def answer_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, float]:
    """The status that a slow client gets, and after how many seconds."""
    began = time.monotonic()
    async with asyncio.timeout(30):
        line = await reader.readline()
    writer.close()
    return int(line.split()[1]), time.monotonic() - began


async def drip(writer: asyncio.StreamWriter, data: bytes, *, every_seconds: float = 1) -> None:
    """Send it so often, until cancelled or cut off."""
    while not writer.is_closing():
        writer.write(data)
        await asyncio.sleep(every_seconds)


async def drip_headers(gateway: Program) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    writer.write(b"PUT /v1/photos/photos/a.jpg HTTP/1.1\r\nHost: test\r\n")
    try:
        await drip(writer, b"X-Slow: 1\r\n")
    finally:
        writer.close()


async def test_row_29_the_same_nudge_a_hundred_times(stack: Stack, open_ledger: OpenLedger) -> None:
    """A hundred messages for each job, before and after it is done, with four dispatchers: each job runs once."""
    await stack.start(gateways=2, workers=2)
    for worker in stack.workers:
        worker.suspend()
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    ids = [row["id"] for row in await stack.fetch("select id from job")]
    broker = create_broker(JobSettings(redis_url=stack.ground.valkey.url, redis_stream=stack.name))
    await broker.startup()
    assert len(await broker.send(ids * 100)) == 200
    for worker in stack.workers:
        worker.resume()
    await stack.drain(seconds=15)
    assert len(await broker.send(ids * 100)) == 200
    await broker.shutdown()

    async def empty() -> bool:
        return not await stack.redis.xlen(stack.name)

    await until(empty, "every message was taken", seconds=15)
    assert await check(stack, ledger) == []
    assert await stack.value("select count(*) from job_attempt") == 2
    assert await stack.value("select array_agg(token) from job") == [1, 1]


async def test_row_29_the_same_request_fifty_times(stack: Stack, open_ledger: OpenLedger) -> None:
    """Fifty requests with one Idempotency-Key at two gateways at once make one photo; all are answered with it."""
    await stack.start(gateways=2, workers=1)
    ledger = open_ledger()
    body = ledger.photo()
    answers = await asyncio.gather(
        *(ledger.put(body, key="same.jpg", idempotency_key="same") for _ in range(50)),
    )
    ids = {accepted.id for accepted in answers if accepted is not None}
    assert len(answers) - answers.count(None) == 50
    assert len(ids) == 1
    assert sum(not accepted.replayed for accepted in answers if accepted is not None) == 1
    assert {refused.status for refused in ledger.refused} <= {409}
    assert await check(stack, ledger) == []
    assert await stack.value("select count(*) from object") == 1
    assert await stack.value("select count(*) from job_attempt") == 2


async def test_row_40_one_of_two_gateways_killed(stack: Stack, open_ledger: OpenLedger, rate: Rate) -> None:
    """A client whose gateway is killed in the midst of its request gets its photo from the other one, as soon as the
    dead one's hold on the Idempotency-Key has run out; everybody else is served meanwhile, and at the rate of before
    afterwards."""
    await stack.start(gateways=1, workers=1)
    (other,) = stack.gateways
    victim = await stack.start_gateway(failpoint="s3.completed:kill:1")
    ledger = open_ledger()

    async def put(key: str) -> None:
        assert await ledger.put(key=key, gateway=other) is not None

    await rate.measure(put)
    body = ledger.photo()
    assert await ledger.put(body, key="torn.jpg", idempotency_key="torn", gateway=victim, patience_seconds=0) is None
    await victim.ended(seconds=5)
    assert victim.hits("s3.completed") == 1
    retried = asyncio.create_task(ledger.put(body, key="torn.jpg", idempotency_key="torn", gateway=other))
    meanwhile = await ledger.load(per_second=5, seconds=3)
    assert len(meanwhile) == 15
    accepted = await retried
    assert accepted is not None
    assert accepted.seconds <= LOCK_SECONDS + 3
    assert accepted.tries > 1
    assert not accepted.replayed
    assert await stack.value("select count(*) from object where key = 'torn.jpg'") == 1
    assert await check(stack, ledger) == []
    await rate.assert_kept(put)
