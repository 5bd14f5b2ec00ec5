"""The road to Redis: taskiq with a Redis stream. The only importer of taskiq-redis.

A message carries a job id and nothing else. It is a nudge: it is acknowledged and deleted when received, may be lost or
doubled without harm, and a worker that hears nothing asks Postgres instead. So an outage of Redis costs latency only.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError, ResponseError
from taskiq import AckableMessage, TaskiqMessage
from taskiq_redis import RedisStreamBroker

from processors.redis_details import read_details
from processors.settings import JobSettings
from storage import failpoints

log = structlog.get_logger(__name__)

RUN_JOB = "safelight.run_job"
_LABELS = {"ack_type": "when_received"}
_COMMAND_SECONDS = 0.5  # no command on a request's way may take longer
_BLOCK_MS = 1000
_DOWN_POLL_SECONDS = 0.2
_DETAILS_SECONDS = 3.0  # for so long they are told again, however many ask
_FAILURES = (RedisError, OSError, TimeoutError)

FindDue = Callable[[], Awaitable[list[int]]]


def create_broker(settings: JobSettings, *, find_due: FindDue | None = None) -> Broker:
    """The broker of one process. `find_due` is asked for due job ids while Redis is silent; workers give it."""
    return Broker(settings, find_due=find_due)


class Broker(RedisStreamBroker):
    """A stream broker that outlives its Redis."""

    def __init__(self, settings: JobSettings, *, find_due: FindDue | None) -> None:
        super().__init__(
            settings.redis_url,
            queue_name=settings.redis_stream,
            consumer_group_name="workers",
            consumer_id="0",  # "$" would lose what was sent before the group was made
            maxlen=10_000,
            xread_block=_BLOCK_MS,
            xread_count=1,  # more would strand in a worker that is busy or stopping
            socket_timeout=None,  # with one, redis-py on Python 3.11 can swallow a cancellation
            socket_connect_timeout=2,
            socket_keepalive=True,
            health_check_interval=5,
        )
        self._find_due = find_due
        self._poll_seconds = settings.poll_seconds
        self._stale_ms = int(settings.redispatch_seconds * 3000)
        self.down_since: float | None = None
        self._down_kinds: set[str] = set()  # reasons already logged since then
        self._details: dict[str, Any] | None = None
        self._details_until = float("-inf")  # time.monotonic()
        self._asking = asyncio.Lock()

    async def startup(self) -> None:
        """Like taskiq's, but Redis may be away."""
        try:
            async with asyncio.timeout(2):
                await super().startup()
        except _FAILURES as error:
            self._note_down(error)

    async def send(self, job_ids: list[int]) -> list[int]:
        """Nudge somebody to run these jobs. Returns those that Redis took; stops at the first failure. However many
        they are and however slow Redis is, it takes a second at most: leases are looked at in between."""
        sent = job_ids[:0]
        # The first goes alone: where Redis falls silent over it, only that one may have been taken unnoticed.
        for batch in filter(None, (job_ids[:1], job_ids[1:])):
            await failpoints.reach("nudge.before")
            taken = await self._add(batch)
            sent = sent + batch[:taken]
            if taken < len(batch):
                return sent
        if job_ids:
            self._note_up()
        return sent

    async def _add(self, job_ids: list[int]) -> int:
        """Put messages into the stream, in one trip. Returns how many it took before the first failure."""
        try:
            async with (
                asyncio.timeout(_COMMAND_SECONDS),
                self._redis() as client,
                client.pipeline(transaction=False) as pipe,
            ):
                for job_id in job_ids:
                    data = {b"data": self._message(uuid.uuid4().hex, job_id)}
                    pipe.xadd(self.queue_name, data, maxlen=self.maxlen, approximate=self.approximate)
                answers = await pipe.execute(raise_on_error=False)
        except _FAILURES as error:
            self._note_down(error)
            return 0
        for number, answer in enumerate(answers):
            if isinstance(answer, BaseException):
                self._note_down(answer)
                return number
        return len(answers)

    async def depth(self) -> int | None:
        """Messages in the stream that nobody has taken yet; None while Redis is away."""
        try:
            async with asyncio.timeout(_COMMAND_SECONDS), self._redis() as client:
                depth = int(await client.xlen(self.queue_name))
        except _FAILURES as error:
            self._note_down(error)
            return None
        self._note_up()
        return depth

    async def describe(self) -> dict[str, Any] | None:
        """What Redis says of itself (processors.redis_details), a few seconds old at most; None where it does not."""
        async with self._asking:
            if time.monotonic() >= self._details_until:
                self._details = await self._ask_details()
                self._details_until = time.monotonic() + _DETAILS_SECONDS
            return self._details

    async def _ask_details(self) -> dict[str, Any] | None:
        groups: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(_COMMAND_SECONDS), self._redis() as client:
                info, depth = await client.info(), int(await client.xlen(self.queue_name))
                with contextlib.suppress(ResponseError):  # there is no stream before the first message
                    groups = await client.xinfo_groups(self.queue_name)
        except _FAILURES:  # not noted: a server may refuse INFO and work
            return None
        return read_details(info, depth=depth, groups=groups)

    async def tidy(self) -> None:
        """Drop what dead consumers hold, and their names. Their jobs are dispatched again from Postgres."""
        try:
            async with asyncio.timeout(5), self._redis() as client:
                _, ids, *_ = await client.xautoclaim(
                    self.queue_name,
                    self.consumer_group_name,
                    self.consumer_name,
                    self._stale_ms,
                    count=100,
                    justid=False,
                )
                for message_id, _fields in ids:
                    await self._drop(client, message_id)
                for consumer in await client.xinfo_consumers(self.queue_name, self.consumer_group_name):
                    if consumer["idle"] > 3_600_000 and not consumer["pending"]:
                        await client.xgroup_delconsumer(self.queue_name, self.consumer_group_name, consumer["name"])
        except (ValueError, *_FAILURES) as error:
            log.debug("redis.untidied", message="The stream could not be tidied.", error=repr(error))

    async def leave(self) -> None:
        """Take this consumer's name off the group."""
        with contextlib.suppress(*_FAILURES):
            async with asyncio.timeout(_COMMAND_SECONDS), self._redis() as client:
                await client.xgroup_delconsumer(self.queue_name, self.consumer_group_name, self.consumer_name)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Messages, one at a time and only when asked for one: from Redis, or where that is silent or away, made of
        what is due in Postgres."""
        heard_at = time.monotonic()
        reading: asyncio.Task[AckableMessage] | None = None
        try:
            while True:
                reading = reading or asyncio.create_task(self._read())
                patience = _DOWN_POLL_SECONDS if self.down_since else self._poll_seconds
                await asyncio.wait({reading}, timeout=max(0, heard_at + patience - time.monotonic()))
                if reading.done():
                    message, reading = reading.result(), None
                    heard_at = time.monotonic()
                    yield message
                    continue
                due = await self._find_due() if self._find_due else []
                heard_at = time.monotonic()
                for job_id in due:
                    yield self._local_message(job_id)
                if due:
                    heard_at = 0  # there may be more
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.wait({reading}, timeout=1)

    async def _read(self) -> AckableMessage:
        """The next message of the stream, however long it takes and however often Redis goes away."""
        pause_seconds = 0.1
        while True:
            try:
                async with asyncio.timeout(_BLOCK_MS / 1000 + 2), self._redis() as client:
                    answer = await client.xreadgroup(
                        self.consumer_group_name, self.consumer_name, {self.queue_name: ">"}, count=1, block=_BLOCK_MS
                    )
                self._note_up()
                pause_seconds = 0.1
                if message := self._first(answer):
                    return message
            except _FAILURES as error:
                if not (isinstance(error, ResponseError) and "NOGROUP" in str(error)):
                    self._note_down(error)
                    await asyncio.sleep(random.uniform(0.5, 1) * pause_seconds)  # noqa: S311 - spreads reconnects
                    pause_seconds = min(2, pause_seconds * 2)
                with contextlib.suppress(*_FAILURES):
                    async with asyncio.timeout(2):
                        await self._declare_consumer_group()

    def _first(self, answer: Any) -> AckableMessage | None:
        streams = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or ()]
        for entries in streams:
            for message_id, message in entries[0] if entries and isinstance(entries[0], list) else entries:
                # A stranger's entry without data is passed on too, because taskiq acknowledges what it cannot read.
                return AckableMessage(data=message.get(b"data", b""), ack=partial(self._ack, message_id))
        return None

    async def _ack(self, message_id: bytes) -> None:
        with contextlib.suppress(*_FAILURES):
            async with asyncio.timeout(_COMMAND_SECONDS), self._redis() as client:
                await self._drop(client, message_id)

    async def _drop(self, client: Any, message_id: bytes) -> None:
        async with client.pipeline(transaction=False) as pipe:
            pipe.xack(self.queue_name, self.consumer_group_name, message_id)
            pipe.xdel(self.queue_name, message_id)  # XACK alone lets the stream grow for ever
            await pipe.execute()

    def _local_message(self, job_id: int) -> AckableMessage:
        return AckableMessage(data=self._message(f"poll-{job_id}", job_id), ack=_nothing)

    def _message(self, task_id: str, job_id: int) -> bytes:
        """What taskiq's own kicker would send."""
        message = TaskiqMessage(task_id=task_id, task_name=RUN_JOB, labels=dict(_LABELS), args=[job_id], kwargs={})
        return self.formatter.dumps(message).message

    def _redis(self) -> Any:
        return redis.Redis(connection_pool=self.connection_pool)

    def _note_down(self, error: BaseException) -> None:
        self.down_since = self.down_since or time.time()
        kind = type(error).__name__
        if kind not in self._down_kinds:  # each reason once: it may change while Redis is away
            self._down_kinds.add(kind)
            what = f"{kind}: {error}"
            log.warning("dependency.down", message="Redis cannot be used.", dependency="redis", error=what)

    def _note_up(self) -> None:
        if self.down_since is not None:
            log.info("dependency.up", message="Redis is back.", dependency="redis")
            self.down_since = None
            self._down_kinds.clear()


async def _nothing() -> None:
    """There is nothing to acknowledge: the message never was in Redis."""
