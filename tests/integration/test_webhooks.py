"""Webhooks on a real Postgres and a real receiver: each event once at least, signed, in time, and to nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import ssl
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from prometheus_client import CollectorRegistry
from standardwebhooks.webhooks import Webhook

from processors.sequencer import Sequencer
from processors.webhooks import removal, signing
from processors.webhooks.deliverer import Deliverer
from processors.webhooks.metrics import WebhookMetrics
from processors.webhooks.sending import Sender
from processors.webhooks.settings import WebhookSettings
from storage import deliveries, events, objects, sealing, webhooks
from storage.database import Database
from storage.deliveries import Claim, Fenced, Result
from storage.sealing import MasterKeys
from storage.webhooks import NewWebhook
from tests.integration.receiving import Received, Receiver
from tests.integration.stage import add_photo, fetch, in_transaction, storage_settings, until, value
from tests.servers import fetch_value

MASTERS = MasterKeys.parse(sealing.generate())
LOCAL = "127.0.0.0/8"
QUICK = {"webhook_allow": LOCAL, "webhook_backoff_base_seconds": 0.05, "webhook_backoff_cap_seconds": 0.4}


async def make_webhook(database: Database, url: str, secret: str, **wanted: Any) -> uuid.UUID:
    webhook_id = uuid.uuid4()
    new = NewWebhook(
        id=webhook_id,
        url=url,
        created_by="test",
        sealed_secret=MASTERS.seal(secret, access_key=str(webhook_id)),
        **wanted,
    )
    await in_transaction(database, partial(webhooks.create, new=new, most=100))
    return webhook_id


async def happen(database: Database, number: int, *, prefix: str = "") -> None:
    """So many photos are stored, and the events have their places."""
    for _ in range(number):
        await add_photo(database, key=f"{prefix}{uuid.uuid4().hex}.jpg")
    await in_transaction(database, events.sequence)


@contextlib.asynccontextmanager
async def worker(
    database: Database,
    *,
    name: str = "w1",
    resolver: AbstractResolver | None = None,
    registry: CollectorRegistry | None = None,
    lease_margin_seconds: float = 15,
    masters: MasterKeys = MASTERS,
    tls: Any = None,
    **settings: Any,
) -> AsyncIterator[Deliverer]:
    """What a worker does about webhooks, quickly."""
    chosen = WebhookSettings(**{**QUICK, **settings})
    async with Sender(
        chosen.allowed_networks, timeout_seconds=chosen.webhook_timeout_seconds, resolver=resolver, tls=tls
    ) as sender:
        deliverer = Deliverer(
            chosen,
            database=database,
            sender=sender,
            masters=masters,
            worker_id=name,
            metrics=WebhookMetrics(registry or CollectorRegistry()),
            lease_margin_seconds=lease_margin_seconds,
        )
        running = asyncio.create_task(deliverer.run())
        try:
            yield deliverer
        finally:
            running.cancel()
            await asyncio.wait([running])
            await deliverer.drain()


async def settled(database: Database, *, seconds: float = 30) -> dict[str, int]:
    """How many deliveries ended how, once all have."""

    async def none_left() -> bool:
        return bool(await value(database, "select not exists (select from delivery where finished_at is null)"))

    await until(none_left, seconds=seconds, what="every delivery has ended")
    rows = await fetch(database, "select state, count(*) as n from delivery group by 1")
    return {row["state"]: row["n"] for row in rows}


async def log_of(database: Database, **which: Any) -> list[dict[str, Any]]:
    """The attempts at every delivery, in order."""
    return await fetch(
        database,
        "select delivery_attempt.*, webhook_id, event_id from delivery_attempt join delivery on id = delivery_id"
        " order by delivery_id, token",
    )


async def test_two_hundred_events_reach_a_receiver_that_fails_half_of_the_time(database: Database) -> None:
    """Each is delivered at least once with a signature that the reference library accepts; the log shows attempts in
    order, each after the time that the one before had planned, within the backoff's bounds."""
    chance = random.Random(5)
    secret = signing.make_secret()
    registry = CollectorRegistry()

    def fail_half(_: Received) -> web.Response:
        return web.Response(status=chance.choice((200, 204, 500, 503)))

    async with Receiver(secret=secret, reply=fail_half) as receiver:
        await make_webhook(database, receiver.url, secret)
        await happen(database, 200)
        async with (
            worker(database, registry=registry, webhook_concurrency=16),
            worker(database, name="w2", webhook_concurrency=16),
        ):
            assert await settled(database, seconds=100) == {"delivered": 200}
    assert receiver.forged == []
    ids = {events.write_id(seq) for seq in range(1, 201)}
    assert set(receiver.ids) == ids
    assert all(item.body["id"] == item.id for item in receiver.received)
    log = await log_of(database)
    assert len(log) == len(receiver.received) > 250
    by_delivery: dict[int, list[dict[str, Any]]] = {}
    for attempt in log:
        by_delivery.setdefault(attempt["delivery_id"], []).append(attempt)
    waited = 0
    for attempts in by_delivery.values():
        assert [attempt["token"] for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert [attempt["outcome"] for attempt in attempts] == ["failed"] * (len(attempts) - 1) + ["delivered"]
        for number, (failed, following) in enumerate(itertools.pairwise(attempts), 1):
            planned_seconds = (failed["retry_at"] - failed["ended_at"]).total_seconds()
            assert 0 <= planned_seconds <= min(0.4, 0.05 * 2**number)
            assert following["started_at"] >= failed["retry_at"]
            assert (failed["status_code"], failed["error_code"]) in ((500, "bad_status"), (503, "bad_status"))
            waited += 1
    assert waited > 50
    assert {attempt["worker"] for attempt in log} == {"w1", "w2"}
    counted = registry.get_sample_value("safelight_webhook_attempts_total", {"outcome": "delivered"})
    assert counted == sum(attempt["worker"] == "w1" and attempt["outcome"] == "delivered" for attempt in log)


async def test_a_webhook_is_sent_what_the_stream_shows(database: Database) -> None:
    """The body is the event's, to the letter; the same bytes are sent at each attempt."""
    secret, texts = signing.make_secret(), []

    def refuse_once(item: Received) -> web.Response:
        texts.append(item.text)
        return web.Response(status=200 if len(texts) > 1 else 500)

    async with Receiver(secret=secret, reply=refuse_once) as receiver:
        await make_webhook(database, receiver.url, secret)
        await happen(database, 1, prefix="ü ☃ ")
        async with worker(database):
            await settled(database)
    async with database.connection() as conn:
        (event,) = await events.read(conn, after_seq=0, limit=9)
    assert receiver.received[0].body == event.body
    assert texts[0] == texts[1]
    assert receiver.received[0].headers["content-type"] == "application/json"


async def test_a_webhook_hears_of_what_it_wants_alone(database: Database) -> None:
    """By type, bucket and prefix, alone and together; a disabled one of nothing."""
    secret = signing.make_secret()
    async with Receiver(secret=secret) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        await make_webhook(database, f"{url}/all", secret)
        await make_webhook(database, f"{url}/deleted", secret, types=["photo.deleted"])
        await make_webhook(database, f"{url}/in", secret, bucket="photos", prefix="in/")
        await make_webhook(database, f"{url}/elsewhere", secret, bucket="elsewhere")
        asleep = await make_webhook(database, f"{url}/asleep", secret)
        await in_transaction(database, partial(webhooks.change, webhook_id=asleep, changes={"enabled": False}))
        await add_photo(database, key="in/a.jpg")
        await add_photo(database, key="out/b.jpg")
        await in_transaction(database, partial(objects.mark_deleted, bucket="photos", key="in/a.jpg"))
        await in_transaction(database, events.sequence)
        async with worker(database):
            assert await settled(database) == {"delivered": 6}
    told = sorted((item.path, item.body["type"], item.body["data"]["key"]) for item in receiver.received)
    assert told == [
        ("/all", "photo.deleted", "in/a.jpg"),
        ("/all", "photo.stored", "in/a.jpg"),
        ("/all", "photo.stored", "out/b.jpg"),
        ("/deleted", "photo.deleted", "in/a.jpg"),
        ("/in", "photo.deleted", "in/a.jpg"),
        ("/in", "photo.stored", "in/a.jpg"),
    ]


async def test_a_delivery_that_never_succeeds_is_dead_and_can_be_sent_again(database: Database) -> None:
    """After its attempts it is dead with the last answer; redelivered it gets as many again; discarded it stays so."""
    secret = signing.make_secret()
    async with Receiver(secret=secret, reply=lambda _: web.Response(status=500, text="no\0 room")) as receiver:
        webhook_id = await make_webhook(database, receiver.url, secret)
        await happen(database, 3)
        async with worker(database, webhook_attempts=3):
            assert await settled(database) == {"dead": 3}
            dead = await in_transaction(
                database,
                partial(deliveries.find_page, webhook_id=webhook_id, state="dead", before_id=None, limit=9),
            )
            assert [(row["attempt"], row["status_code"], row["error_code"]) for row in dead] == [
                (3, 500, "bad_status")
            ] * 3
            found = await in_transaction(
                database, partial(deliveries.find, webhook_id=webhook_id, delivery_id=dead[0]["id"])
            )
            assert found is not None
            assert [attempt["response"] for attempt in found["attempts"]] == ["no\ufffd room"] * 3
            assert found["attempts"][-1]["retry_at"] is None
            receiver.reply = lambda _: web.Response(status=200)
            first, second = dead[0]["id"], dead[1]["id"]
            again = partial(deliveries.redeliver, webhook_id=webhook_id, limit=9)
            assert await in_transaction(database, partial(again, ids=[first])) == [first]
            assert await in_transaction(
                database, partial(deliveries.discard, webhook_id=webhook_id, delivery_id=second)
            )
            assert await settled(database) == {"dead": 1, "delivered": 1, "discarded": 1}
            rest = await in_transaction(database, partial(again, ids=None, states=("dead",)))
            assert len(rest) == 1
            assert await settled(database) == {"delivered": 2, "discarded": 1}
    assert sorted(len(set(ids)) for ids in (receiver.ids[:9], receiver.ids[9:])) == [2, 3]


async def test_a_receiver_that_hangs_costs_its_own_events_alone(database: Database) -> None:
    """While one never answers, another gets all of its events at once; the hanging one has a bounded number under way,
    and each attempt ends at the time limit."""
    good_secret, bad_secret = signing.make_secret(), signing.make_secret()
    release = asyncio.Event()

    async def hang(_: Received) -> web.Response:
        await release.wait()
        return web.Response()

    async with Receiver(secret=bad_secret, reply=hang) as bad, Receiver(secret=good_secret) as good:
        bad_id = await make_webhook(database, bad.url, bad_secret)
        await make_webhook(database, good.url, good_secret)
        await happen(database, 30)
        limits = {"webhook_slots": 6, "webhook_concurrency": 3, "webhook_timeout_seconds": 1, "webhook_attempts": 2}
        async with worker(database, **limits):

            async def good_has_all() -> bool:
                return len(set(good.ids)) == 30

            await until(good_has_all, seconds=10, what="the good receiver has everything")
            assert len(bad.received) < 30
            attempts = await until(
                lambda: fetch(database, "select * from delivery_attempt where error_code = 'timeout'"),
                seconds=10,
                what="an attempt that ran out of time",
            )
            release.set()
    marks = sorted(
        mark
        for row in await fetch(database, "select * from delivery_attempt join delivery on id = delivery_id")
        if row["webhook_id"] == bad_id
        for mark in ((row["started_at"], 1), (row["ended_at"] or row["started_at"], -1))
    )
    assert max(itertools.accumulate(change for _, change in marks)) <= 3
    took = (attempts[0]["ended_at"] - attempts[0]["started_at"]).total_seconds()
    assert 0.9 <= took < 8


async def test_redirects_are_not_followed(database: Database) -> None:
    """A redirect is a failure that says where it pointed is not gone to."""
    secret = signing.make_secret()
    async with Receiver(secret=secret) as other:
        moved = web.Response(status=302, headers={"Location": other.url})
        async with Receiver(secret=secret, reply=lambda _: moved) as receiver:
            await make_webhook(database, receiver.url, secret)
            await happen(database, 1)
            async with worker(database, webhook_attempts=1):
                assert await settled(database) == {"dead": 1}
    (attempt,) = await log_of(database)
    assert (attempt["status_code"], attempt["error_code"]) == (302, "redirected")
    assert len(receiver.received) == 1
    assert other.received == other.forged == []


async def test_an_endless_answer_is_read_to_its_beginning_alone(database: Database) -> None:
    """The status decides; of a body without end a thousand bytes are kept and the connection is closed."""
    secret = signing.make_secret()
    sent = 0

    async def serve(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        Webhook(secret).verify(await request.text(), dict(request.headers))
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b"x" * 65536)
                sent += 65536
        return answer

    app = web.Application()
    app.router.add_post("/hook", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await make_webhook(database, f"http://127.0.0.1:{runner.addresses[0][1]}/hook", secret)
        await happen(database, 1)
        async with worker(database):
            assert await settled(database) == {"delivered": 1}
    finally:
        await runner.cleanup()
    (attempt,) = await log_of(database)
    assert attempt["response"] == "x" * 1024
    assert sent < 32 << 20


async def test_a_receiver_that_is_gone_is_told_nothing_more(database: Database) -> None:
    """410 disables the webhook: what was left waits, what comes is not for it; enabled again it goes on."""
    secret = signing.make_secret()
    async with Receiver(secret=secret, reply=lambda _: web.Response(status=410)) as receiver:
        webhook_id = await make_webhook(database, receiver.url, secret)
        await happen(database, 1)
        async with worker(database, webhook_concurrency=1):
            assert await settled(database) == {"dead": 1}
            found = await in_transaction(database, partial(webhooks.find, webhook_id=webhook_id))
            assert found is not None
            assert (found["enabled"], found["disabled_reason"]) == (False, "gone")
            await happen(database, 2)
            assert await value(database, "select count(*) from delivery") == 1
            receiver.reply = lambda _: web.Response()
            await in_transaction(database, partial(webhooks.change, webhook_id=webhook_id, changes={"enabled": True}))
            await happen(database, 1)
            assert await settled(database) == {"dead": 1, "delivered": 1}


async def test_a_receiver_says_when_to_come_again(database: Database) -> None:
    """Retry-After is waited for, where the backoff is shorter."""
    secret = signing.make_secret()
    answers = [web.Response(status=503, headers={"Retry-After": "1"}), web.Response()]
    async with Receiver(secret=secret, reply=lambda _: answers.pop(0)) as receiver:
        await make_webhook(database, receiver.url, secret)
        await happen(database, 1)
        async with worker(database, webhook_backoff_cap_seconds=5):
            assert await settled(database) == {"delivered": 1}
    first, second = await log_of(database)
    assert (first["retry_at"] - first["ended_at"]).total_seconds() == pytest.approx(1, abs=0.01)
    assert second["started_at"] >= first["retry_at"]


async def test_a_rotated_secret_signs_beside_the_old_one_for_a_while(database: Database) -> None:
    """In the overlap a receiver with either secret accepts the same request; after it the old one is refused."""
    old, new = signing.make_secret(), signing.make_secret()
    async with Receiver(secret=old) as receiver:
        webhook_id = await make_webhook(database, receiver.url, old)
        sealed = MASTERS.seal(new, access_key=str(webhook_id))
        rotate = partial(webhooks.rotate, webhook_id=webhook_id, sealed_secret=sealed)
        await in_transaction(database, partial(rotate, overlap_hours=1))
        await happen(database, 1)
        async with worker(database, webhook_attempts=1):
            assert await settled(database) == {"delivered": 1}
            (both,) = receiver.received
            for secret in (old, new):
                assert Webhook(secret).verify(both.text, both.headers)["id"] == both.id
            async with database.connection() as conn:
                await conn.execute("update webhook set old_secret_until = now()")
            await happen(database, 1)
            assert await settled(database) == {"delivered": 1, "dead": 1}
            assert len(receiver.forged) == 1
            receiver.secret = new
            await happen(database, 1)
            assert await settled(database) == {"delivered": 2, "dead": 1}


class Names(AbstractResolver):
    """A resolver that a test owns: each name's answers, one after the other, the last for ever."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such name")
        left = self.answers[host]
        found = left.pop(0) if len(left) > 1 else left[0]
        return [
            ResolveResult(hostname=host, host=text, port=port, family=10 if ":" in text else 2, proto=6, flags=4)
            for text in found
        ]

    async def close(self) -> None:
        pass


async def test_a_name_that_changes_its_address_is_judged_each_time(database: Database) -> None:
    """DNS rebinding: a name that led to an open address and then leads to a closed one is refused, and connected to at
    the address that was judged, without being asked again."""
    secret = signing.make_secret()
    names = Names({"rebind.test": [["127.0.0.1"], ["169.254.169.254"], ["::ffff:10.0.0.1"], ["127.0.0.1"]]})
    async with Receiver(secret=secret) as receiver:
        await make_webhook(database, f"http://rebind.test:{receiver.port}/hook", secret)
        async with worker(database, resolver=names, webhook_attempts=1):
            for number in range(1, 5):
                await happen(database, 1)
                await settled(database)
                assert len(names.asked) == number
    assert [(row["outcome"], row["error_code"]) for row in await log_of(database)] == [
        ("delivered", None),
        ("dead", "address_refused"),
        ("dead", "address_refused"),
        ("delivered", None),
    ]
    assert len(receiver.received) == 2


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "::1", "fe80::1", "224.0.0.1", "0.0.0.0", "64:ff9b::a00:1"]
)
async def test_addresses_of_ones_own_are_closed_by_default(database: Database, address: str) -> None:
    """Without a list of networks no name and no literal leads to them, by http or https: nothing is connected to."""
    secret = signing.make_secret()
    names = Names({"inside.test": [[address]]})
    literal = f"[{address}]" if ":" in address else address
    async with Receiver(secret=secret) as receiver:
        for url in (f"https://inside.test:{receiver.port}", f"https://{literal}:{receiver.port}/", receiver.url):
            await make_webhook(database, url, secret)
        await happen(database, 1)
        async with worker(database, resolver=names, webhook_attempts=1, webhook_allow=""):
            assert await settled(database) == {"dead": 3}
        assert receiver.received == receiver.forged == []
    assert {row["error_code"] for row in await log_of(database)} == {"address_refused"}


async def test_https_is_verified_against_the_name(database: Database) -> None:
    """A certificate of a trusted authority for that name is taken; one for another name, or of a stranger, is not."""
    secret, authority = signing.make_secret(), trustme.CA()
    trusting, serving, strange = ssl.create_default_context(), *(server_context() for _ in range(2))
    authority.configure_trust(trusting)
    authority.issue_cert("hook.test").configure_cert(serving)
    trustme.CA().issue_cert("hook.test").configure_cert(strange)
    names = Names({"hook.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    async with (
        Receiver(secret=secret, tls=serving) as receiver,
        Receiver(secret=secret, tls=strange) as impostor,
    ):
        await make_webhook(database, f"https://hook.test:{receiver.port}/", secret)
        await make_webhook(database, f"https://other.test:{receiver.port}/", secret)
        await make_webhook(database, f"https://hook.test:{impostor.port}/", secret)
        await happen(database, 1)
        async with worker(database, resolver=names, tls=trusting, webhook_attempts=1):
            assert await settled(database) == {"delivered": 1, "dead": 2}
        assert len(receiver.received) == 1
        assert impostor.received == impostor.forged == receiver.forged == []
    errors = [row["error"] for row in await log_of(database) if row["outcome"] == "dead"]
    assert all("Certificate" in error or "certificate" in error for error in errors), errors


def server_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


async def test_an_outage_of_postgres_only_delays(postgres_dsn: str, database: Database) -> None:
    """Connections that are cut off while deliveries are under way, again and again: each event arrives, each delivery
    ends once."""
    secret = signing.make_secret()

    async def slowly(_: Received) -> web.Response:
        await asyncio.sleep(0.02)
        return web.Response()

    async with Receiver(secret=secret, reply=slowly) as receiver:
        await make_webhook(database, receiver.url, secret)
        await happen(database, 60)
        cut = (
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        async with worker(database, lease_margin_seconds=1, webhook_timeout_seconds=1):
            for number in range(1, 6):

                async def so_many(number: int = number) -> bool:
                    return len(set(receiver.ids)) >= number * 10

                await until(so_many, seconds=60, what=f"{number * 10} events have arrived")
                assert await fetch_value(postgres_dsn, cut) >= 1
            async with Database(storage_settings(postgres_dsn)) as fresh:  # whose connections were not cut
                assert await settled(fresh, seconds=100) == {"delivered": 60}
                rows = await fetch(fresh, "select outcome from delivery_attempt where outcome = 'delivered'")
    assert set(receiver.ids) == {events.write_id(seq) for seq in range(1, 61)}
    assert len(rows) == 60


@pytest.mark.parametrize(
    ("host", "code"), [("lost.test", "unreachable"), ("refusing.test", "unreachable"), ("mute.test", "no_answer")]
)
async def test_what_cannot_be_reached_is_tried_again(database: Database, host: str, code: str) -> None:
    """A name without an address, a port where nobody listens, a server that hangs up: each a failure that says so."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1] if host == "mute.test" else 9
    names = Names({"refusing.test": [["127.0.0.1"]], "mute.test": [["127.0.0.1"]]})
    async with server:
        await make_webhook(database, f"http://{host}:{port}/", signing.make_secret())
        await happen(database, 1)
        async with worker(database, resolver=names, webhook_attempts=2):
            assert await settled(database) == {"dead": 1}
    assert [row["error_code"] for row in await log_of(database)] == [code] * 2


async def test_a_proxy_of_the_environment_is_not_used(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliveries go straight to the address that was judged."""
    secret = signing.make_secret()
    async with Receiver(secret=secret) as receiver, Receiver(secret=secret) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        await make_webhook(database, receiver.url, secret)
        await happen(database, 1)
        async with worker(database):
            assert await settled(database) == {"delivered": 1}
    assert len(receiver.received) == 1
    assert proxy.received == proxy.forged == []


async def test_a_secret_that_cannot_be_opened_costs_no_attempt(database: Database) -> None:
    """With another master key nothing is sent and no attempt counts; the right one delivers."""
    secret = signing.make_secret()
    async with Receiver(secret=secret) as receiver:
        await make_webhook(database, receiver.url, secret)
        await happen(database, 1)
        async with worker(database, masters=MasterKeys.parse(sealing.generate())):
            await until(
                lambda: value(database, "select error_code = 'secret_sealed' from delivery"),
                seconds=10,
                what="it is put off",
            )
        assert await value(database, "select attempt from delivery") == 0
        assert receiver.received == receiver.forged == []
        async with database.connection() as conn:
            await conn.execute("update delivery set run_at = now()")
        async with worker(database):
            assert await settled(database) == {"delivered": 1}


async def test_a_rotated_secret_gets_over_a_lost_master_key(database: Database) -> None:
    """Where the master key is another one, rotating the secret is enough: deliveries are signed with the new one at
    once, although the former cannot be opened and its overlap has not ended."""
    old, new, masters = signing.make_secret(), signing.make_secret(), MasterKeys.parse(sealing.generate())
    async with Receiver(secret=new) as receiver:
        webhook_id = await make_webhook(database, receiver.url, old)
        sealed = masters.seal(new, access_key=str(webhook_id))
        rotate = partial(webhooks.rotate, webhook_id=webhook_id, sealed_secret=sealed, overlap_hours=24)
        await in_transaction(database, rotate)
        await happen(database, 1)
        async with worker(database, masters=masters):
            assert await settled(database) == {"delivered": 1}
        assert len(receiver.received) == 1


async def test_a_late_verdict_is_fenced(database: Database) -> None:
    """Who lost the lease writes nothing; the delivery is taken back and sent once more, and both attempts are kept."""
    secret = signing.make_secret()
    async with Receiver(secret=secret) as receiver:
        await make_webhook(database, receiver.url, secret)
        await happen(database, 1)

        async def take(name: str) -> Claim:
            claims = await in_transaction(
                database, partial(deliveries.claim, worker=name, lease_seconds=60, per_webhook=4, limit=4)
            )
            return claims[0]

        late = await take("w1")
        async with database.connection() as conn:
            await conn.execute("update delivery set lease_until = now() - interval '1 ms'")
        assert await in_transaction(database, partial(deliveries.reap, max_attempts=9)) == [
            {"id": late.delivery_id, "state": "ready"}
        ]
        second = await take("w2")
        for ending in (
            partial(deliveries.finish, claim=late, result=Result()),
            partial(deliveries.bury, claim=late, result=Result(error_code="x")),
            partial(deliveries.postpone, claim=late, result=Result(error_code="x"), after_seconds=1),
        ):
            with pytest.raises(Fenced):
                await in_transaction(database, ending)
        await in_transaction(database, partial(deliveries.finish, claim=second, result=Result(status_code=200)))
    assert [row["outcome"] for row in await log_of(database)] == ["expired", "delivered"]


async def test_a_stopping_worker_leaves_its_deliveries_to_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way when a worker stops is ready again at once, and costs no attempt."""
    monkeypatch.setattr("processors.webhooks.deliverer._END_SECONDS", 0.2)
    secret = signing.make_secret()
    release = asyncio.Event()

    async def hang(_: Received) -> web.Response:
        await release.wait()
        return web.Response()

    async with Receiver(secret=secret, reply=hang) as receiver:
        await make_webhook(database, receiver.url, secret)
        await happen(database, 1)

        async def arrived() -> bool:
            return len(receiver.received) == 1

        async with worker(database):
            await until(arrived, seconds=10, what="it is under way")
        assert await fetch(database, "select state, attempt from delivery") == [{"state": "ready", "attempt": 0}]
        release.set()
        async with worker(database, name="w2"):
            assert await settled(database) == {"delivered": 1}
    assert [row["outcome"] for row in await log_of(database)] == ["released", "delivered"]


async def test_old_deliveries_are_forgotten_and_unfinished_ones_are_not(database: Database) -> None:
    """By when they ended; forgetting the event takes nothing from a delivery that is still to be made."""
    secret = signing.make_secret()
    async with Receiver(secret=secret) as receiver:
        await make_webhook(database, receiver.url, secret)
        await happen(database, 2)
        assert await in_transaction(database, partial(events.prune, older_than_hours=0)) == 2
        async with worker(database):
            assert await settled(database) == {"delivered": 2}
    await happen(database, 1)
    assert await in_transaction(database, partial(deliveries.prune, older_than_hours=0)) == 2
    assert await fetch(database, "select state from delivery") == [{"state": "ready"}]


async def test_a_webhook_with_a_long_log_is_removed_in_steps(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its deliveries are doing; those of others stay, and what is not there is said."""
    monkeypatch.setattr(removal, "_STEP", 2)
    doomed = await make_webhook(database, "https://a.test/", signing.make_secret())
    other = await make_webhook(database, "https://b.test/", signing.make_secret())
    await happen(database, 5)
    await in_transaction(database, partial(deliveries.claim, worker="w1", lease_seconds=60, per_webhook=1, limit=2))
    assert await removal.remove(database, doomed)
    assert not await removal.remove(database, doomed)
    assert await fetch(database, "select distinct webhook_id from delivery") == [{"webhook_id": other}]
    assert await value(database, "select count(*) from delivery") == 5


async def test_the_sequencer_makes_deliveries_with_places(database: Database) -> None:
    """An event has its place and its deliveries in one transaction, each once, though several give places."""
    await make_webhook(database, "https://a.test/", signing.make_secret())
    await make_webhook(database, "https://b.test/", signing.make_secret())
    running = [asyncio.create_task(Sequencer(database).run()) for _ in range(3)]
    try:
        for _ in range(20):
            await add_photo(database, key=f"{uuid.uuid4().hex}.jpg")
        await until(lambda: value(database, "select last_seq = 20 from event_line"), seconds=10, what="all have places")
    finally:
        for task in running:
            task.cancel()
    rows = await fetch(database, "select event_id, count(*) as n from delivery group by 1 order by 1")
    assert rows == [{"event_id": events.write_id(seq), "n": 2} for seq in range(1, 21)]
    measured = await in_transaction(database, deliveries.measure)
    assert 0 <= measured.pop("oldest_due_seconds") < 60
    assert measured == {"ready": 40, "running": 0, "dead": 0, "enabled": 2, "failing": 0, "disabled": 0}
