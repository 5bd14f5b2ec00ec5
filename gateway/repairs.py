"""What can be wrong between Postgres and the storage, and how each of it is confirmed and repaired.

Everything is looked at again under the lock of the photo's key before anything is changed, so a repair is safe beside
uploads, deletions, workers and other repairs. Nothing is deleted that is not provably an orphan of ours.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from gateway import ingest
from gateway.direct import promises
from gateway.findings import FINDINGS, NOTICES, Action, Tally
from gateway.settings import GatewaySettings
from processors import registry
from processors.photos import formats
from processors.settings import JobSettings
from storage import failpoints, keys, multiparts, objects, reconciliation, uploads
from storage.blobs import (
    BlobChanged,
    BlobRefused,
    Blobs,
    BlobsDenied,
    Head,
    Listed,
    NoSuchBlob,
    NoSuchBucket,
    OpenUpload,
)
from storage.database import Database
from storage.denials import refuses_all
from storage.keys import InvalidKey
from storage.reconciliation import PhotoRow, PreviewRow, Source
from storage.settings import StorageSettings

log = structlog.get_logger(__name__)

# An upload's row is made right before the upload itself; so far apart may the two be, clocks included.
_ROW_BEFORE_UPLOAD: Final = timedelta(seconds=60)
_ROW_AFTER_UPLOAD: Final = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where reconciling happens, and how."""

    database: Database
    blobs: Blobs
    settings: GatewaySettings
    jobs: JobSettings
    storage: StorageSettings
    dry_run: bool = False
    abort_foreign: bool = False
    accept_losses: bool = False

    @property
    def named_buckets(self) -> set[str]:
        """The buckets that a hook watches by name: photos may lie there before Postgres knows any."""
        return {hook.bucket for hook in self.jobs.hooks if hook.bucket is not None and hook.processors != ()}

    @property
    def looks_everywhere(self) -> bool:
        """Photos may lie in any bucket, and somebody wants all of them gone through."""
        is_watched = any(hook.bucket is None and hook.processors != () for hook in self.jobs.hooks)
        return is_watched and self.settings.reconcile_buckets == "all"

    def lacks_jobs(self, bucket: str, row: PhotoRow) -> bool:
        """Some processor that watches there has no job for this photo, which was not rejected at the door."""
        return not (row.rejected and not row.processors) and any(
            item.name not in row.processors for item in self.jobs.processors_for(bucket, row.key)
        )

    def is_outdated(self, bucket: str, row: PhotoRow) -> bool:
        """Its previews are done, but one that its hook asks for is absent or of another version. Where nobody watches
        (any more), nothing is: what was made stays."""
        if row.previews is None or not self.jobs.processors_for(bucket, row.key):
            return False
        return any(row.previews.get(item.name) != item.version for item in self.jobs.previews_for(bucket, row.key))

    def past_grace(self, moment: datetime, now: datetime) -> bool:
        return moment < now - timedelta(seconds=self.settings.reconcile_grace_seconds)


class Repairs:
    """Confirms and repairs one thing at a time, and counts. In a dry run everything that would be repaired counts as
    left."""

    def __init__(self, site: Site, tally: Tally, now: datetime) -> None:
        self._site = site
        self._tally = tally
        self._now = now

    async def check_object(self, bucket: str, listed: Listed, known_etag: str | None) -> None:
        """An object whose etag is not that of the key's current row, or that has no row."""
        if listed.etag == known_etag or not self._site.past_grace(listed.modified_at, self._now):
            return
        if known_etag is None and not self._site.jobs.processors_for(bucket, listed.key):
            return  # nobody watches there: it passes through untouched, whatever it is
        if listed.key.endswith("/") and listed.size_bytes == 0:  # a folder, as some tools draw them
            return
        try:
            keys.check_listed_key(listed.key)
        except InvalidKey:
            self.note("unusable_key", "left", bucket, listed.key)
            return
        with contextlib.suppress(NoSuchBlob, BlobChanged):  # it changes right now: the next pass sees what became of it
            async with self._unless_refused(bucket, listed.key):
                first = await self._read_first(bucket, listed)
                if known_etag is None and formats.sniff(first) is None:
                    self.note("not_a_photo", "left", bucket, listed.key)
                    return
                await self._record(bucket, listed, known_etag, first)

    async def is_lost(self, bucket: str, row: PhotoRow) -> bool:
        """The original of a row that the listing did not show is gone."""
        is_there = True
        async with self._unless_refused(bucket, row.key):
            is_there = not row.past_grace or await self._exists(bucket, row.key)
        return not is_there

    async def settle_lost(self, bucket: str, row: PhotoRow) -> None:
        """Report a lost original; mark its photo as deleted only where somebody accepted the loss."""
        accepted = self._site.accept_losses and not self._site.dry_run
        async with self._unless_refused(bucket, row.key), self._site.database.transaction() as conn:
            await objects.lock_key(conn, bucket, row.key)  # a deletion may be under way
            current = await objects.find_current(conn, bucket, row.key)
            if current is None or current["id"] != row.id or await self._exists(bucket, row.key):
                return
            if accepted:
                await objects.mark_deleted(conn, bucket, row.key)
            self.note("original_missing", "repaired" if accepted else "left", bucket, row.key, photo_id=row.id)

    async def check_preview(self, bucket: str, derived_bucket: str, row: PreviewRow) -> None:
        """A preview of a photo in `bucket` that the listing did not show, or showed with another etag."""
        if row.job_state in ("ready", "running"):
            return  # it is being made again already
        finding = None
        async with self._unless_refused(derived_bucket, row.key):
            finding = await self._judge_preview(derived_bucket, row)
        if finding is None:
            return
        wanted = {preset.name for preset in self._site.jobs.previews_for(bucket, row.source_key)}
        if row.preset in wanted and row.job_state == "done":
            await self.remake(finding, row.object_id, derived_bucket, row.key)
        else:
            self.note(finding, "left", derived_bucket, row.key)

    async def remake(self, finding: str, object_id: uuid.UUID, bucket: str, key: str) -> None:
        """Have a photo's previews made again."""
        if self._site.dry_run:
            self.note(finding, "left", bucket, key)
            return
        async with self._site.database.transaction() as conn:
            version = registry.get("preview").version
            if not await reconciliation.remake_previews(conn, object_id, version=version):
                return
        self.note(finding, "repaired", bucket, key, photo_id=object_id)

    async def check_derived(self, derived_bucket: str, listed: Listed) -> None:
        """A derived object that nothing in Postgres accounts for."""
        if not self._site.past_grace(listed.modified_at, self._now):
            return
        with contextlib.suppress(NoSuchBlob):
            async with self._unless_refused(derived_bucket, listed.key):
                head = await self._site.blobs.head(derived_bucket, listed.key)
                source = await self._trace(listed.key, head)
                if source is None:
                    self.note("unknown_derived", "left", derived_bucket, listed.key)
                    return
                await self._delete_orphan(derived_bucket, listed.key, head, source)

    async def check_foreign_upload(self, bucket: str, upload: OpenUpload) -> None:
        """A multipart upload that no row of ours names."""
        if upload.begun_at > self._now - timedelta(hours=self._site.settings.dangling_hours):
            return
        if self._site.abort_foreign and not self._site.dry_run:
            await self._site.blobs.abort_upload(bucket, upload)
            self.note("foreign_upload", "repaired", bucket, upload.key)
        else:
            self.note("foreign_upload", "left", bucket, upload.key)

    async def abort_dangling(self, *, bucket: str | None = None, prefix: str = "", limit: int = 100) -> None:
        """Abort what gateways that died were uploading, and forget it."""
        if self._site.dry_run:
            await self._count_dangling(bucket, prefix, limit)
            return
        async with self._site.database.transaction() as conn:
            for row in await multiparts.pick_dangling(conn, limit=limit):
                if bucket is not None and (row.bucket != bucket or not row.key.startswith(prefix)):
                    continue
                for upload in await self._find_uploads(row):
                    await failpoints.reach("abort.before")
                    await self._site.blobs.abort_upload(row.bucket, upload)
                    self.note("dangling_upload", "repaired", row.bucket, row.key)
                await multiparts.finish(conn, row.id)

    def note(self, finding: str, action: Action, bucket: str, key: str, **more: object) -> None:
        self._tally.note(finding, action)
        write = log.info
        if finding in NOTICES:
            write = log.debug
        elif finding == "original_missing":
            write = log.error
        write(
            f"reconcile.{finding}",
            message=FINDINGS[finding],
            action=action,
            dry_run=self._site.dry_run,
            bucket=bucket,
            key=key,
            **{name: str(value) for name, value in more.items()},
        )

    @contextlib.asynccontextmanager
    async def _unless_refused(self, bucket: str, key: str) -> AsyncIterator[None]:
        """One object that the storage keeps to itself must not hold up the others: it is reported and left. Raises
        BlobsDenied where the storage refuses us as a whole."""
        try:
            yield
        except BlobRefused:
            self.note("unreadable", "left", bucket, key)
        except BlobsDenied:
            if await refuses_all(self._site.blobs, bucket):
                raise
            self.note("unreadable", "left", bucket, key)

    async def _judge_preview(self, derived_bucket: str, row: PreviewRow) -> str | None:
        """What is wrong with a preview; None where it is the object that was made."""
        try:
            head = await self._site.blobs.head(derived_bucket, row.key)
        except NoSuchBlob:
            return "preview_missing"
        return "preview_changed" if head.etag != row.etag else None

    async def _read_first(self, bucket: str, listed: Listed) -> bytes:
        """What its kind is told by. Raises NoSuchBlob, BlobChanged."""
        if not listed.size_bytes:
            return b""
        return await self._site.blobs.read(bucket, listed.key, etag=listed.etag, first_bytes=formats.SNIFF_BYTES)

    async def _record(self, bucket: str, listed: Listed, known_etag: str | None, first: bytes) -> None:
        """Make what lies there the current generation. A photo that was replaced by something else is recorded too: its
        jobs reject it, and nobody is shown the previews of bytes that are gone."""
        finding = "unrecorded_object" if known_etag is None else "unrecorded_generation"
        if self._site.dry_run:
            head = await self._site.blobs.head(bucket, listed.key)
            if head.etag == listed.etag:
                self.note(finding, "left", bucket, listed.key)
            return
        async with self._site.database.transaction() as conn:
            # A deletion holds this lock too, from the storage to its commit.
            await objects.lock_key(conn, bucket, listed.key)
            current = await objects.find_current(conn, bucket, listed.key)
            head = await self._site.blobs.head(bucket, listed.key)
            if head.etag != listed.etag or (current and current["etag"] == head.etag):
                return
            upload = await uploads.find_origin(conn, head.metadata, bucket, listed.key)
            max_bytes = self._site.settings.max_upload_bytes
            stored = promises.describe(bucket, listed.key, head, first, upload=upload, max_bytes=max_bytes)
            recorded = await ingest.record(conn, stored, self._site.jobs)
        if recorded is None:
            return  # the photo that was there was deleted in the meantime, and nobody watches there
        self.note(finding, "repaired", bucket, listed.key, photo_id=recorded.id)

    async def _exists(self, bucket: str, key: str) -> bool:
        try:
            await self._site.blobs.head(bucket, key)
        except NoSuchBlob:
            return False
        return True

    async def _trace(self, derived_key: str, head: Head) -> Source | None:
        """The photo that a derived object of ours was made of; None where it is not provably ours."""
        preset, extension = head.metadata.get("preset"), derived_key.rpartition(".")[2]
        if not preset or not head.metadata.get("source-etag"):
            return None
        try:
            source_id = uuid.UUID(head.metadata.get("source-id", ""))
        except ValueError:
            return None
        async with self._site.database.connection() as conn:
            source = await reconciliation.find_source(conn, source_id)
        if source is None:  # no row says that it was deleted: it may be all that is left of a photo
            return None
        ours = keys.artifact_key(source.bucket, source.key, preset, extension) == derived_key
        return source if ours else None

    async def _delete_orphan(self, derived_bucket: str, key: str, head: Head, source: Source) -> None:
        async with self._site.database.transaction() as conn:
            await objects.lock_key(conn, source.bucket, source.key)
            if await reconciliation.previews_under_way(conn, source):
                return
            orphaned = (
                not await reconciliation.has_current(conn, source)
                # A bucket that is away answers 404 as well.
                and await self._site.blobs.has_bucket(source.bucket, fresh=True)
                and not await self._exists(source.bucket, source.key)
            )
            if not orphaned:
                self.note("unknown_derived", "left", derived_bucket, key)
                return
            if self._site.dry_run:
                self.note("orphaned_preview", "left", derived_bucket, key)
                return
            again = await self._site.blobs.head(derived_bucket, key)
            if again.etag != head.etag or not self._site.past_grace(again.modified_at, self._now):
                return
            await failpoints.reach("sweep.before_delete")
            await self._site.blobs.delete(derived_bucket, key)
        self.note("orphaned_preview", "repaired", derived_bucket, key)

    async def _count_dangling(self, bucket: str | None, prefix: str, limit: int) -> None:
        async with self._site.database.transaction() as conn:
            for row in await multiparts.pick_dangling(conn, limit=limit):
                if bucket is None or (row.bucket == bucket and row.key.startswith(prefix)):
                    for _ in await self._find_uploads(row):
                        self.note("dangling_upload", "left", row.bucket, row.key)

    async def _find_uploads(self, row: multiparts.Dangling) -> list[OpenUpload]:
        """The uploads that were begun for this row: under its key, right after it was made."""
        try:
            found, _ = await self._site.blobs.list_uploads(row.bucket, prefix=row.key)
        except NoSuchBucket:
            return []
        earliest, latest = row.created_at - _ROW_AFTER_UPLOAD, row.created_at + _ROW_BEFORE_UPLOAD
        return [item for item in found if item.key == row.key and earliest <= item.begun_at <= latest]
