"""One message in, whatever way it came: read, counted, settled. Whoever calls has made sure that it may be believed.

What nobody can use is counted and sampled, and counts as done: its source would repeat it for ever otherwise.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Literal

import structlog

from gateway.arrivals.settling import Settler
from gateway.arrivals.tally import Ignorance, Tally
from gateway.events.bucket_event import Reason
from gateway.events.opaque import hide_opaque_data
from gateway.events.reading import Reading, read_events
from storage import samples
from storage.blobs import BlobsUnavailable
from storage.database import Database, DatabaseUnavailable

log = structlog.get_logger(__name__)

Origin = Literal["webhook", "minio-redis", "sqs"]

_SMALL_BYTES = 64 << 10  # what takes longer to read is read off the event loop
_SAMPLE_SECONDS = 1.0  # between two samples of one reason
# Parts of messages that say that somebody's storage writes what we do not understand.
_STRANGE = frozenset(Reason) - {Reason.UNWANTED_KIND, Reason.DIRECTORY, Reason.SYSTEM_PATH, Reason.UPLOAD_PART}


class Intake:
    """The messages of one process."""

    def __init__(self, database: Database, settler: Settler, tally: Tally) -> None:
        self._database = database
        self._settler = settler
        self._tally = tally
        self._sampled_at: dict[str, float] = {}

    async def take(self, body: bytes, origin: Origin) -> None:
        """Returns once all that the message tells is committed. Raises DatabaseUnavailable, BlobsUnavailable: then the
        whole message may be given again. Lines that are logged over it, and what it brings, carry an id of its own."""
        with structlog.contextvars.bound_contextvars(request_id=secrets.token_hex(8)):
            await self.act(await self.read(body), body, origin)

    async def read(self, body: bytes) -> Reading:
        """What a message holds. Raises nothing."""
        return read_events(body) if len(body) <= _SMALL_BYTES else await asyncio.to_thread(read_events, body)

    async def act(self, reading: Reading, body: bytes, origin: Origin) -> None:
        """Act on what was read, as `take` does."""
        if reading.unusable is not None:
            await self.set_aside(reading.unusable.value, body, origin)
            return
        left = await self._settler.settle(reading.events)
        if Ignorance.UNREADABLE in left:
            await self._sample(Ignorance.UNREADABLE.value, body, origin)
        for reason, times in reading.ignored.items():
            self._tally.left_aside(reason.value, times)
            if reason in _STRANGE:
                await self._sample(reason.value, body, origin)

    async def set_aside(self, reason: str, body: bytes, origin: Origin) -> None:
        """Count and sample a message that is of no use. Raises DatabaseUnavailable."""
        await self._sample(reason, body, origin)
        self._tally.unusable(reason)

    async def can_settle(self) -> bool:
        """Neither Postgres nor the storage is away: a message that cannot be settled has only itself to blame."""
        try:
            await self._settler.ping()
        except (DatabaseUnavailable, BlobsUnavailable):
            return False
        return True

    async def _sample(self, reason: str, body: bytes, origin: Origin) -> None:
        now = time.monotonic()
        if now - self._sampled_at.get(reason, float("-inf")) < _SAMPLE_SECONDS:
            return
        self._sampled_at[reason] = now
        try:
            async with self._database.transaction() as conn:
                kept = hide_opaque_data(body[: 2 * samples.SAMPLE_BYTES])
                await samples.keep(conn, origin=origin, reason=reason, body=kept, size_bytes=len(body))
        except DatabaseUnavailable:
            self._sampled_at.pop(reason, None)
            raise
        log.warning(
            "bucket_event.unusable",
            message="A message about a bucket could not be used; GET /v1/bucket-events/unusable shows samples.",
            reason=reason,
            origin=origin,
            size_bytes=len(body),
        )
