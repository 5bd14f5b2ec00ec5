"""A storage that is down, slow, cut off or lying: nothing is promised that it does not hold, nothing it garbled becomes
a preview, and all goes on within seconds of its return. And two generations of one key never mix, whoever is late.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from storage.blobs import LOCKED_SECONDS, BlobsUnavailable
from tests.faults.harness.invariants import check, list_bucket, list_multiparts
from tests.faults.harness.ledger import Accepted, Ledger
from tests.faults.harness.programs import Program
from tests.faults.harness.proxy import Fault
from tests.faults.harness.rates import Rate
from tests.faults.harness.runs import now
from tests.faults.harness.shim import Shim, Spoil
from tests.faults.harness.stack import Stack
from tests.faults.harness.waiting import until, until_true
from tests.photos import make_jpeg

OpenLedger = Callable[..., Ledger]
HEALED_SECONDS = 5


@contextlib.asynccontextmanager
async def open_shim(stack: Stack) -> AsyncIterator[Shim]:
    async with Shim(stack.ground.seaweedfs.url) as shim:
        yield shim


def large_photo() -> bytes:
    """Sent as a multipart upload of three parts."""
    return make_jpeg(96, 72, size_bytes=12 << 20)


async def runs(stack: Stack, photo_id: object) -> dict[str, list[Any]]:
    """How the runs of each of the photo's jobs ended, in order, by processor."""
    rows = await stack.fetch(
        """
        select job.processor, array_agg(job_attempt.outcome order by job_attempt.token) as outcomes
        from job left join job_attempt on job_attempt.job_id = job.id where object_id = $1 group by job.processor
        """,
        photo_id,
    )
    return {row["processor"]: row["outcomes"] for row in rows}


async def put_while_workers_rest(stack: Stack, ledger: Ledger) -> Accepted:
    """A photo whose jobs wait: the workers are suspended, and stay so."""
    for worker in stack.workers:
        worker.suspend()
    accepted = await ledger.put()
    assert accepted is not None
    return accepted


def wake_workers(stack: Stack) -> None:
    for worker in stack.workers:
        worker.resume()


async def refuse_one(stack: Stack, ledger: Ledger, body: bytes | None = None) -> None:
    """An upload that fails now is answered 503 with Retry-After, and nothing of it is recorded."""
    known = await stack.value("select count(*) from object")
    assert await ledger.put(body, patience_seconds=0) is None
    refused = ledger.refused[-1]
    assert (refused.status, refused.code) == (503, "storage_unavailable")
    assert refused.retry_after is not None
    assert await stack.value("select count(*) from object") == known


async def answers_at(stack: Stack) -> Any:
    """When, by the database's clock, the storage took and gave bytes again in both buckets. A server that is started
    again listens before it can, and on a busy machine long before."""

    async def answers() -> bool:
        try:
            for bucket in (stack.bucket, stack.derived_bucket):
                await stack.blobs.put(bucket, "answers", b"yes", content_type="text/plain")
                await stack.blobs.delete(bucket, "answers")
        except BlobsUnavailable:
            return False
        return True

    await until(answers, "the storage answers", seconds=30)
    return await now(stack)


async def assert_snoozed_until_healed(stack: Stack, ledger: Ledger, waiting: Accepted) -> None:
    """The waiting jobs were only put off, at no cost, and ended within 5 s of the storage's return."""
    healed_at = await answers_at(stack)
    await stack.drain(seconds=4 * HEALED_SECONDS)
    ended_at = await stack.value("select max(finished_at) from job where object_id = $1", waiting.id)
    assert (ended_at - healed_at).total_seconds() <= HEALED_SECONDS
    for outcomes in (await runs(stack, waiting.id)).values():
        assert outcomes[-1] == "ok"
        assert set(outcomes[:-1]) == {"snoozed"}
    assert await stack.value("select max(attempt) + max(crashes) from job") == 1
    assert await ledger.put(patience_seconds=HEALED_SECONDS) is not None
    assert await check(stack, ledger) == []


async def snoozed(stack: Stack, photo_id: object) -> None:
    """Wait until each job of the photo has been put off."""

    async def each_was() -> bool:
        return all("snoozed" in outcomes for outcomes in (await runs(stack, photo_id)).values())

    await until(each_was, "the jobs were put off", seconds=20)


async def test_row_18_storage_down(stack: Stack, open_ledger: OpenLedger, rate: Rate) -> None:
    """While S3 is down uploads get 503 with Retry-After and readyz says so; jobs are put off at no cost. 5 s after its
    return all are done, by the same processes, and the rate is as before."""
    await stack.start(gateways=1, workers=1)
    ledger = open_ledger()
    await rate.measure(ledger.put_under)
    waiting = await put_while_workers_rest(stack, ledger)
    await stack.ground.kill(stack.ground.seaweedfs)
    wake_workers(stack)
    await snoozed(stack, waiting.id)
    await refuse_one(stack, ledger)
    await refuse_one(stack, ledger, large_photo())
    status, ready = await ledger.get("/readyz")
    assert (status, ready["dependencies"]["s3"]["up"]) == (503, False)
    assert ready["dependencies"]["postgres"]["up"]
    pids = [program.pid for program in stack.programs]
    await stack.ground.restart(stack.ground.seaweedfs)
    await assert_snoozed_until_healed(stack, ledger, waiting)
    assert [program.pid for program in stack.programs if program.exit_code is None] == pids
    await rate.assert_kept(ledger.put_under)


TROUBLES = {
    "error 500": Spoil(act="answer", status=500),
    "503 SlowDown": Spoil(act="answer", status=503, code="SlowDown"),
    "10 s of latency": Spoil(act="delay", seconds=10),
    "a reset after each request": Spoil(act="cut"),
}


async def test_row_18_storage_in_trouble(stack: Stack, open_ledger: OpenLedger) -> None:
    """A storage that answers 500 or SlowDown, answers too late, or breaks every connection is as good as down: 503,
    jobs put off at no cost, healed within 5 s."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url, s3_read_timeout_seconds="1")
        ledger = open_ledger()
        for what, spoil in TROUBLES.items():
            waiting = await put_while_workers_rest(stack, ledger)
            shim.set(spoil)
            wake_workers(stack)
            await snoozed(stack, waiting.id)
            await refuse_one(stack, ledger)
            await refuse_one(stack, ledger, large_photo())
            assert shim.fired >= 4, what
            shim.heal()
            await assert_snoozed_until_healed(stack, ledger, waiting)


async def test_row_18_storage_takes_no_previews(stack: Stack, open_ledger: OpenLedger) -> None:
    """A storage that gives the original but takes no preview costs the job nothing either."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url)
        ledger = open_ledger()
        within = f"/{stack.derived_bucket}/"
        shim.set(Spoil(act="answer", operations=("PutObject",), within=within, status=503, code="SlowDown"))
        accepted = await ledger.put()
        assert accepted is not None

        async def put_off() -> bool:
            return (await runs(stack, accepted.id))["preview"].count("snoozed") >= 2

        await until(put_off, "the preview was put off twice", seconds=20)
        assert shim.fired >= 2
        shim.heal()
        await stack.drain(seconds=HEALED_SECONDS)
        assert set((await runs(stack, accepted.id))["preview"]) == {"snoozed", "ok"}
        assert await stack.value("select max(attempt) + max(crashes) from job") == 1
        assert await check(stack, ledger) == []


NOTICED_SECONDS = 12  # overdue after 2 s, then asked three times in vain


async def test_row_18_storage_silent(stack: Stack, open_ledger: OpenLedger) -> None:
    """S3 is cut off behind open connections, with the times that are set by default: uploads under way get 503 within
    12 s, new ones at once, however many wait for memory; jobs are put off at no cost; 5 s after the heal uploads are
    taken again and all jobs are done."""
    await stack.start(gateways=1, workers=1, upload_memory_bytes=str(16 << 20))
    (gateway,) = stack.gateways
    ledger = open_ledger()
    waiting = await put_while_workers_rest(stack, ledger)
    passed = stack.ground.s3_proxy.passed_bytes["up"]
    stack.ground.s3_proxy.set(Fault(mode="blackhole"))
    wake_workers(stack)
    bodies = [large_photo() for _ in range(8)]  # of which the memory holds one
    await asyncio.gather(*(ledger.put(body, patience_seconds=0) for body in bodies))
    assert {(item.status, item.code) for item in ledger.refused} == {(503, "storage_unavailable")}
    assert max(item.seconds for item in ledger.refused) <= NOTICED_SECONDS
    assert gateway.logged("storage.silent") == 1
    await snoozed(stack, waiting.id)
    await refuse_one(stack, ledger)
    assert ledger.refused[-1].seconds < 1
    assert stack.ground.s3_proxy.passed_bytes["up"] == passed
    await stack.ground.s3_proxy.heal()
    await assert_snoozed_until_healed(stack, ledger, waiting)


async def test_row_18_one_slow_call(stack: Stack, open_ledger: OpenLedger) -> None:
    """A storage that takes 12 s to complete a multipart upload, and answers everything else, is not taken for silent:
    the upload is accepted, and others beside it are as well."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url)
        ledger = open_ledger()
        shim.set(Spoil(act="delay", operations=("CompleteMultipartUpload",), seconds=NOTICED_SECONDS))
        large = asyncio.create_task(ledger.put(large_photo()))
        await until_true(lambda: shim.fired == 1, "the upload is being completed", seconds=10)
        beside = await ledger.load(per_second=2, seconds=NOTICED_SECONDS)
        assert await large is not None
        assert len(beside) == 2 * NOTICED_SECONDS
        assert ledger.refused == []
        assert stack.gateways[0].logged("storage.silent") == 0
        assert await check(stack, ledger) == []


async def test_row_18_no_bucket_for_previews(stack: Stack, open_ledger: OpenLedger) -> None:
    """A storage that has no bucket for previews, as one may say whose bucket was deleted, costs the job nothing: it
    says what is missing, waits, and is done when the bucket is there; a gateway makes it again by itself."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url)
        ledger = open_ledger()
        within = f"/{stack.derived_bucket}/"
        shim.set(Spoil(act="answer", operations=("PutObject",), within=within, status=404, code="NoSuchBucket"))
        accepted = await ledger.put()
        assert accepted is not None

        async def says_so() -> bool:
            codes = await stack.fetch("select distinct error_code from job_attempt where outcome = 'snoozed'")
            return [row["error_code"] for row in codes] == ["derived_bucket_missing"]

        await until(says_so, "the job says that the bucket is missing", seconds=20)
        shim.heal()
        await stack.drain(seconds=20)
        assert set((await runs(stack, accepted.id))["preview"]) == {"snoozed", "ok"}
        assert await stack.value("select max(attempt) + max(crashes) from job") == 1
        assert await check(stack, ledger) == []


async def test_the_bucket_for_previews_is_made_again(stack: Stack) -> None:
    """Where it is deleted, a gateway makes it again, and not only at its start."""
    await stack.start(gateways=1, workers=0)
    await stack.blobs._client.delete_bucket(Bucket=stack.derived_bucket)
    assert not await stack.blobs.has_bucket(stack.derived_bucket, fresh=True)
    await until(lambda: stack.blobs.has_bucket(stack.derived_bucket, fresh=True), "it is there again", seconds=30)


async def test_row_18_not_even_an_abort(stack: Stack, open_ledger: OpenLedger) -> None:
    """A multipart upload that fails and cannot be aborted is nobody's: it is aborted later though its gateway lives."""
    fast = {"reconcile_interval_seconds": "0.2", "reconcile_pass_seconds": "1", "reconcile_grace_seconds": "0"}
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=0, s3_endpoint=shim.url, **fast)
        ledger = open_ledger()
        shim.set(Spoil(act="answer", operations=("UploadPart", "AbortMultipartUpload"), status=500))
        await refuse_one(stack, ledger, large_photo())
        assert shim.seen["AbortMultipartUpload"] >= 1
        shim.heal()
        assert len(await list_multiparts(stack)) == 1
        await stack.value("update multipart set seen_at = seen_at - interval '1 h'")
        await until(lambda: nothing_dangles(stack), "the upload is aborted", seconds=20)
        assert await check(stack, ledger) == []


async def nothing_dangles(stack: Stack) -> bool:
    return not (await list_multiparts(stack) or await stack.value("select count(*) from multipart"))


async def test_row_18_silent_while_a_key_is_locked(stack: Stack, open_ledger: OpenLedger) -> None:
    """A storage that is slow to say what lies under a key, while a transaction holds the key's lock, is waited for no
    longer than 3 s: 503, the lock is free again, and the retry after the heal is accepted."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url, postgres_idle_seconds="10")  # as by default
        ledger = open_ledger()
        assert await ledger.put(key="same.jpg") is not None
        await stack.drain(seconds=10)
        shim.set(Spoil(act="delay", operations=("HeadObject",), seconds=15))
        assert await ledger.put(key="same.jpg", patience_seconds=0) is None
        refused = ledger.refused[-1]
        assert (refused.status, refused.code) == (503, "storage_unavailable")
        assert refused.seconds < LOCKED_SECONDS + 2
        assert shim.fired >= 1
        shim.heal()
        assert await ledger.put(key="same.jpg") is not None
        assert await check(stack, ledger) == []


async def test_row_18_reset_in_the_midst_of_a_part(stack: Stack, open_ledger: OpenLedger) -> None:
    """Connections that break 2 MiB into every part: 503, the multipart upload is aborted, nothing is recorded; the
    retry after the heal makes one photo."""
    await stack.start(gateways=1, workers=1)
    ledger = open_ledger()
    stack.ground.s3_proxy.set(Fault(mode="cut_after", n_bytes=2 << 20, direction="up", times=None))
    body, idempotency_key = large_photo(), "reset-mid-part"
    assert await ledger.put(body, key="large.jpg", idempotency_key=idempotency_key, patience_seconds=0) is None
    assert stack.ground.s3_proxy.fired >= 2
    assert (ledger.refused[-1].status, ledger.refused[-1].code) == (503, "storage_unavailable")
    assert await list_multiparts(stack) == []
    assert await stack.value("select (select count(*) from object) + (select count(*) from multipart)") == 0
    await stack.ground.s3_proxy.heal()
    assert await ledger.put(body, key="large.jpg", idempotency_key=idempotency_key) is not None
    assert await check(stack, ledger) == []
    assert await stack.value("select count(*) from object") == 1


async def test_row_18_lying_complete(stack: Stack, open_ledger: OpenLedger) -> None:
    """200 with an <Error> for a body, S3's way of failing late, is a failure: 503, aborted, nothing recorded."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url)
        ledger = open_ledger()
        shim.set(Spoil(act="lie", operations=("CompleteMultipartUpload",)))
        await refuse_one(stack, ledger, large_photo())
        assert shim.fired >= 1
        assert shim.seen["AbortMultipartUpload"] >= 1
        assert await list_multiparts(stack) == []
        assert await list_bucket(stack, stack.bucket) == {}
        shim.heal()
        assert await ledger.put(large_photo()) is not None
        assert await check(stack, ledger) == []


async def test_row_18_wrong_etag(stack: Stack, open_ledger: OpenLedger) -> None:
    """A PUT whose answer names another ETag than the object has: the job finds that its generation is not what lies
    there, and records what does. The photo has its previews, and no byte is wrong."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url)
        ledger = open_ledger()
        shim.set(Spoil(act="etag", operations=("PutObject",), within=f"/{stack.bucket}/", times=1))
        accepted = await ledger.put()
        assert accepted is not None
        assert shim.fired == 1
        await stack.drain(seconds=10)
        rows = await stack.fetch("select id, etag, superseded_at is null as current, status from object")
        (current,) = [row for row in rows if row["current"]]
        assert len(rows) == 2
        assert current["id"] != accepted.id
        assert current["status"] == "ready"
        assert current["etag"] == (await list_bucket(stack, stack.bucket))[accepted.key]
        assert await check(stack, ledger) == []


async def test_row_18_flipped_bit(stack: Stack, open_ledger: OpenLedger) -> None:
    """One flipped bit in what the storage gives back costs an attempt and never becomes a preview; where every answer
    is flipped, the job is dead with the code original_corrupted."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url, max_attempts="3")
        ledger = open_ledger()
        shim.set(Spoil(act="flip", operations=("GetObject",), within=f"/{stack.bucket}/", times=2))
        once = await ledger.put()
        assert once is not None
        assert await check(stack, ledger) == []
        assert shim.fired == 2
        outcomes = (await runs(stack, once.id)).values()
        assert sorted(outcome for each in outcomes for outcome in each) == ["ok", "ok", "retry", "retry"]
        codes = await stack.fetch("select distinct error_code from job_attempt where outcome = 'retry'")
        assert [row["error_code"] for row in codes] == ["original_corrupted"]

        shim.set(Spoil(act="flip", operations=("GetObject",), within=f"/{stack.bucket}/"))
        always = await ledger.put()
        assert always is not None
        assert await check(stack, ledger) == []
        assert await runs(stack, always.id) == {name: ["retry", "retry", "dead"] for name in stack.processors}
        rows = await stack.fetch("select * from job where object_id = $1", always.id)
        assert {(row["state"], row["error_code"]) for row in rows} == {("dead", "original_corrupted")}
        assert await stack.value("select count(*) from artifact where object_id = $1", always.id) == 0


async def test_row_19_reply_lost(stack: Stack, open_ledger: OpenLedger) -> None:
    """The storage did it and its answer is lost, once or until we gave up, of a PUT or of a complete: the client ends
    with a 2xx, and there is one object, one row, nothing dangling."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=1, workers=1, s3_endpoint=shim.url)
        ledger = open_ledger()
        for operation, body in (("PutObject", None), ("CompleteMultipartUpload", large_photo())):
            cut = Spoil(act="cut", operations=(operation,), within=f"/{stack.bucket}/", times=1)
            shim.set(cut)
            assert await ledger.put(body) is not None
            assert shim.fired == 1

            shim.set(replace(cut, times=None))
            refused = len(ledger.refused)
            sending = asyncio.create_task(ledger.put(body))
            await until_true(lambda known=refused: len(ledger.refused) > known, "we gave up", seconds=20)  # type: ignore[misc]
            assert shim.fired >= 2
            shim.heal()
            assert await sending is not None
        assert {(item.status, item.code) for item in ledger.refused} == {(503, "storage_unavailable")}
        assert await check(stack, ledger) == []
        assert await stack.value("select count(*) from object") == len(ledger.accepted) == 4
        assert set(await list_bucket(stack, stack.bucket)) == {item.key for item in ledger.accepted}


async def derived_sources(stack: Stack, source: str) -> set[str]:
    """ETags of the originals that the previews of this key in S3 say they were made of."""
    keys = [key for key in await list_bucket(stack, stack.derived_bucket) if f"/{source}/" in key]
    heads = [await stack.blobs.head(stack.derived_bucket, key) for key in keys]
    return {head.metadata["source-etag"] for head in heads}


async def test_row_38_overwritten_while_its_job_runs(stack: Stack, open_ledger: OpenLedger) -> None:
    """A worker that stops before and after it puts previews, while each time a new photo takes the key over and is
    done: when it goes on its job ends superseded, and every preview is of the newest photo."""
    points = ("artifact.put_before", "artifact.put_after")
    await stack.start(gateways=1, workers=0)
    armed = ",".join(f"{point}:stop:1" for point in points)
    late = stack.launch("worker", failpoint=armed, lease_seconds="60", worker_slots="1")
    other = stack.launch("worker")
    await asyncio.gather(late.ready(), other.ready())
    ledger = open_ledger()
    other.suspend()
    old = await ledger.put(key="same.jpg")
    assert old is not None
    for point in points:
        await until_true(lambda point=point: late.hits(point) == 1, f"it stops at {point}", seconds=10)  # type: ignore[misc]
        other.resume()
        new = await ledger.put(key="same.jpg", wait=20)
        assert new is not None
        assert await stack.value("select settled_at is not null from object where id = $1", new.id)
        late.resume()
    assert await check(stack, ledger) == []
    assert "superseded" in {outcome for each in (await runs(stack, old.id)).values() for outcome in each}
    etag = await stack.value("select etag from object where id = $1", ledger.accepted[-1].id)
    assert await derived_sources(stack, "same.jpg") == {etag}
    assert (await list_bucket(stack, stack.bucket))["same.jpg"] == etag


async def test_row_38_overwritten_behind_our_back(stack: Stack, open_ledger: OpenLedger) -> None:
    """Other bytes put straight into S3 before the job reads them: the job records what lies there, ends superseded, and
    the previews are of what lies there."""
    await stack.start(gateways=1, workers=1)
    ledger = open_ledger()
    old = await put_while_workers_rest(stack, ledger)
    written = await stack.blobs.put(stack.bucket, old.key, make_jpeg(80, 60), content_type="image/jpeg")
    wake_workers(stack)
    assert await check(stack, ledger) == []
    current = await stack.fetch("select id, etag, status from object where superseded_at is null")
    assert [(row["etag"], row["status"]) for row in current] == [(written.etag, "ready")]
    assert await derived_sources(stack, old.key) == {written.etag}


@pytest.mark.parametrize("recorded_first", ["first_writer", "second_writer"])
async def test_row_38_two_writers_of_one_key(stack: Stack, open_ledger: OpenLedger, recorded_first: str) -> None:
    """Two writers of one key, recorded in the order in which they reached S3 or in the other: the bytes that S3 kept
    are the current generation, with previews of them; both clients got a 2xx."""
    async with open_shim(stack) as shim:
        await stack.start(gateways=0, workers=1)
        shimmed = await stack.start_gateway(s3_endpoint=shim.url)
        plain = await stack.start_gateway()
        ledger = open_ledger()
        await ledger.put(gateway=plain)
        shim.set(Spoil(act="hold", operations=("PutObject",), within="same.jpg"))
        if recorded_first == "second_writer":
            first = asyncio.create_task(ledger.put(key="same.jpg", gateway=shimmed))
            await until_true(lambda: shim.held == 1, "the first writer's bytes lie in S3", seconds=10)
            last = await ledger.put(key="same.jpg", gateway=plain)
            shim.heal()
            one = await first
        else:
            one, last = await overwrite_before_the_jobs_run(stack, ledger, shim, plain, shimmed)
        assert one is not None
        assert last is not None
        assert one.id != last.id
        assert await check(stack, ledger) == []
        (current,) = await stack.fetch(
            "select id, etag, sha256 from object where key = 'same.jpg' and superseded_at is null"
        )
        assert current["sha256"].hex() == last.sha256
        assert (await list_bucket(stack, stack.bucket))["same.jpg"] == current["etag"]
        assert await derived_sources(stack, "same.jpg") == {current["etag"]}


async def overwrite_before_the_jobs_run(
    stack: Stack, ledger: Ledger, shim: Shim, first_gateway: Program, second_gateway: Program
) -> tuple[Accepted | None, Accepted | None]:
    """The second writer's bytes replace the first one's before its jobs run, and are recorded after they did."""
    for worker in stack.workers:
        worker.suspend()
    one = await ledger.put(key="same.jpg", gateway=first_gateway)
    assert one is not None
    second = asyncio.create_task(ledger.put(key="same.jpg", gateway=second_gateway))
    await until_true(lambda: shim.held == 1, "the second writer's bytes lie in S3", seconds=10)
    wake_workers(stack)

    async def superseded() -> bool:
        return bool(await stack.value("select superseded_at is not null from object where id = $1", one.id))

    await until(superseded, "the first one's job found other bytes", seconds=10)
    await stack.drain(seconds=10)
    shim.heal()
    return one, await second


@pytest.mark.parametrize(
    ("point", "end"),
    [("artifact.put_before", "goes_on"), ("artifact.put_after", "killed"), ("artifact.put_after", "killed_before")],
)
async def test_row_38_deleted_while_its_job_runs(stack: Stack, open_ledger: OpenLedger, point: str, end: str) -> None:
    """A photo deleted while a worker is about to put a preview and then does, or has put one and is then killed, or was
    killed and its job waits for another worker: in the end no preview is left in S3, and no row waits."""
    await stack.start(gateways=1, workers=0, reconcile_interval_seconds="0")  # which would clean up, but later
    late = await stack.start_worker(failpoint=f"{point}:stop:1", worker_slots="1")
    ledger = open_ledger()
    accepted = await ledger.put()
    assert accepted is not None
    await until_true(lambda: late.hits(point) == 1, "the worker stops in the midst", seconds=10)
    if end == "killed_before":
        late.kill()
        await until(lambda: waits(stack), "the job waits for another worker", seconds=15)
    await delete(ledger, accepted)
    if end != "goes_on":
        late.kill()
        late.restart()
        await late.ready()
    else:
        late.resume()
    await stack.drain(seconds=15)

    async def nothing_left() -> bool:
        rows = await stack.value("select (select count(*) from artifact) + (select count(*) from garbage)")
        return not rows and not await list_bucket(stack, stack.derived_bucket)

    await until(nothing_left, "no preview is left", seconds=25)
    assert await list_bucket(stack, stack.bucket) == {}


async def waits(stack: Stack) -> bool:
    return bool(await stack.value("select state = 'ready' and token > 0 from job where processor = 'preview'"))


async def delete(ledger: Ledger, accepted: Accepted) -> None:
    status, _ = await ledger.request("DELETE", f"/v1/photos/{accepted.id}")
    assert status == 204
