"""The hooks of the S3 door: what was stored becomes a photo with its jobs, what was removed stops being one.

Nothing is believed that the storage has not answered; the client is answered after the commit. Objects that do not
begin like a photo, and those of places that nobody watches, are left alone.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes
from xml.sax.saxutils import unescape

import structlog

from gateway import ingest
from gateway.door.backend import Answer, Backend, BackendUnavailable, Outgoing
from gateway.s3.canonical import encode
from gateway.s3.scope import Signer
from gateway.settings import GatewaySettings
from processors.photos import formats
from processors.settings import JobSettings
from storage import failpoints, keys, objects
from storage.database import Connection, Database, DatabaseUnavailable
from storage.keys import InvalidKey
from storage.objects import StoredObject

log = structlog.get_logger(__name__)

HEAD_BYTES = formats.SNIFF_BYTES
_LISTING_BYTES = 64 << 10
_DELETIONS_AT_ONCE = 100  # each holds a lock until its transaction ends
_CONTENT_RANGE = re.compile(rb"bytes \d+-\d+/(\d+)")
_FIRST_KEY = re.compile(rb"<Contents>.*?<Key>([^<]*)</Key>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Found:
    """An object as the storage has it now. `head`: its first bytes, HEAD_BYTES of them where there are as many."""

    bucket: str
    key: str
    etag: str
    version_id: str | None
    size_bytes: int
    head: bytes
    sha256: bytes | None = None


class Unreadable(BackendUnavailable):
    """The storage has the object, but does not show it: it is encrypted with a key of the client's, or there is no
    leave."""


class Recorder:
    """The hooks of one process. `signer`: with what the storage was asked for what is looked at; left out or None: with
    Safelight's own key."""

    def __init__(
        self,
        database: Database,
        backend: Backend,
        jobs: JobSettings,
        settings: GatewaySettings,
        *,
        derived_bucket: str,
    ) -> None:
        self._database = database
        self._backend = backend
        self._jobs = jobs
        self._settings = settings
        self._derived_bucket = derived_bucket
        self._removals = asyncio.Semaphore(max(1, database.pool_use.limit // 2))

    def watches(self, bucket: str, key: str) -> bool:
        return bucket != self._derived_bucket and bool(self._jobs.processors_for(bucket, key))

    async def stored(self, found: Found, signer: Signer | None = None) -> uuid.UUID | None:
        """Commit what was stored. Returns the photo's id, None where it is none. Raises DatabaseUnavailable,
        BackendUnavailable."""
        photo_format = formats.sniff(found.head)
        if photo_format is None or not await self._keeps_key(found.bucket, found.key, signer):
            await self._forget(found.bucket, found.key, found.etag)
            return None
        stored = StoredObject(
            id=keys.new_id(datetime.now(UTC)),
            bucket=found.bucket,
            key=found.key,
            etag=found.etag,
            version_id=found.version_id,
            sha256=found.sha256,
            size_bytes=found.size_bytes,
            content_type=photo_format.content_type,
            filename=keys.safe_filename(found.key),
        )

        async def read_etag() -> str | None:
            now_there = await self.look(found.bucket, found.key, signer, head_bytes=0)
            return now_there.etag if now_there is not None else None

        async def record(conn: Connection) -> objects.Recorded | None:
            recorded = await ingest.record(conn, stored, self._jobs, read_etag=read_etag)
            await failpoints.reach("tx.before_commit")
            return recorded

        recorded = await self._database.persist(record, for_seconds=self._settings.record_seconds)
        await failpoints.reach("tx.after_commit")
        if recorded is None:
            return None
        log.info(
            "photo.stored",
            message="A photo was stored.",
            photo_id=str(recorded.id),
            bucket=found.bucket,
            key=found.key,
            size_bytes=found.size_bytes,
            new=recorded.created,
        )
        return recorded.id

    async def look(
        self, bucket: str, key: str, signer: Signer | None = None, *, head_bytes: int = HEAD_BYTES
    ) -> Found | None:
        """What the storage has under a key now; None for nothing. Raises Unreadable, BackendUnavailable."""
        headers = ((b"Range", b"bytes=0-%d" % (head_bytes - 1)),) if head_bytes else ()
        outgoing = Outgoing(method="GET" if head_bytes else "HEAD", path=path_of(bucket, key), headers=headers)
        async with self._backend.send(outgoing, signer or self._backend.signer) as answer:
            if answer.status == 404:
                return None
            if answer.status in (400, 403):
                raise Unreadable(f"the storage answers {answer.status}")
            if answer.status == 416:  # empty
                await answer.read(_LISTING_BYTES)
                return Found(bucket=bucket, key=key, etag="", version_id=None, size_bytes=0, head=b"")
            if not answer.is_success:
                raise BackendUnavailable(f"the storage answers {answer.status}")
            head = await _read_head(answer, head_bytes)
            return Found(
                bucket=bucket,
                key=key,
                etag=read_etag(answer) or "",
                version_id=read_version(answer),
                size_bytes=_read_size(answer),
                head=head,
            )

    async def settle(self, bucket: str, key: str, signer: Signer | None = None) -> None:
        """Make Postgres agree with what the storage has under a key. Raises DatabaseUnavailable, BackendUnavailable."""
        try:
            found = await self.look(bucket, key, signer)
        except Unreadable as error:
            log.warning(
                "photo.unreadable",
                message="An object was stored that cannot be read; it is left alone.",
                bucket=bucket,
                key=key,
                cause=str(error),
            )
            found = None
        if found is not None:
            await self.stored(found, signer)
        else:
            await self.replaced(bucket, key)

    async def replaced(self, bucket: str, key: str) -> None:
        """What lies under the key now, if anything, is no photo that can be shown. Raises DatabaseUnavailable."""
        if "\x00" in key:
            return
        await self._database.persist(
            lambda conn: objects.mark_deleted(conn, bucket, key), for_seconds=self._settings.record_seconds
        )

    @asynccontextmanager
    async def removing(self, bucket: str, key: str) -> AsyncIterator[list[bool]]:
        """Around the removal of one object, while nobody else changes what is recorded under its key. Append True to
        what is given where it went well. Raises DatabaseUnavailable."""
        went_well: list[bool] = []
        async with self._turn_to_remove(), self._database.transaction() as conn:
            await objects.lock_key(conn, bucket, key)
            yield went_well
            if went_well:
                await objects.mark_deleted(conn, bucket, key)

    @asynccontextmanager
    async def _turn_to_remove(self) -> AsyncIterator[None]:
        """A removal holds its connection while the storage answers; what is stored meanwhile needs some, too."""
        try:
            async with asyncio.timeout(self._settings.record_seconds):
                await self._removals.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("all connections for removals are in use") from None
        try:
            yield
        finally:
            self._removals.release()

    async def known(self, bucket: str, names: Sequence[str]) -> dict[str, uuid.UUID]:
        """The photos among these keys. Raises DatabaseUnavailable."""
        watched = [name for name in names if self.watches(bucket, name)]
        if not watched:
            return {}
        async with self._database.connection() as conn:
            return await objects.find_many(conn, bucket, watched)

    async def removed(self, bucket: str, photos: Iterable[tuple[str, uuid.UUID]]) -> None:
        """Mark these photos as deleted, unless something newer lies under their keys. Raises DatabaseUnavailable."""
        ordered = sorted(photos)  # always in the same order: no two transactions wait for each other
        for start in range(0, len(ordered), _DELETIONS_AT_ONCE):
            batch = ordered[start : start + _DELETIONS_AT_ONCE]

            async def mark(conn: Connection, batch: list[tuple[str, uuid.UUID]] = batch) -> None:
                for key, photo_id in batch:
                    await objects.mark_deleted(conn, bucket, key, only_id=photo_id)

            await self._database.persist(mark, for_seconds=self._settings.record_seconds)

    async def _forget(self, bucket: str, key: str, etag: str) -> None:
        """What lies under the key now is no photo; one that lay there before is gone."""
        if "\x00" in key:  # Postgres cannot hold such a text, so no photo can be known under it
            return

        async def mark(conn: Connection) -> None:
            current = await objects.find_current(conn, bucket, key)
            if current is not None and current["etag"] != etag:
                async with conn.transaction():
                    await objects.mark_deleted(conn, bucket, key, only_id=current["id"])

        # Mostly there is nothing to forget: one question then, not a transaction round it.
        await self._database.persist(mark, for_seconds=self._settings.record_seconds, in_transaction=False)

    async def _keeps_key(self, bucket: str, key: str, signer: Signer | None) -> bool:
        """Whether the storage has the object under this very key: some change `//` or a backslash."""
        try:
            keys.check_key(key)
        except InvalidKey:
            if "\x00" in key:
                return False
            query = b"encoding-type=url&list-type=2&max-keys=1&prefix=" + encode(key.encode("utf-8"))
            outgoing = Outgoing(method="GET", path=path_of(bucket), query=query)
            async with self._backend.send(outgoing, signer or self._backend.signer) as answer:
                listing = await answer.read(_LISTING_BYTES)
            match = _FIRST_KEY.search(listing)
            text = unescape(match[1].decode("utf-8", "replace")) if match else ""
            listed = unquote_to_bytes(text.replace("+", " ")) if b"<EncodingType>" in listing else text.encode("utf-8")
            if listed == key.encode("utf-8"):
                return True
            log.warning(
                "photo.key_changed",
                message="The storage changed the key; the object is left alone.",
                bucket=bucket,
                key=key,
            )
            return False
        return True


def path_of(bucket: str, key: str | None = None) -> bytes:
    """The path of an object or bucket, percent-encoded."""
    path = f"/{bucket}" if key is None else f"/{bucket}/{key}"
    return b"/".join(encode(part) for part in path.encode("utf-8").split(b"/"))


def read_etag(answer: Answer) -> str | None:
    value = answer.header(b"etag")
    return value.decode("latin-1").strip('"') or None if value is not None else None


def read_version(answer: Answer) -> str | None:
    value = (answer.header(b"x-amz-version-id") or b"").decode("latin-1")
    return value if value not in ("", "null") else None


async def _read_head(answer: Answer, limit: int) -> bytes:
    head = bytearray()
    async for piece in answer.pieces():
        head += piece[: limit - len(head)]
        if answer.status != 206 and len(head) >= limit:  # a storage that ignores ranges
            break
    return bytes(head)


def _read_size(answer: Answer) -> int:
    match = _CONTENT_RANGE.fullmatch(answer.header(b"content-range") or b"")
    return int(match[1] if match else answer.header(b"content-length") or b"0")
