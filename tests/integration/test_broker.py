"""The road to Redis on a real Valkey that is flushed, killed, frozen and lied to. Losing it costs time, never a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
import redis.asyncio as redis
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver

from processors.broker import RUN_JOB, Broker, FindDue, create_broker
from processors.dispatch import Dispatcher
from safelight.embedded import Valkey
from storage import jobs
from storage.database import Database
from tests.integration.stage import KNOWN, add_photo, in_transaction, job_settings, until

Open = Callable[..., Broker]


class Heard:
    """What a listening broker has delivered, acknowledged like a worker does."""

    def __init__(self, broker: Broker) -> None:
        self.job_ids: list[int] = []
        self._broker = broker
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._broker.listen():
            await message.ack()  # type: ignore[misc]
            self.job_ids.append(self._broker.formatter.loads(message.data).args[0])

    async def hears(self, *job_ids: int, seconds: float = 10) -> None:
        """Wait until these were all delivered."""

        async def all_there() -> bool:
            assert not self._task.done(), self._task
            return set(job_ids) <= set(self.job_ids)

        await until(all_there, seconds=seconds, what=f"delivery of {sorted(set(job_ids) - set(self.job_ids))}")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Brokers:
    """Opens brokers on one Valkey, and closes them."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey
        self._heard: list[Heard] = []
        self._brokers: list[Broker] = []

    def create(self, *, find_due: FindDue | None = None, **settings: float) -> Broker:
        broker = create_broker(job_settings(self._valkey.url, **settings), find_due=find_due)
        self._brokers.append(broker)
        return broker

    async def listen(self, *, find_due: FindDue | None = None, **settings: float) -> Heard:
        broker = self.create(find_due=find_due, **settings)
        await broker.startup()
        self._heard.append(Heard(broker))
        return self._heard[-1]

    async def close(self) -> None:
        for heard in self._heard:
            await heard.stop()
        for broker in self._brokers:
            await broker.shutdown()


@pytest.fixture
async def brokers(valkey: Valkey) -> AsyncIterator[Brokers]:
    opened = Brokers(valkey)
    yield opened
    if not valkey.running:
        valkey.start()
    if valkey.suspended:
        valkey.resume()
    await opened.close()


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(valkey.url) as opened:
        yield opened


async def test_what_was_sent_before_anybody_listened_is_delivered(brokers: Brokers) -> None:
    """Messages that are older than the consumer group are delivered too."""
    assert await brokers.create().send([1, 2, 3]) == [1, 2, 3]
    heard = await brokers.listen()
    await heard.hears(1, 2, 3)
    assert heard.job_ids == [1, 2, 3]


async def test_each_message_goes_to_one_of_many_listeners(brokers: Brokers) -> None:
    """Workers share the messages: none is delivered twice, none left."""
    heard = [await brokers.listen() for _ in range(3)]
    await brokers.create().send(list(range(60)))

    async def all_delivered() -> bool:
        return sum(len(item.job_ids) for item in heard) >= 60

    await until(all_delivered, seconds=10, what="60 deliveries")
    assert sorted(number for item in heard for number in item.job_ids) == list(range(60))


async def test_a_flush_ends_no_listener(brokers: Brokers, client: redis.Redis) -> None:
    """After FLUSHALL, which takes the group away as well, what is sent next is delivered."""
    heard = await brokers.listen()
    sender = brokers.create()
    await sender.send([1])
    await heard.hears(1)
    await client.flushall()
    assert await sender.send([2, 3]) == [2, 3]
    await heard.hears(2, 3, seconds=5)


async def test_what_a_flush_lost_is_dispatched_again(brokers: Brokers, client: redis.Redis, database: Database) -> None:
    """Twenty dispatched jobs whose messages are lost are sent again after redispatch_seconds, by any dispatcher."""
    job_ids = [(await add_photo(database, key=f"{n}.jpg"))[1]["preview"] for n in range(20)]
    broker = brokers.create()
    dispatcher = Dispatcher(job_settings("redis://unused", redispatch_seconds=0.5), database, broker)
    await dispatcher.dispatch()
    assert await broker.depth() == 20
    await client.flushall()
    heard = await brokers.listen()
    await dispatcher.dispatch()
    assert await broker.depth() == 0  # too early: they may be on their way
    running = asyncio.create_task(dispatcher.run())
    await heard.hears(*job_ids, seconds=5)
    running.cancel()


async def test_what_a_flush_lost_is_found_by_a_silent_worker(brokers: Brokers, database: Database) -> None:
    """A worker that hears nothing for poll_seconds takes due jobs from Postgres, even with nobody dispatching."""
    _, ids = await add_photo(database)

    async def find_due() -> list[int]:
        return await in_transaction(database, lambda conn: jobs.list_due(conn, known=KNOWN, limit=2))

    heard = await brokers.listen(find_due=find_due, poll_seconds=0.3)
    await heard.hears(ids["preview"], seconds=3)


async def test_a_listener_survives_a_killed_valkey(brokers: Brokers, valkey: Valkey) -> None:
    """Valkey is killed and comes back empty on the same port, twice: the same listener hears what is sent then."""
    heard = await brokers.listen()
    sender = brokers.create()
    for number in (1, 2):
        valkey.kill()
        assert await sender.send([number]) == []
        assert sender.down_since is not None
        valkey.start()

        async def sent(number: int = number) -> bool:
            return await sender.send([number]) == [number]

        await until(sent, seconds=5, what="sending works again")
        assert sender.down_since is None
        await heard.hears(number, seconds=10)


async def test_work_goes_on_while_valkey_is_away(brokers: Brokers, valkey: Valkey) -> None:
    """With Valkey dead a listener hands out due jobs from Postgres several times a second."""
    asked: list[float] = []

    async def find_due() -> list[int]:
        asked.append(time.monotonic())
        return [len(asked)]

    valkey.kill()
    heard = await brokers.listen(find_due=find_due, poll_seconds=60)
    await heard.hears(1, 2, 3, seconds=6)


async def test_a_frozen_valkey_delays_nobody(brokers: Brokers, valkey: Valkey) -> None:
    """Valkey takes connections and never answers: sending and asking give up within a second, and work again after."""
    broker = brokers.create()
    await broker.startup()
    valkey.suspend()
    for ask, nothing in ((lambda: broker.send([1, 2, 3]), []), (broker.depth, None), (broker.describe, None)):
        began = time.monotonic()
        assert await ask() == nothing
        assert time.monotonic() - began < 1
    valkey.resume()

    async def sent() -> bool:
        return await broker.send([4]) == [4]

    await until(sent, seconds=5, what="sending works again")


async def test_the_stream_does_not_grow(brokers: Brokers, client: redis.Redis) -> None:
    """What was received is deleted, not only acknowledged: the stream ends empty, with nothing pending."""
    heard = await brokers.listen()
    sender = brokers.create()
    assert len(await sender.send(list(range(200)))) == 200
    await heard.hears(*range(200))

    async def empty() -> bool:
        return await sender.depth() == 0

    await until(empty, seconds=2, what="an empty stream")
    (group,) = await client.xinfo_groups("safelight")
    assert group["pending"] == 0


async def test_what_valkey_says_of_itself_is_asked_seldom(brokers: Brokers, client: redis.Redis) -> None:
    """Its version, memory and stream are told, also before there is a stream; and told again for some seconds, however
    many ask at once."""
    early, broker = brokers.create(), brokers.create()
    found = await early.describe()
    assert found is not None
    assert (found["server"], found["stream_messages"], found["stream_pending"]) == ("valkey", 0, 0)
    assert 0 < found["used_memory_bytes"] <= found["peak_memory_bytes"]
    await broker.startup()
    await broker.send([1, 2])
    await client.xreadgroup("workers", "slow", {"safelight": ">"}, count=1)
    asked = int((await client.info("commandstats"))["cmdstat_info"]["calls"])
    told = await asyncio.gather(*(broker.describe() for _ in range(20)))
    assert told == [told[0]] * 20
    assert told[0] is not None
    assert (told[0]["stream_messages"], told[0]["stream_pending"], told[0]["stream_consumers"]) == (2, 1, 1)
    assert int((await client.info("commandstats"))["cmdstat_info"]["calls"]) == asked + 2  # theirs, and this one


async def test_tidying_drops_what_a_dead_consumer_held(brokers: Brokers, client: redis.Redis) -> None:
    """A message that a killed worker had read and not acknowledged does not stay in the stream."""
    broker = brokers.create(redispatch_seconds=0.5)
    await broker.startup()
    await broker.send([1])
    await client.xreadgroup("workers", "the dead", {"safelight": ">"}, count=1)

    async def tidied() -> bool:
        await broker.tidy()
        return await broker.depth() == 0

    await until(tidied, seconds=5, what="the message is gone")


def receive(broker: Broker) -> Receiver:
    return Receiver(
        broker,
        max_async_tasks=2,
        max_prefetch=0,
        ack_type=AcknowledgeType.WHEN_RECEIVED,
        validate_params=False,
        wait_tasks_timeout=5,
    )


@pytest.mark.parametrize("state", ["idle", "valkey dead", "valkey frozen"])
async def test_a_receiver_stops_at_once(brokers: Brokers, valkey: Valkey, state: str) -> None:
    """Told to stop, a receiver that waits ends within 2 s, whatever Valkey does."""
    broker = brokers.create()
    await broker.startup()
    stop = asyncio.Event()
    receiving = asyncio.create_task(receive(broker).listen(stop))
    await asyncio.wait({receiving}, timeout=0.3)  # it blocks in its first read by now
    if state == "valkey dead":
        valkey.kill()
    if state == "valkey frozen":
        valkey.suspend()
    await asyncio.wait({receiving}, timeout=0.3)
    assert not receiving.done()
    began = time.monotonic()
    stop.set()
    await asyncio.wait_for(receiving, 5)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "entry",
    [{"data": b"\xff not json"}, {"data": b'{"task_name": "unknown"}'}, {"data": b""}, {"other": b"field"}],
    ids=["no JSON", "no message of ours", "empty", "without data"],
)
async def test_a_malformed_message_is_passed_over(
    brokers: Brokers, client: redis.Redis, entry: dict[str, bytes]
) -> None:
    """Rubbish in the stream ends neither the receiver nor the delivery of what follows, and does not stay there."""
    broker = brokers.create()
    ran: list[int] = []

    @broker.task(task_name=RUN_JOB)
    async def run_job(job_id: int) -> None:
        ran.append(job_id)

    await broker.startup()
    stop = asyncio.Event()
    receiving = asyncio.create_task(receive(broker).listen(stop))
    await client.xadd("safelight", entry)
    await broker.send([7])

    async def ran_it() -> bool:
        assert not receiving.done(), receiving
        return ran == [7]

    await until(ran_it, seconds=5, what="the message behind it is run")

    async def empty() -> bool:
        return await broker.depth() == 0

    await until(empty, seconds=2, what="an empty stream")
    stop.set()
    await asyncio.wait_for(receiving, 5)
