"""Makes Postgres agree with what the storage has under a key, because an event said that something changed there.

The event is a hint: the storage is asked what lies there now, under the key's lock before anything is written. So an
event may be late, doubled, forged or out of order, and comes to the same end. Nothing is deleted from the storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from gateway import ingest
from gateway.arrivals.tally import Ignorance, Outcome, Tally
from gateway.direct import promises
from gateway.events.bucket_event import BucketEvent
from gateway.events.staleness import Looks
from processors.photos import formats
from processors.settings import JobSettings
from storage import failpoints, keys, objects, uploads
from storage.blobs import BlobRefused, Blobs, BlobsDenied, BlobsUnavailable, Head, NoSuchBlob, NoSuchBucket
from storage.database import Database
from storage.denials import refuses_all
from storage.keys import InvalidKey

log = structlog.get_logger(__name__)

# Less than SAFELIGHT_POSTGRES_IDLE_SECONDS: Postgres would end a transaction in which the storage is waited for.
SETTLE_SECONDS = 8.0  # for one key, from its turn on
TURN_SECONDS = 10.0  # that a key may wait for its turn: some storages let their clients wait for our answer
_LOOKS = 4  # at an object that changes while it is looked at


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a first look found: `first` are the bytes that its kind is told by."""

    etag: str
    first: bytes = b""

    @property
    def is_photo(self) -> bool:
        return formats.sniff(self.first) is not None


class Settler:
    """Settles keys for one process, `concurrency` of them at a time."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        jobs: JobSettings,
        tally: Tally,
        *,
        derived_bucket: str,
        max_upload_bytes: int,
        concurrency: int,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._tally = tally
        self._derived_bucket = derived_bucket
        self._max_upload_bytes = max_upload_bytes
        self._slots = asyncio.Semaphore(concurrency)
        self._looks = Looks()

    async def settle(self, events: Sequence[BucketEvent]) -> frozenset[Ignorance]:
        """Returns once everything that these events tell is committed; why some were left aside. All that can be
        settled is, also where some cannot. Raises DatabaseUnavailable, BlobsUnavailable: then all of them may be given
        again."""
        now = datetime.now(UTC)
        together: dict[tuple[str, str], list[BucketEvent]] = {}
        for event in events:
            self._tally.came(event, now)
            together.setdefault((event.bucket, event.key), []).append(event)
        done = await asyncio.gather(*map(self._settle_key, together.values()), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        return frozenset(result for result in done if isinstance(result, Ignorance))

    async def ping(self) -> None:
        """Raises DatabaseUnavailable, BlobsUnavailable where Postgres or the storage is away."""
        await self._database.ping()
        await self._blobs.ping()

    async def _settle_key(self, events: list[BucketEvent]) -> Outcome | Ignorance:
        """All events of one key; one look answers them all."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._slots.acquire()
            try:
                async with asyncio.timeout(SETTLE_SECONDS):
                    found = await self._decide(events)
            finally:
                self._slots.release()
        except TimeoutError as error:
            raise BlobsUnavailable("it took too long") from error
        for event in events:
            if isinstance(found, Ignorance):
                self._tally.ignored(event, found)
            else:
                self._tally.settled(event, found)
        return found

    async def _decide(self, events: list[BucketEvent]) -> Outcome | Ignorance:
        bucket, key = events[0].bucket, events[0].key
        if bucket == self._derived_bucket:
            return Ignorance.DERIVED
        if all(map(self._looks.cover, events)):
            return Ignorance.STALE
        async with self._database.transaction() as conn:
            # What another event saw before this one happened may be about to be committed.
            await objects.lock_key(conn, bucket, key)
            current = await objects.find_current(conn, bucket, key)
        if current is None and not self._jobs.processors_for(bucket, key):
            return Ignorance.UNWATCHED
        if all(_tells_nothing_new(event, current) for event in events):
            return Outcome.KNOWN
        began_at = datetime.now(UTC)
        outcome = await self._agree(bucket, key, source=events[0].source)
        if isinstance(outcome, Outcome):
            for event in events:
                self._looks.note(event, began_at)
        return outcome

    async def _agree(self, bucket: str, key: str, *, source: str) -> Outcome | Ignorance:
        """Look, and write down what is seen; again where it changed in between."""
        for _ in range(_LOOKS):
            try:
                seen = await self._look(bucket, key)
                if seen is None:
                    outcome = await self._remove(bucket, key, source=source)
                elif not seen.is_photo:
                    outcome = await self._forget(bucket, key, seen, source=source)
                elif not await self._keeps_key(bucket, key):
                    return Ignorance.KEY_CHANGED
                else:
                    outcome = await self._record(bucket, key, seen, source=source)
            except NoSuchBucket:
                return Ignorance.BUCKET_MISSING
            except BlobRefused as error:
                return _leave(bucket, key, error)
            except BlobsDenied as error:
                if await refuses_all(self._blobs, bucket):
                    raise
                return _leave(bucket, key, error)
            if outcome is not None:
                return outcome
        raise BlobsUnavailable("the object changes all the time")

    async def _look(self, bucket: str, key: str) -> _Seen | None:
        """What lies there, by its first bytes; None for nothing."""
        try:
            byte_range = f"bytes=0-{formats.SNIFF_BYTES - 1}"
            async with self._blobs.open(bucket, key, byte_range=byte_range) as reading:
                head = b""
                async for piece in reading.pieces:
                    head += piece
                    if len(head) >= formats.SNIFF_BYTES:  # a storage that ignores ranges
                        break
                return _Seen(etag=reading.etag, first=head[: formats.SNIFF_BYTES])
        except NoSuchBlob:
            return None
        except BlobRefused:  # an empty object has no first byte, or it cannot be read at all
            head_now = await self._head(bucket, key)
            if head_now is not None and head_now.size_bytes:
                raise
            return _Seen(etag=head_now.etag) if head_now is not None else None

    async def _head(self, bucket: str, key: str) -> Head | None:
        try:
            return await self._blobs.head(bucket, key)
        except NoSuchBlob:
            return None

    async def _record(self, bucket: str, key: str, seen: _Seen, *, source: str) -> Outcome | Ignorance | None:
        """Make what was seen the current generation; None where it is no longer there."""
        async with self._database.transaction() as conn:
            # A deletion by a door of ours holds this lock too, from the storage to its commit.
            await objects.lock_key(conn, bucket, key)
            head = await self._head(bucket, key)
            if head is None or head.etag != seen.etag:
                return None
            upload = await uploads.find_origin(conn, head.metadata, bucket, key)
            stored = promises.describe(bucket, key, head, seen.first, upload=upload, max_bytes=self._max_upload_bytes)
            recorded = await ingest.record(conn, stored, self._jobs)
            await failpoints.reach("tx.before_commit")
        await failpoints.reach("tx.after_commit")
        if recorded is None:
            return Ignorance.UNWATCHED
        if not recorded.created:
            return Outcome.KNOWN
        log.info(
            "photo.stored",
            message="A photo was stored.",
            photo_id=str(recorded.id),
            bucket=bucket,
            key=key,
            size_bytes=stored.size_bytes,
            new=True,
            told_by=source,
            rejected=stored.rejection["code"] if stored.rejection else None,
        )
        return Outcome.RECORDED

    async def _remove(self, bucket: str, key: str, *, source: str) -> Outcome | Ignorance | None:
        """Nothing was seen: the photo that was there is gone, if there is still nothing. None where there is."""
        async with self._database.transaction() as conn:
            await objects.lock_key(conn, bucket, key)
            if await objects.find_current(conn, bucket, key) is None:
                return Outcome.KNOWN
            if await self._head(bucket, key) is not None:
                return None
            if not await self._blobs.has_bucket(bucket, fresh=True):  # a bucket that is away answers 404 as well
                return Ignorance.BUCKET_MISSING
            photo_id = await objects.mark_deleted(conn, bucket, key)
            await failpoints.reach("tx.before_commit")
        if photo_id is None:  # it lies in quarantine, and we emptied its key ourselves
            return Outcome.KNOWN
        log.info(
            "photo.removed",
            message="A photo was removed from the storage.",
            photo_id=str(photo_id),
            bucket=bucket,
            key=key,
            told_by=source,
        )
        return Outcome.REMOVED

    async def _forget(self, bucket: str, key: str, seen: _Seen, *, source: str) -> Outcome | Ignorance | None:
        """What lies there is no photo; one that lay there before is gone. None where it is no longer there."""
        async with self._database.transaction() as conn:
            await objects.lock_key(conn, bucket, key)
            current = await objects.find_current(conn, bucket, key)
            if current is None or current["etag"] == seen.etag:
                return Ignorance.NOT_A_PHOTO
            head = await self._head(bucket, key)
            if head is None or head.etag != seen.etag:
                return None
            photo_id = await objects.mark_deleted(conn, bucket, key, only_id=current["id"])
        if photo_id is None:  # it lies in quarantine
            return Outcome.KNOWN
        log.info(
            "photo.removed",
            message="A photo was replaced by something else in the storage.",
            photo_id=str(photo_id),
            bucket=bucket,
            key=key,
            told_by=source,
        )
        return Outcome.REMOVED

    async def _keeps_key(self, bucket: str, key: str) -> bool:
        """Whether the storage has the object under this very key: some change `//` or a backslash."""
        try:
            keys.check_key(key)
        except InvalidKey:
            listed, _ = await self._blobs.list_page(bucket, prefix=key, limit=1)
            return [item.key for item in listed] == [key]
        return True


def _leave(bucket: str, key: str, error: BlobRefused | BlobsDenied) -> Ignorance:
    """It is for whoever owns the storage to say why; reconciling comes back to it."""
    log.warning(
        "photo.unreadable",
        message="The storage will not let an object be read; it is left alone.",
        bucket=bucket,
        key=key,
        code=str(error),
    )
    return Ignorance.UNREADABLE


def _tells_nothing_new(event: BucketEvent, current: dict[str, object] | None) -> bool:
    """Postgres says already what the event says: nothing would be written, so nothing needs to be asked."""
    if event.kind == "removed":
        return current is None
    if current is None or event.etag is None or current["etag"] != event.etag:
        return False
    return event.version_id is None or current["version_id"] == event.version_id
