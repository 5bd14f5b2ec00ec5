"""One job, all its I/O on one screen: claim -> fetch -> sandbox -> put artifacts -> finish.

The pure work happens in a child process (processors.sandbox). An error leaves here as JobFailed, for RetryMiddleware.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from processors import registry
from processors.contract import Artifact, Incomplete, Outcome, Processor, Source, Unprocessable
from processors.retry import Corrupted, JobFailed, PreviewsHomeless, traced
from processors.sandbox.pool import Sandbox
from processors.settings import JobSettings
from storage import failpoints, jobs, keys, objects
from storage.blobs import LOCKED_SECONDS, BlobChanged, Blobs, BlobsUnavailable, NoSuchBlob, NoSuchBucket
from storage.database import Connection, Database, DatabaseUnavailable
from storage.facts import StoredArtifact
from storage.garbage import Garbage
from storage.jobs import Claim, Fenced
from storage.objects import Plan, StoredObject

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Held:
    """A claim under way in this process."""

    claim: Claim
    task: asyncio.Task[object] = field(repr=False)
    lost: bool = False  # somebody else has it by now


class Runner:
    """Runs jobs for one worker, and knows which it runs."""

    def __init__(
        self,
        settings: JobSettings,
        *,
        worker_id: str,
        database: Database,
        blobs: Blobs,
        sandbox: Sandbox,
        derived_bucket: str,
    ) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._database = database
        self._blobs = blobs
        self._sandbox = sandbox
        self._derived_bucket = derived_bucket
        self._known = {processor.name: processor.version for processor in registry.available()}
        self.held: dict[int, Held] = {}

    async def run_job(self, job_id: int) -> None:
        """The taskiq task. Does nothing where the job is not ours to take. Raises JobFailed."""
        try:
            async with self._database.connection() as conn:
                claim = await jobs.claim(
                    conn,
                    job_id,
                    worker=self._worker_id,
                    lease_seconds=self._settings.lease_seconds,
                    known=self._known,
                )
        except DatabaseUnavailable:
            return  # the nudge is lost, the job is not
        if claim is None:
            return
        with traced(claim):
            await self._run_claimed(claim)

    async def _run_claimed(self, claim: Claim) -> None:
        ids = {
            "job_id": claim.job_id,
            "photo_id": str(claim.object_id),
            "processor": claim.processor,
            "attempt": claim.attempt,
        }
        log.info("job.started", message="A worker took the job.", waited_seconds=round(claim.waited_seconds, 3), **ids)
        with self._holding(claim) as held:
            try:
                await failpoints.reach("claim.after")
                outcome = await self._run(claim)
            except Fenced:
                log.info("job.fenced", message="A late result was thrown away.", token=claim.token, **ids)
            except BaseException as error:
                if held.lost:
                    log.info("job.lost", message="The lease was lost; the run was stopped.", **ids)
                    return
                raise JobFailed(claim) from error
            else:
                log.info("job.done", message="The job is done.", outcome=outcome, **ids)

    async def find_due(self) -> list[int]:
        """Due jobs, for when Redis is silent."""
        try:
            async with self._database.connection() as conn:
                return await jobs.list_due(conn, known=self._known, limit=self._settings.worker_slots)
        except DatabaseUnavailable:
            return []

    async def beat(self) -> None:
        """Renew the leases of everything held; stop what was lost."""
        held = list(self.held.values())
        if not held:
            return
        await failpoints.reach("beat.before")
        async with self._database.connection() as conn:
            ours = await jobs.beat(conn, [item.claim for item in held], lease_seconds=self._settings.lease_seconds)
        for item in held:
            if item.claim.job_id not in ours and self.held.get(item.claim.job_id) is item:
                item.lost = True
                item.task.cancel()

    async def release_all(self) -> None:
        """Stop everything under way; the jobs are ready again at once."""
        tasks = [item.task for item in self.held.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    @contextlib.contextmanager
    def _holding(self, claim: Claim) -> Iterator[Held]:
        task = asyncio.current_task()
        assert task is not None
        held = Held(claim=claim, task=task)
        self.held[claim.job_id] = held
        try:
            yield held
        finally:
            if self.held.get(claim.job_id) is held:
                del self.held[claim.job_id]

    async def _run(self, claim: Claim) -> str:
        processor = registry.get(claim.processor)
        if not claim.current:
            return await self._supersede(claim)
        try:
            outcome = await self._process(processor, claim)
        except BlobChanged:
            return await self._supersede(claim)
        artifacts = await self._put_all(claim, outcome.artifacts)

        async def finish(conn: Connection) -> str:
            ended = await jobs.finish(
                conn, claim, version=processor.version, artifacts=artifacts, derived=outcome.facts
            )
            await failpoints.reach("finish.before_commit")
            return ended

        ended = await self._database.persist(finish, for_seconds=self._settings.lease_seconds)
        await failpoints.reach("finish.after_commit")
        return ended

    async def _process(self, processor: Processor, claim: Claim) -> Outcome:
        if claim.size_bytes > self._settings.max_photo_bytes:
            most = f"{self._settings.max_photo_bytes} are allowed (SAFELIGHT_MAX_PHOTO_BYTES)"
            raise Unprocessable("too_large", f"It has {claim.size_bytes} bytes; {most}.")
        if processor.reads == "head" and claim.size_bytes > self._settings.head_bytes:
            head = await self._blobs.read(
                claim.bucket, claim.key, etag=claim.etag, first_bytes=self._settings.head_bytes
            )
            source = Source(data=head, size_bytes=claim.size_bytes, complete=False)
            with contextlib.suppress(Incomplete):
                return await self._decode(processor, source, claim)
        data = await self._blobs.read(claim.bucket, claim.key, etag=claim.etag)
        await _verify(data, claim)
        return await self._decode(processor, Source(data=data, size_bytes=len(data)), claim)

    async def _decode(self, processor: Processor, source: Source, claim: Claim) -> Outcome:
        await failpoints.reach("read.after")
        options = self._settings.options_for(claim.bucket, claim.key)
        running = asyncio.create_task(self._sandbox.run(processor.name, source, options))
        try:
            await asyncio.sleep(0)  # the child has the photo, or is about to
            await failpoints.reach("child.running")
            return await running
        finally:
            running.cancel()

    async def _put_all(self, claim: Claim, artifacts: Sequence[Artifact]) -> list[StoredArtifact]:
        puts = [asyncio.create_task(self._put(claim, artifact)) for artifact in artifacts]
        try:
            return await asyncio.gather(*puts)
        finally:
            for put in puts:
                put.cancel()

    async def _put(self, claim: Claim, artifact: Artifact) -> StoredArtifact:
        key = keys.artifact_key(claim.bucket, claim.key, artifact.preset, artifact.extension)
        await failpoints.reach("artifact.put_before")
        try:
            written = await self._blobs.put(
                self._derived_bucket,
                key,
                artifact.data,
                content_type=artifact.content_type,
                metadata={
                    "source-etag": claim.etag,
                    "source-id": str(claim.object_id),
                    "preset": artifact.preset,
                    "preset-version": artifact.preset_version,
                },
            )
        except NoSuchBucket:
            raise PreviewsHomeless(self._derived_bucket) from None
        await failpoints.reach("artifact.put_after")
        return StoredArtifact(
            preset=artifact.preset,
            preset_version=artifact.preset_version,
            bucket=self._derived_bucket,
            key=key,
            etag=written.etag,
            sha256=written.sha256,
            size_bytes=written.size_bytes,
            content_type=artifact.content_type,
            width_px=artifact.width_px,
            height_px=artifact.height_px,
        )

    async def _supersede(self, claim: Claim) -> str:
        """Other bytes lie under the key than this job was made for. Whatever lies there now gets its jobs, watched or
        not (it may be there without a row, when two writers of one key finished in another order than they were
        recorded)."""
        plans = [
            Plan(processor=item.name, version=item.version, max_attempts=self._settings.max_attempts)
            for item in self._settings.processors_for(claim.bucket, claim.key, asked_for=True)
        ]
        async with self._database.transaction() as conn:
            await objects.lock_key(conn, claim.bucket, claim.key)  # what is found must still be so when it is recorded
            try:
                head = await self._blobs.head(claim.bucket, claim.key, within_seconds=LOCKED_SECONDS)
            except NoSuchBlob:
                if claim.current:
                    raise
                await jobs.supersede(conn, claim, leftovers=self._leftovers(claim))
                return "superseded"
            if claim.current and head.etag == claim.etag:
                raise BlobsUnavailable("the storage contradicts itself")
            found = StoredObject(
                id=keys.new_id(datetime.now(UTC)),
                bucket=claim.bucket,
                key=claim.key,
                etag=head.etag,
                version_id=head.version_id,
                size_bytes=head.size_bytes,
                content_type=head.content_type,
            )
            await objects.record(conn, found, plans)
            await jobs.supersede(conn, claim)
        return "superseded"

    def _leftovers(self, claim: Claim) -> list[Garbage]:
        """The previews that an earlier run of this job may have put before its worker died."""
        if claim.runs == 1:
            return []
        return [
            Garbage(
                bucket=self._derived_bucket,
                key=keys.artifact_key(claim.bucket, claim.key, preset.name, preset.extension),
            )
            for preset in self._settings.presets
        ]


async def _verify(data: bytes, claim: Claim) -> None:
    if claim.sha256 is None:
        return
    digest = await asyncio.to_thread(hashlib.sha256, data)
    if not hmac.compare_digest(digest.digest(), claim.sha256):
        raise Corrupted
    if len(data) != claim.size_bytes:
        raise BlobsUnavailable("the storage's answer was cut short")
