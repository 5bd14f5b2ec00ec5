"""Bucket events out of the list that MinIO's Redis target pushes to (format `access`), each at least once.

What is taken moves, in one step, into a list of this runner's own, and is removed from there once it is committed. A
runner that ends gives its list back; that of one that died is given back by another. Redis holds all of the state.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from typing import Final

import redis.asyncio as redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from gateway.arrivals.intake import Intake
from gateway.arrivals.patience import Patience, until_stopped
from storage.blobs import BlobsUnavailable
from storage.database import DatabaseUnavailable

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 32  # messages in hand
_WAIT_SECONDS: Final = 1
_BEAT_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 30  # after which a runner counts as dead
_STOP_SECONDS: Final = 5.0  # that what is in hand may take to its end
_STUCK_SECONDS: Final = 5.0  # after which a message that alone cannot be settled lets others pass
_FAILURES: Final = (RedisError, OSError, TimeoutError)


class WrongKind(Exception):
    """The key holds something else than a list. The message says what to do."""


class MinioList:
    """One runner on one list."""

    def __init__(self, url: str, key: str, intake: Intake, *, silent_seconds: float = _SILENT_SECONDS) -> None:
        # Without a socket timeout: with one, redis-py on Python 3.11 can swallow a cancellation.
        self._redis = redis.Redis.from_url(
            url, socket_connect_timeout=2, socket_keepalive=True, health_check_interval=5, retry=Retry(NoBackoff(), 0)
        )
        self._key = key
        self._intake = intake
        self._silent_seconds = silent_seconds
        self.runner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._own = self._list_of(self.runner)

    async def run(self, stop: asyncio.Event) -> None:
        """Take events until `stop` is set; survives any outage of Redis. Raises WrongKind."""
        patience = Patience(stop)
        leaving = asyncio.Event()
        beating = asyncio.create_task(self._beat(leaving))
        try:
            while not stop.is_set():
                try:
                    await until_stopped(self._turn(stop), stop, grace_seconds=_STOP_SECONDS)
                    patience.reset()
                except ResponseError as error:
                    if "WRONGTYPE" in str(error):
                        raise WrongKind(
                            f"{self._key} in Redis is no list. Set MINIO_NOTIFY_REDIS_FORMAT=access in MinIO, which "
                            "makes a queue of it; format `namespace` keeps the last state of each key alone."
                        ) from error
                    await self._say_down(error, patience)
                except _FAILURES as error:
                    await self._say_down(error, patience)
        finally:
            leaving.set()  # not cancelled: redis-py can swallow that while it connects
            await asyncio.wait([beating], timeout=1)  # a frozen Redis does not answer
            beating.cancel()
            await self._leave()

    async def _turn(self, stop: asyncio.Event) -> None:
        """Settle what is in hand; take more where nothing is."""
        held = [_bytes(body) for body in await self._redis.lrange(self._own, 0, _AT_ONCE - 1)]
        if not held:
            held = await self._take()
        settling = [self._settle(body, stop) for body in dict.fromkeys(held)]
        for result in await asyncio.gather(*settling, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _take(self) -> list[bytes]:
        await self._register()  # before there is anything that another runner would have to give back
        first = await self._redis.blmove(self._key, self._own, _WAIT_SECONDS, "LEFT", "RIGHT")
        if first is None:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for _ in range(_AT_ONCE - 1):
                pipe.lmove(self._key, self._own, "LEFT", "RIGHT")
            rest = await pipe.execute()
        return [_bytes(body) for body in [first, *rest] if body is not None]

    async def _settle(self, body: bytes, stop: asyncio.Event) -> None:
        """Until it is committed, or the end is asked for: then it stays in the list. One that alone cannot be settled,
        while neither Postgres nor the storage is away, goes to the tail of the queue."""
        patience, began_at, others_go_on = Patience(stop), time.monotonic(), False
        while not stop.is_set():
            try:
                await self._intake.take(body, "minio-redis")
            except (DatabaseUnavailable, BlobsUnavailable):
                if others_go_on:
                    await self._put_last(body)
                    return
                others_go_on = time.monotonic() - began_at > _STUCK_SECONDS and await self._intake.can_settle()
                if not others_go_on:
                    await patience.pause()
            except Exception:
                log.exception("bucket_event.failed", message="A message failed unexpectedly; it is kept as a sample.")
                await self._set_aside(body, patience)
                return
            else:
                await self._redis.lrem(self._own, 0, body)  # type: ignore[arg-type]  # takes bytes as well
                return

    async def _put_last(self, body: bytes) -> None:
        log.warning("bucket_event.postponed", message="A message cannot be settled for now; others go before it.")
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.lrem(self._own, 0, body)  # type: ignore[arg-type]  # takes bytes as well
            pipe.rpush(self._key, body)
            await pipe.execute()

    async def _set_aside(self, body: bytes, patience: Patience) -> None:
        """What cannot be settled for a fault of ours must not hold back the rest."""
        try:
            await self._intake.set_aside("failed", body, "minio-redis")
        except DatabaseUnavailable:
            await patience.pause()
            return
        await self._redis.lrem(self._own, 0, body)  # type: ignore[arg-type]  # takes bytes as well

    async def _beat(self, leaving: asyncio.Event) -> None:
        """Say that this runner lives, and look after those that do not."""
        while not leaving.is_set():
            with contextlib.suppress(*_FAILURES):
                await self._register()
                members = await self._redis.smembers(self._runners)
                for other in sorted(_bytes(member).decode("utf-8", "replace") for member in members):
                    if other != self.runner and not await self._redis.exists(self._life_of(other)):
                        await self._give_back(other)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_BEAT_SECONDS, self._silent_seconds / 3)):
                    await leaving.wait()

    async def _register(self) -> None:
        """Be known as a runner that lives: the list of one that is not known would be given back by nobody."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(self._life_of(self.runner), 1, px=int(self._silent_seconds * 1000))
            pipe.sadd(self._runners, self.runner)
            await pipe.execute()

    async def _give_back(self, runner: str) -> None:
        """Put what a runner held back to the head of the list, in its order, and forget the runner."""
        times = 0
        while await self._redis.lmove(self._list_of(runner), self._key, "RIGHT", "LEFT") is not None:
            times += 1
        await self._redis.srem(self._runners, runner)
        if times:
            log.info(
                "bucket_events.returned", message="Events of a runner were given back.", runner=runner, times=times
            )

    async def _leave(self) -> None:
        with contextlib.suppress(*_FAILURES):
            async with asyncio.timeout(5):
                await self._give_back(self.runner)
                await self._redis.delete(self._life_of(self.runner))
        with contextlib.suppress(*_FAILURES):
            await self._redis.aclose()

    async def _say_down(self, error: BaseException, patience: Patience) -> None:
        log.warning("dependency.down", message="Redis cannot be used.", dependency="events redis", error=repr(error))
        await patience.pause()

    @property
    def _runners(self) -> str:
        return f"{self._key}:safelight:runners"

    def _list_of(self, runner: str) -> str:
        return f"{self._key}:safelight:taken:{runner}"

    def _life_of(self, runner: str) -> str:
        return f"{self._key}:safelight:alive:{runner}"


def _bytes(answer: bytes | str) -> bytes:
    """An answer of the client, whatever it is made to decode."""
    return answer if isinstance(answer, bytes) else answer.encode()
