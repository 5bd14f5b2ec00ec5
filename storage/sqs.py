"""A queue of SQS: messages are leased, their leases prolonged, and deleted when they are done. One client per process.

At least once: what is not deleted comes again when its lease ends. Knows nothing of what the messages say.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

MAX_BATCH = 10  # SQS
_NO_SUCH = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


class QueueUnavailable(Exception):
    """SQS is out of reach, refuses our credentials or asks to slow down."""


class NoSuchQueue(Exception):
    """There is no queue at that address."""


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """Where the queue is. `endpoint`: None means AWS itself."""

    url: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    endpoint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message under lease. `receipt` names this very lease."""

    id: str
    receipt: str = field(repr=False)
    body: str


class Queue:
    """The queue of one process."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._client: Any = None

    async def __aenter__(self) -> Queue:
        settings = self._settings
        session = aioboto3.Session(
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            region_name=settings.region,
        )
        config = AioConfig(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 2})
        self._client = await self._stack.enter_async_context(
            session.client("sqs", endpoint_url=settings.endpoint, config=config)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def receive(self, *, wait_seconds: int, lease_seconds: int) -> list[Message]:
        """At most MAX_BATCH messages, none of which anybody else gets for `lease_seconds`. Waits where there are none.
        Raises QueueUnavailable, NoSuchQueue."""
        async with _translated():
            answer = await self._client.receive_message(
                QueueUrl=self._settings.url,
                MaxNumberOfMessages=MAX_BATCH,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=lease_seconds,
            )
        return [
            Message(id=item["MessageId"], receipt=item["ReceiptHandle"], body=item["Body"])
            for item in answer.get("Messages", [])
        ]

    async def lease(self, messages: Sequence[Message], *, seconds: int) -> None:
        """Have the leases of at most MAX_BATCH messages end so long from now; 0 gives them back. What is no longer ours
        is passed over. Raises QueueUnavailable, NoSuchQueue."""
        if messages:
            entries = [
                {"Id": str(number), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                for number, message in enumerate(messages)
            ]
            async with _translated():
                await self._client.change_message_visibility_batch(QueueUrl=self._settings.url, Entries=entries)

    async def delete(self, message: Message) -> None:
        """It is done. Raises QueueUnavailable, NoSuchQueue."""
        async with _translated():
            await self._client.delete_message(QueueUrl=self._settings.url, ReceiptHandle=message.receipt)


@contextlib.asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise (NoSuchQueue if code in _NO_SUCH else QueueUnavailable)(code) from error
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise QueueUnavailable(type(error).__name__) from error
