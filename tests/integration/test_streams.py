"""GET /v1/events with real servers behind it: in order, resumed without gap or repeat, bounded, and closed in time."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient

from gateway import streams
from gateway.app import create_app
from gateway.context import CONTEXT
from gateway.settings import GatewaySettings
from safelight.embedded import Valkey
from storage import credentials, events, jobs, objects
from storage.credentials import Credential
from storage.database import Database
from storage.objects import Plan
from tests.integration.listening import Ear
from tests.integration.programs import Program, Stage, read_address
from tests.integration.stage import (
    add_photo,
    in_transaction,
    job_settings,
    make_stored,
    storage_settings,
    take,
    until,
    value,
)

PLANS = [Plan(processor="preview", version=1, max_attempts=8)]
Client = TestClient[Any, Any]
Open = Callable[..., Awaitable[Client]]


@pytest.fixture
async def open_gateway(aiohttp_client: Any, valkey: Valkey, postgres_dsn: str, blobs: object) -> AsyncIterator[Open]:
    """Opens gateways with the given settings, on a Valkey of this test and the session's Postgres."""
    clients: list[Client] = []

    async def open_one(**settings: Any) -> Client:
        app = create_app(GatewaySettings(**settings), job_settings(valkey.url), storage_settings(postgres_dsn))
        clients.append(await aiohttp_client(app))
        return clients[-1]

    yield open_one
    for client in clients:
        await client.close()


async def make_key(database: Database, *, places: tuple[str, ...] = ()) -> Credential:
    credential = credentials.generate()
    await in_transaction(
        database, partial(credentials.create, credential=credential, name="test", scopes=["read"], places=places)
    )
    return credential


def bearer(credential: Credential) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential.token}"}


@contextlib.asynccontextmanager
async def listen(
    client: Client, credential: Credential, last_id: str | None = None, **query: str
) -> AsyncIterator[Ear]:
    """An open stream that has begun."""
    headers = bearer(credential) | ({"Last-Event-ID": last_id} if last_id is not None else {})
    timeout = aiohttp.ClientTimeout(total=None)
    async with client.get("/v1/events", headers=headers, params=query, timeout=timeout) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        ear = Ear(answer=answer)
        begun = await answer.content.readline()
        assert begun == b"retry: 2000\n"
        yield ear


async def store(database: Database, bucket: str, key: str) -> uuid.UUID:
    stored = make_stored(key, uuid.uuid4().hex, bucket=bucket)
    return (await in_transaction(database, partial(objects.record, stored=stored, plans=PLANS))).id


async def test_events_come_as_they_happen_with_what_clients_need(open_gateway: Open, database: Database) -> None:
    """Stored, then ready: each with id, type, time and data, and ids that are ordered as text."""
    client, key = await open_gateway(), await make_key(database)
    async with listen(client, key) as ear:
        photo_id, ids = await add_photo(database)
        claim = await take(database, ids["preview"])
        await in_transaction(database, partial(jobs.finish, claim=claim, version=1))
        stored, ready = await ear.hear(2)
    assert (stored.type, ready.type) == ("photo.stored", "photo.ready")
    assert stored.id < ready.id
    for event in (stored, ready):
        assert set(event.body) == {"id", "type", "timestamp", "data"}
        assert (event.body["id"], event.body["type"]) == (event.id, event.type)
        assert event.body["timestamp"].endswith("Z")
        assert event.body["data"]["photo_id"] == str(photo_id)
    assert ready.body["data"]["status"] == "ready"


async def test_a_stream_without_a_place_begins_with_what_comes_next(open_gateway: Open, database: Database) -> None:
    """What happened before is not told, unless it is asked for with `after`."""
    client, key = await open_gateway(), await make_key(database)
    await store(database, "photos", "before.jpg")
    await until(lambda: value(database, "select last_seq = 1 from event_line"), seconds=5, what="its place")
    async with listen(client, key) as ear:
        await store(database, "photos", "after.jpg")
        assert (await ear.hear(1))[0].body["data"]["key"] == "after.jpg"
    async with listen(client, key, after=events.write_id(0)) as ear:
        assert [heard.body["data"]["key"] for heard in await ear.hear(2)] == ["before.jpg", "after.jpg"]


async def test_filters_keep_what_matches(open_gateway: Open, database: Database) -> None:
    """By type, bucket and the beginning of the key, alone and together; what is no type is refused."""
    client, key = await open_gateway(), await make_key(database)
    wanted = {"types": "photo.deleted,photo.stored", "bucket": "b1", "prefix": "in/"}
    async with listen(client, key, **wanted) as ear:
        for bucket, name in (("b2", "in/1.jpg"), ("b1", "out/2.jpg"), ("b1", "in/3.jpg")):
            await store(database, bucket, name)
        await in_transaction(database, partial(objects.mark_deleted, bucket="b1", key="in/3.jpg"))
        found = await ear.hear(2)
    assert [(event.type, event.body["data"]["key"]) for event in found] == [
        ("photo.stored", "in/3.jpg"),
        ("photo.deleted", "in/3.jpg"),
    ]
    async with client.get("/v1/events", headers=bearer(key), params={"types": "photo.lost"}) as answer:
        assert answer.status == 422
        assert "photo.ready" in await answer.text()


async def test_a_limited_key_hears_of_its_places_only(open_gateway: Open, database: Database) -> None:
    """Events of other buckets and prefixes do not exist for it, whatever it asks for."""
    client, key = await open_gateway(), await make_key(database, places=("b1", "b2/in/"))
    async with listen(client, key, after=events.write_id(0)) as ear:
        for bucket, name in (("b3", "in/1.jpg"), ("b2", "out/2.jpg"), ("b2", "in/3.jpg"), ("b1", "4.jpg")):
            await store(database, bucket, name)
        assert [event.body["data"]["key"] for event in await ear.hear(2)] == ["in/3.jpg", "4.jpg"]


async def test_nobody_listens_without_a_key(open_gateway: Open) -> None:
    """Closed to strangers."""
    client = await open_gateway()
    async with client.get("/v1/events") as answer:
        assert answer.status == 401


async def test_a_stream_goes_on_while_redis_is_away(open_gateway: Open, database: Database, valkey: Valkey) -> None:
    """Neither an open stream nor a new one needs Redis."""
    client, key = await open_gateway(), await make_key(database)
    async with listen(client, key) as ear:
        valkey.kill()
        await store(database, "photos", "a.jpg")
        assert len(await ear.hear(1)) == 1
        async with listen(client, key) as second:
            await store(database, "photos", "b.jpg")
            assert len(await second.hear(1)) == 1


async def test_a_lost_notification_costs_a_second(
    open_gateway: Open, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that hears no NOTIFY still tells of everything."""
    client, key = await open_gateway(), await make_key(database)
    app = client.app
    assert app is not None
    async with listen(client, key) as ear:
        async with database.connection() as conn:
            await conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and query like 'LISTEN%'"
            )
        monkeypatch.setattr("storage.database.asyncpg.connect", None)  # the listener comes back to nothing
        monkeypatch.setattr(app[CONTEXT].follower, "wake", lambda: None)
        await store(database, "photos", "a.jpg")
        assert len(await ear.hear(1)) == 1


async def test_a_place_that_is_gone_is_said(open_gateway: Open, database: Database) -> None:
    """Asked for by a program: 410 with the oldest place. By a browser that comes back: stream.reset, then the rest."""
    client, key = await open_gateway(), await make_key(database)
    for number in range(3):
        await store(database, "photos", f"{number}.jpg")
    await until(lambda: value(database, "select last_seq = 3 from event_line"), seconds=5, what="places")
    async with database.connection() as conn:
        await conn.execute("update event set at = now() - interval '2 h' where seq <= 2")
    assert await in_transaction(database, partial(events.prune, older_than_hours=1)) == 2
    async with client.get("/v1/events", headers=bearer(key), params={"after": events.write_id(1)}) as answer:
        problem = await answer.json()
    assert (answer.status, problem["code"]) == (410, "events_gone")
    assert (problem["oldest"], problem["newest"]) == (events.write_id(2), events.write_id(3))
    async with listen(client, key, last_id=events.write_id(1)) as ear:
        reset, rest = await ear.hear(2)
        assert (reset.type, reset.id, ear.last_id) == ("stream.reset", events.write_id(2), events.write_id(3))
        assert rest.body["data"]["key"] == "2.jpg"
    for strange in (events.write_id(99), "nonsense"):
        async with listen(client, key, last_id=strange) as ear:
            (reset,) = await ear.hear(1)
            assert (reset.type, reset.id) == ("stream.reset", events.write_id(3))


async def test_streams_are_bounded_per_key_and_per_gateway(open_gateway: Open, database: Database) -> None:
    """One too many gets 429 and a time to come again; a stream whose client has gone is not counted any more."""
    client = await open_gateway(max_streams=3, max_streams_per_key=2)
    greedy, other = await make_key(database), await make_key(database)

    async def refused(key: Credential) -> bool:
        async with client.get("/v1/events", headers=bearer(key)) as answer:
            return answer.status == 429 and int(answer.headers["Retry-After"]) > 0

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(listen(client, greedy))
        await stack.enter_async_context(listen(client, greedy))
        assert await refused(greedy)
        await stack.enter_async_context(listen(client, other))
        assert await refused(await make_key(database))
    app = client.app
    assert app is not None

    async def none_open() -> bool:
        return app[CONTEXT].follower.streams == 0

    await until(none_open, seconds=5, what="the streams are seen to be gone")
    async with listen(client, greedy):
        assert app[CONTEXT].follower.streams == 1


async def test_a_silent_stream_is_kept_open_and_its_place_moves_on(
    open_gateway: Open, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment comes when nothing else does, with the place of what was passed over."""
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.2)
    client, key = await open_gateway(), await make_key(database)
    async with listen(client, key, bucket="elsewhere") as ear:
        await store(database, "photos", "a.jpg")
        reading = asyncio.create_task(ear.hear(1))

        async def passed_over() -> bool:
            return ear.last_id == events.write_id(1) and "still here" in ear.comments

        await until(passed_over, seconds=5, what="a comment with the place")
        reading.cancel()


async def test_a_stream_ends_with_its_key(
    open_gateway: Open, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is revoked closes its open streams at the next heartbeat."""
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.2)
    client, key = await open_gateway(), await make_key(database)
    async with listen(client, key) as ear:
        async with database.connection() as conn:
            await credentials.revoke(conn, key.access_key)
        async with asyncio.timeout(5):
            assert [event async for event in ear.events()] == []


async def test_a_reader_that_takes_nothing_is_cut_off(
    open_gateway: Open, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs no memory but the socket's, and no other stream anything; it is gone once it took nothing for long."""
    monkeypatch.setattr(streams, "_STALLED_SECONDS", 0.5)
    client, key = await open_gateway(), await make_key(database)
    app = client.app
    assert app is not None
    long = "k" * 1000
    reader, writer = await asyncio.open_connection(client.host, client.port, limit=1024)
    writer.write(
        f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.token}\r\n\r\n".encode()
    )  # and never reads
    async with listen(client, key) as ear:
        await until_streams(app, 2)
        async with database.connection() as conn:
            await conn.execute(
                "insert into event (type, object_id, bucket, key, data)"
                " select 'photo.stored', gen_random_uuid(), 'photos', $1, jsonb_build_object('key', repeat($1, 9))"
                " from generate_series(1, 3000)",
                long,
            )
            await conn.execute("select pg_notify('safelight_photo', '')")
        assert len(await ear.hear(3000, seconds=30)) == 3000
        await until_streams(app, 1)
    writer.close()
    assert reader is not None


async def until_streams(app: Any, number: int) -> None:
    async def counted() -> bool:
        return bool(app[CONTEXT].follower.streams == number)

    await until(counted, seconds=10, what=f"{number} streams")


async def test_waiting_for_a_photo_answers_when_it_has_settled(open_gateway: Open, database: Database) -> None:
    """?wait= answers as soon as the photo is ready, when the time is over, and at once where it is out of reach."""
    client, key, stranger = (
        await open_gateway(),
        await make_key(database),
        await make_key(database, places=("elsewhere",)),
    )
    photo_id, ids = await add_photo(database)

    async def look(who: Credential, seconds: float) -> tuple[int, str, float]:
        began_at = time.monotonic()
        path = f"/v1/photos/{photo_id}"
        async with client.get(path, params={"wait": seconds}, headers=bearer(who)) as answer:
            content = await answer.json()
            return answer.status, content.get("status", ""), time.monotonic() - began_at

    status, verdict, took = await look(key, 0.3)
    assert (status, verdict) == (200, "processing")
    assert 0.3 <= took < 5
    status, _, took = await look(stranger, 30)
    assert status == 404
    assert took < 5
    waiting = asyncio.create_task(look(key, 30))
    claim = await take(database, ids["preview"])
    await in_transaction(database, partial(jobs.finish, claim=claim, version=1))
    status, verdict, took = await waiting
    assert (status, verdict) == (200, "ready")
    assert took < 10


async def address(ports: Path) -> str:
    async def written() -> str:
        return read_address(ports)

    return str(await until(written, seconds=20, what="the gateway listens"))


async def test_a_gateway_that_restarts_costs_a_stream_nothing(stage: Stage, database: Database) -> None:
    """Killed once and stopped once while photos come: a client that comes back with its last id has heard of each
    photo once, in order."""
    key = await make_key(database)
    heard: list[str] = []
    stored: list[str] = []
    last_id: str | None = None

    async def put(number: int) -> None:
        for _ in range(number):
            stored.append(f"{len(stored)}.jpg")
            await store(database, "photos", stored[-1])

    async def one_life(end: Callable[[Program], object]) -> None:
        nonlocal last_id
        program, ports = stage.start_gateway()
        url = await address(ports)
        headers = bearer(key) | ({"Last-Event-ID": last_id} if last_id else {})
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/events", headers=headers) as answer:
            assert answer.status == 200
            ear = Ear(answer=answer, last_id=last_id or "")
            await put(5)
            missing = len(stored) - len(heard)
            heard.extend(event.body["data"]["key"] for event in await ear.hear(missing, seconds=20))
            last_id = ear.last_id
            await put(3)  # some of these are heard by nobody before the end
            end(program)
            with contextlib.suppress(aiohttp.ClientError):
                async with asyncio.timeout(10):
                    async for event in ear.events():
                        heard.append(event.body["data"]["key"])
                        last_id = event.id
        await until(partial(ended, program), seconds=10, what="the gateway has ended")
        ports.unlink()
        await put(2)

    await one_life(Program.kill)
    await one_life(Program.terminate)
    program, ports = stage.start_gateway()
    url = await address(ports)
    headers = bearer(key) | {"Last-Event-ID": last_id or ""}
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/events", headers=headers) as answer:
        rest = await Ear(answer=answer).hear(len(stored) - len(heard), seconds=20)
        heard.extend(event.body["data"]["key"] for event in rest)
        began_at = time.monotonic()
        program.terminate()
        async with asyncio.timeout(10):
            await answer.content.read()
    await until(partial(ended, program), seconds=10, what="the gateway has ended")
    assert time.monotonic() - began_at < 8, "an open stream kept the gateway from stopping"
    assert heard == stored


async def ended(program: Program) -> bool:
    return program.exit_code is not None
