"""Bucket events out of an SQS queue, each at least once: deleted only after the commit.

While Postgres or the storage is away messages are held and their leases prolonged, rather than given back: each time
that one is received counts against the queue's own limit, after which SQS moves it to a dead letter queue. That is
where a message ends that alone cannot be settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

import structlog

from gateway.arrivals.intake import Intake
from gateway.arrivals.patience import Patience, until_stopped
from storage.blobs import BlobsUnavailable
from storage.database import DatabaseUnavailable
from storage.sqs import Message, Queue, QueueUnavailable

log = structlog.get_logger(__name__)

_LOOPS: Final = 4  # batches of ten in hand
_WAIT_SECONDS: Final = 20  # the longest poll that SQS knows: an idle queue costs least
_LEASE_SECONDS: Final = 60
_STUCK_SECONDS: Final = 30.0  # after which a message that alone cannot be settled is given back
_STOP_SECONDS: Final = 1.0  # that a poll under way may take to its end


class SqsQueue:
    """One runner on one queue."""

    def __init__(
        self,
        queue: Queue,
        intake: Intake,
        *,
        lease_seconds: int = _LEASE_SECONDS,
        stuck_seconds: float = _STUCK_SECONDS,
    ) -> None:
        self._queue = queue
        self._intake = intake
        self._lease_seconds = lease_seconds
        self._stuck_seconds = stuck_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Take events until `stop` is set; survives any outage of SQS. Raises NoSuchQueue."""
        loops = [asyncio.create_task(self._loop(stop)) for _ in range(_LOOPS)]
        try:
            await asyncio.gather(*loops)
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops)

    async def _loop(self, stop: asyncio.Event) -> None:
        patience = Patience(stop)
        while not stop.is_set():
            try:
                held = await self._receive(stop)
                await self._settle_all(held, stop)
                patience.reset()
            except QueueUnavailable as error:
                log.warning("dependency.down", message="SQS cannot be used.", dependency="sqs", error=repr(error))
                await patience.pause()

    async def _receive(self, stop: asyncio.Event) -> list[Message]:
        """The next messages; none where the end is asked for. A poll that is cut off then may leave messages under
        lease: they come again when it ends."""
        polling = self._queue.receive(wait_seconds=_WAIT_SECONDS, lease_seconds=self._lease_seconds)
        return await until_stopped(polling, stop, grace_seconds=_STOP_SECONDS) or []

    async def _settle_all(self, messages: list[Message], stop: asyncio.Event) -> None:
        """Until all are deleted, or the end is asked for: then the rest is given back."""
        held = {message.id: message for message in messages}
        keeping = asyncio.create_task(self._keep(held))
        try:
            done = await asyncio.gather(
                *(self._settle(message, held, stop) for message in messages), return_exceptions=True
            )
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
        for result in done:
            if isinstance(result, BaseException):
                raise result
        await self._queue.lease(list(held.values()), seconds=0)

    async def _settle(self, message: Message, held: dict[str, Message], stop: asyncio.Event) -> None:
        patience, began_at, others_go_on = Patience(stop), time.monotonic(), False
        while not stop.is_set():
            try:
                await self._intake.take(message.body.encode("utf-8", "surrogatepass"), "sqs")
            except (DatabaseUnavailable, BlobsUnavailable):
                if others_go_on:  # its lease ends by itself: it comes again, but not at once
                    log.warning("bucket_event.postponed", message="A message cannot be settled; it will come again.")
                    held.pop(message.id, None)
                    return
                is_long = time.monotonic() - began_at > self._stuck_seconds
                others_go_on = is_long and await self._intake.can_settle()
                if not others_go_on:
                    await patience.pause()
            except Exception:
                # Its lease ends by itself; SQS counts how often, and knows where such messages go.
                log.exception("bucket_event.failed", message="A message failed unexpectedly; it will come again.")
                held.pop(message.id, None)
                return
            else:
                await self._queue.delete(message)
                held.pop(message.id, None)
                return

    async def _keep(self, held: dict[str, Message]) -> None:
        """Prolong the leases of what is in hand."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            with contextlib.suppress(QueueUnavailable):
                await self._queue.lease(list(held.values()), seconds=self._lease_seconds)
