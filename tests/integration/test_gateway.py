"""The REST door with real servers behind it, while those fail and clients misbehave: accepted whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp.test_utils import TestClient
from structlog.testing import capture_logs

from gateway.app import create_app
from gateway.context import CONTEXT, Context
from gateway.settings import GatewaySettings
from safelight.embedded import Valkey
from storage import credentials, jobs
from storage.blobs import PART_BYTES, Blobs
from storage.database import Database
from tests.integration.stage import fetch, in_transaction, job_settings, storage_settings, take, until, value
from tests.photos import make_jpeg, padded
from tests.servers import S3Backend, Servers

PHOTO = make_jpeg(64, 48)
BIG_PHOTO = padded(PHOTO, 5 * PART_BYTES)


@dataclass(frozen=True, kw_only=True)
class Door:
    """A gateway in this process, and a key to it."""

    client: TestClient[Any, Any]
    credential: credentials.Credential
    bucket: str

    @property
    def context(self) -> Context:
        app = self.client.app
        assert app is not None
        return app[CONTEXT]

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.credential.token}"}

    async def put(self, key: str, body: Any = PHOTO, *, wait: float = 0, **headers: str) -> aiohttp.ClientResponse:
        path = f"/v1/photos/{self.bucket}/{key}"
        return await self.client.put(path, data=body, params={"wait": wait}, headers={**self.bearer, **headers})

    async def post(self, body: bytes = PHOTO, **headers: str) -> aiohttp.ClientResponse:
        form = aiohttp.FormData()
        form.add_field("file", body, filename="sea.jpg", content_type="image/jpeg")
        return await self.client.post("/v1/photos", data=form, headers={**self.bearer, **headers})

    async def accepts(self, key: str) -> bool:
        async with await self.put(key) as answer:
            return answer.status == 201


Open = Callable[..., Awaitable[Door]]


@pytest.fixture
async def open_door(
    aiohttp_client: Any,
    valkey: Valkey,
    database: Database,
    postgres_dsn: str,
    s3_backend: S3Backend,
    bucket_prefix: str,
    bucket: str,
) -> AsyncIterator[Open]:
    """Opens a gateway with the given settings, on a Valkey of its own and the session's Postgres and SeaweedFS."""
    storage = storage_settings(
        postgres_dsn, s3_backend, default_bucket=bucket, derived_bucket=f"{bucket_prefix}-derived"
    )

    async def open_one(**settings: Any) -> Door:
        credential = credentials.generate()
        scopes = ["read", "write"]
        await in_transaction(database, partial(credentials.create, credential=credential, name="test", scopes=scopes))
        app = create_app(GatewaySettings(**settings), job_settings(valkey.url), storage)
        clients.append(await aiohttp_client(app))
        return Door(client=clients[-1], credential=credential, bucket=bucket)

    clients: list[TestClient[Any, Any]] = []
    yield open_one
    for client in clients:  # before the servers that it uses
        await client.close()


async def check_unavailable(answer: aiohttp.ClientResponse, code: str) -> None:
    content = await answer.json()
    assert (answer.status, content["code"]) == (503, code)
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.content_type == "application/problem+json"


async def keys_in(blobs: Blobs, bucket: str) -> list[str]:
    answer = await blobs._client.list_objects_v2(Bucket=bucket)
    return [item["Key"] for item in answer.get("Contents", ())]


async def uploads_in(blobs: Blobs, bucket: str) -> list[str]:
    answer = await blobs._client.list_multipart_uploads(Bucket=bucket)
    return [item["Key"] for item in answer.get("Uploads", ())]


async def keep_commits(database: Database) -> None:
    """Have new connections to this database write each commit before they answer; the session's server does not."""
    async with database.connection() as conn:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f'alter database "{name}" set synchronous_commit = on')


async def fail_records(database: Database, sqlstate: str | None, text: str = "no") -> None:
    """Have Postgres itself refuse new photos with that error; None: take them again."""
    statement = "drop trigger fail on object"
    if sqlstate:
        statement = f"""
            create function fail() returns trigger language plpgsql as
            $$ begin raise exception using errcode = '{sqlstate}', message = '{text}'; end $$;
            create trigger fail before insert on object execute function fail();
        """
    async with database.connection() as conn:
        await conn.execute(statement)


@pytest.mark.parametrize("state", ["dead", "frozen"])
async def test_uploads_are_taken_without_redis(open_door: Open, valkey: Valkey, database: Database, state: str) -> None:
    """With Valkey dead or frozen an upload is answered 201 within 1.5 s, its jobs wait in Postgres, and readiness says
    which dependency is away."""
    door = await open_door()
    valkey.kill() if state == "dead" else valkey.suspend()
    for number in range(3):
        began = time.monotonic()
        async with await door.put(f"{number}.jpg") as answer:
            assert answer.status == 201
        assert time.monotonic() - began < 1.5
    assert await value(database, "select count(*) from job where state = 'ready'") == 6
    async with await door.client.get("/readyz") as answer:
        content = await answer.json()
    assert (answer.status, content["ready"], content["dependencies"]["redis"]["up"]) == (200, True, False)


async def test_postgres_goes_and_comes(open_door: Open, servers: Servers, database: Database) -> None:
    """Without Postgres uploads and reads are answered 503 with Retry-After; 5 s after it is back they work, in the same
    process, and what was accepted before is there."""
    await keep_commits(database)
    door = await open_door(record_seconds=0.2)
    assert await door.accepts("before.jpg")
    servers.postgres.kill()
    await check_unavailable(await door.put("during.jpg"), "database_unavailable")
    await check_unavailable(await door.client.get("/v1/photos", headers=door.bearer), "database_unavailable")
    async with await door.client.get("/readyz") as answer:
        assert answer.status == 503
        assert (await answer.json())["dependencies"]["postgres"]["up"] is False
    async with await door.client.get("/healthz") as answer:
        assert answer.status == 200
    servers.postgres.start()
    await until(lambda: door.accepts("after.jpg"), seconds=5, what="uploads are taken again")
    rows = await fetch(database, "select key from object order by key")
    assert [row["key"] for row in rows] == ["after.jpg", "before.jpg"]


async def test_postgres_restarting_during_an_upload_costs_only_time(open_door: Open, servers: Servers) -> None:
    """A photo whose bytes are stored waits for Postgres up to record_seconds, and is then accepted."""
    door = await open_door(record_seconds=30)
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield PHOTO[:200]
        await gate.wait()
        yield PHOTO[200:]

    upload = asyncio.create_task(door.put("a.jpg", body()))

    async def is_taken() -> bool:
        return door.context.memory.used_bytes > 0

    await until(is_taken, seconds=10, what="the gateway has let the upload in")
    servers.postgres.kill()
    gate.set()
    await asyncio.wait({upload}, timeout=0.5)
    assert not upload.done()
    servers.postgres.start()
    async with await asyncio.wait_for(upload, 15) as answer:
        assert answer.status == 201


async def test_the_storage_goes_and_comes(open_door: Open, servers: Servers, database: Database) -> None:
    """Without S3 uploads are answered 503 with Retry-After and leave no row; when it is back they work."""
    door = await open_door()
    assert await door.accepts("before.jpg")
    servers.seaweedfs.kill()
    await check_unavailable(await door.put("during.jpg"), "storage_unavailable")
    await check_unavailable(await door.put("during.jpg", BIG_PHOTO), "storage_unavailable")
    async with await door.client.get("/readyz") as answer:
        assert answer.status == 503
    assert await value(database, "select array_agg(key) from object") == ["before.jpg"]
    servers.seaweedfs.start()
    await until(lambda: door.accepts("after.jpg"), seconds=15, what="uploads are taken again")
    assert door.context.memory.used_bytes == 0


async def test_a_client_that_leaves_takes_its_upload_with_it(
    open_door: Open, blobs: Blobs, database: Database, bucket: str
) -> None:
    """A connection cut in the midst of a large body leaves no object, multipart upload, row or memory taken."""
    door = await open_door()
    writer = await send_half(door, BIG_PHOTO)

    async def under_way() -> list[str]:
        return await uploads_in(blobs, bucket)

    assert await until(under_way, seconds=10, what="the upload reached S3") == ["half.jpg"]
    writer.transport.abort()

    async def nothing_left() -> bool:
        return not await under_way() and door.context.memory.used_bytes == 0

    await until(nothing_left, seconds=10, what="the upload is aborted")
    assert await keys_in(blobs, bucket) == []
    assert await value(database, "select count(*) from object") == 0


async def send_half(door: Door, photo: bytes) -> asyncio.StreamWriter:
    """Send the head and the first half of an upload, on a connection of its own."""
    _, writer = await asyncio.open_connection("127.0.0.1", door.client.port)
    head = (
        f"PUT /v1/photos/{door.bucket}/half.jpg HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}\r\n"
        f"Authorization: Bearer {door.credential.token}\r\n\r\n"
    )
    writer.write(head.encode() + photo[: len(photo) // 2])
    await writer.drain()
    return writer


@pytest.mark.parametrize("photo", [PHOTO, BIG_PHOTO], ids=["before anything is stored", "after some parts"])
async def test_a_stalled_body_times_out(open_door: Open, blobs: Blobs, bucket: str, photo: bytes) -> None:
    """A client that falls silent during its body is answered 408, and nothing of it stays."""
    door = await open_door(chunk_timeout_seconds=0.3)

    async def body() -> AsyncIterator[bytes]:
        yield photo[: len(photo) // 2]
        await asyncio.Event().wait()

    async with await asyncio.wait_for(door.put("a.jpg", body()), 10) as answer:
        assert (answer.status, (await answer.json())["code"]) == (408, "body_timeout")
    assert (await keys_in(blobs, bucket), await uploads_in(blobs, bucket)) == ([], [])
    assert door.context.memory.used_bytes == 0


async def test_a_revoked_key_opens_nothing(open_door: Open, database: Database) -> None:
    """Within 1.5 s of its revocation a key that worked is answered 401, on reads and writes."""
    door = await open_door()
    assert await door.accepts("a.jpg")
    assert await in_transaction(database, partial(credentials.revoke, access_key=door.credential.access_key))

    async def refused() -> bool:
        async with await door.client.get("/v1/photos", headers=door.bearer) as answer:
            return answer.status == 401

    await until(refused, seconds=1.5, what="the key is refused")
    async with await door.put("b.jpg") as answer:
        assert (answer.status, (await answer.json())["code"]) == (401, "unauthorized")


async def test_a_key_opens_only_its_scopes(open_door: Open) -> None:
    """No key, a wrong secret and a missing scope are refused, each in its way."""
    door = await open_door()
    wrong = f"Bearer {door.credential.access_key}.{'x' * 40}"
    for headers in ({}, {"Authorization": wrong}, {"Authorization": "Basic abc"}):
        async with await door.client.get("/v1/photos", headers=headers) as answer:
            assert (answer.status, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
    async with await door.client.post("/v1/jobs/replay", json={}, headers=door.bearer) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "forbidden")


async def test_a_retry_after_a_failed_record_stores_no_second_photo(
    open_door: Open, blobs: Blobs, database: Database, bucket: str
) -> None:
    """The bytes were stored, Postgres failed: 503. The retry with the same Idempotency-Key writes to the same key in S3
    and is accepted; a third try is answered with the same photo."""
    door = await open_door(record_seconds=0.1)
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    await fail_records(database, "57P01")
    await check_unavailable(await door.post(**headers), "database_unavailable")
    left = await keys_in(blobs, bucket)
    assert len(left) == 1
    await fail_records(database, None)
    async with await door.post(**headers) as answer:
        content = await answer.json()
        assert answer.status == 201, content
        assert "Idempotent-Replayed" not in answer.headers
    assert await keys_in(blobs, bucket) == left
    assert [photo["key"] for photo in content["photos"]] == left
    async with await door.post(**headers) as answer:
        again = await answer.json()
        assert (answer.status, answer.headers["Idempotent-Replayed"]) == (201, "true")
    assert [photo["id"] for photo in again["photos"]] == [photo["id"] for photo in content["photos"]]
    assert await value(database, "select count(*) from object") == 1


async def test_concurrent_retries_store_one_photo(
    open_door: Open, blobs: Blobs, database: Database, bucket: str
) -> None:
    """Of 20 requests with one Idempotency-Key at once, each is either the one, its replay, or told to wait."""
    door = await open_door()
    answers = await asyncio.gather(*(door.post(**{"Idempotency-Key": "k"}) for _ in range(20)))
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    for answer in answers:
        if answer.status == 409:
            assert (await answer.json())["code"] == "idempotency_in_progress"
    assert len(await keys_in(blobs, bucket)) == 1
    assert await value(database, "select count(*) from object") == 1


async def test_an_idempotency_key_is_for_one_request(open_door: Open, database: Database) -> None:
    """The same key with other bytes or another address is refused, and stores nothing."""
    door = await open_door()
    headers = {"Idempotency-Key": "k"}
    async with await door.put("a.jpg", **headers) as answer:
        assert answer.status == 201
    for key, body in (("a.jpg", make_jpeg(65, 48)), ("b.jpg", PHOTO)):
        async with await door.put(key, body, **headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (422, "idempotency_key_reused")
    assert await value(database, "select count(*) from object") == 1


async def test_waiting_ends_when_the_photo_has_settled(open_door: Open, database: Database) -> None:
    """?wait=30 is answered soon after the last job ends, with the photo ready; ?wait=0.3 ends by itself, processing."""
    door = await open_door()

    async def finish_all() -> float:
        async def due() -> list[dict[str, Any]]:
            return await fetch(database, "select id from job where state = 'ready' order by id")

        for row in await until(due, seconds=5, what="jobs"):
            claim = await take(database, row["id"])
            await in_transaction(database, partial(jobs.finish, claim=claim, version=1))
        return time.monotonic()

    finishing = asyncio.create_task(finish_all())
    async with await door.put("a.jpg", wait=30) as answer:
        content = await answer.json()
    assert time.monotonic() - await finishing < 2
    assert (answer.status, content["status"]) == (201, "ready")
    began = time.monotonic()
    async with await door.put("b.jpg", wait=0.3) as answer:
        content = await answer.json()
    assert 0.3 <= time.monotonic() - began < 5
    assert (answer.status, content["status"]) == (201, "processing")


async def test_an_unforeseen_error_is_answered_with_an_id_alone(open_door: Open, database: Database) -> None:
    """An error that nobody foresaw is a 500 with an id; its text is in the log under that id, and not in the answer."""
    door = await open_door()
    structlog.reset_defaults()
    await fail_records(database, "22012", text="secret of the house")
    with capture_logs() as lines:
        async with await door.put("a.jpg") as answer:
            text = await answer.text()
            content = await answer.json()
    assert (answer.status, content["code"]) == (500, "internal")
    assert content["error_id"] in content["detail"]
    assert "secret" not in text
    (line,) = [line for line in lines if line["event"] == "request.failed"]
    assert line["error_id"] == content["error_id"]
    assert "secret of the house" in str(line["exc_info"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 415, "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>" * 20, 415, "unsupported_format"),
        (b"%PDF-1.7" + bytes(1000), 415, "not_an_image"),
        (bytes(1000), 415, "not_an_image"),
    ],
    ids=["empty", "SVG", "PDF", "zeros"],
)
async def test_what_is_no_photo_is_never_stored(
    open_door: Open, blobs: Blobs, bucket: str, body: bytes, status: int, code: str
) -> None:
    """The first bytes decide before anything is stored, whatever the client says that it is."""
    door = await open_door()
    async with await door.put("a.jpg", body, **{"Content-Type": "image/jpeg"}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (status, code)
    assert await keys_in(blobs, bucket) == []


@pytest.mark.parametrize("away", ["none", "postgres", "valkey", "seaweedfs"])
async def test_the_gateway_stops_whatever_is_away(open_door: Open, servers: Servers, valkey: Valkey, away: str) -> None:
    """Frozen servers, which answer nothing and refuse nothing, keep the gateway from ending for no longer than 6 s."""
    door = await open_door()
    assert await door.accepts("a.jpg")
    frozen = {"postgres": servers.postgres, "valkey": valkey, "seaweedfs": servers.seaweedfs}.get(away)
    if frozen:
        frozen.suspend()
    began = time.monotonic()
    try:
        async with asyncio.timeout(30):
            await door.client.close()
        assert time.monotonic() - began < 6
    finally:
        if frozen:
            frozen.resume()


@pytest.mark.parametrize("job_id", ["0", "x", "-1", "1.5", "9" * 19, "0" * 20 + "9" * 30, "9" * 5000, "%00", "\u0661"])
async def test_odd_job_ids_are_unknown_jobs(open_door: Open, job_id: str) -> None:
    """Whatever stands where a job's id should, the answer is that there is nothing."""
    door = await open_door()
    async with await door.client.get(f"/v1/jobs/{job_id}", headers=door.bearer) as answer:
        assert answer.status == 404
        assert (await answer.json())["code"] in ("no_such_job", "not_found")


@pytest.mark.parametrize("stated", [True, False], ids=["length stated", "chunked"])
async def test_too_large_a_photo_is_refused(open_door: Open, blobs: Blobs, bucket: str, stated: bool) -> None:
    """More bytes than allowed are refused, before they are read where the length is stated, and nothing stays."""
    door = await open_door(max_upload_bytes=2 * PART_BYTES)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(BIG_PHOTO), 1 << 20):
            yield BIG_PHOTO[start : start + (1 << 20)]

    with contextlib.suppress(aiohttp.ClientConnectionError):  # the gateway may stop reading before all is sent
        async with await door.put("a.jpg", BIG_PHOTO if stated else chunks()) as answer:
            assert (answer.status, (await answer.json())["code"]) == (413, "too_large")
    assert (await keys_in(blobs, bucket), await uploads_in(blobs, bucket)) == ([], [])
    assert door.context.memory.used_bytes == 0


async def test_many_large_uploads_share_the_memory(open_door: Open, blobs: Blobs, bucket: str) -> None:
    """Five large uploads at once in a small budget are all stored whole, one waiting for the other."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    door = await open_door(upload_memory_bytes=3 * PART_BYTES)
    bodies = {f"{n}.jpg": padded(PHOTO, 2 * PART_BYTES + 1, seed=seed + n) for n in range(5)}
    answers = await asyncio.gather(*(door.put(key, body) for key, body in bodies.items()))
    assert [answer.status for answer in answers] == [201] * 5
    for key, body in bodies.items():
        head = await blobs.head(bucket, key)
        assert await blobs.read(bucket, key, etag=head.etag) == body
    assert door.context.memory.used_bytes == 0


async def test_one_key_leaves_a_place_to_the_others(open_door: Open, database: Database) -> None:
    """Of four places among the uploads a key gets three; then it is told 429, while another key's photo is taken."""
    door = await open_door(max_uploads=4, chunk_timeout_seconds=60)
    writers = [await send_half(door, PHOTO) for _ in range(3)]

    async def all_in() -> bool:
        return door.context.limits.uploads_in_flight == 3

    await until(all_in, seconds=10, what="three uploads are in flight")
    async with await door.put("fourth.jpg") as answer:
        assert (answer.status, (await answer.json())["code"]) == (429, "too_many_uploads")
        assert int(answer.headers["Retry-After"]) > 0
    other = credentials.generate()
    await in_transaction(
        database, partial(credentials.create, credential=other, name="other", scopes=["write", "read"])
    )
    assert await replace(door, credential=other).accepts("others.jpg")
    for writer in writers:
        writer.transport.abort()

    async def all_gone() -> bool:
        return door.context.limits.uploads_in_flight == 0

    await until(all_gone, seconds=10, what="their places are free")
    assert await door.accepts("fourth.jpg")
