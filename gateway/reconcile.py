"""Compares Postgres with the storage, a window of keys at a time, and repairs what it finds (gateway.repairs).

A pass over a bucket is a row of phases; where it stands is kept in Postgres after each window, so a crash costs one
window, and memory stays flat over any number of keys. Storages list in orders of their own, therefore a listing is
never merged with rows: each side is looked up in the other, and what seems absent is asked for by name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import structlog

from gateway.events.fields import is_storable
from gateway.findings import Tally
from gateway.repairs import Repairs, Site
from storage import failpoints, reconciliation
from storage.blobs import BlobRefused, BlobsDenied, BlobsUnavailable, Listed, NoSuchBucket
from storage.database import Connection, DatabaseUnavailable
from storage.denials import refuses_all
from storage.reconciliation import Place

log = structlog.get_logger(__name__)
T = TypeVar("T")
R = TypeVar("R")

UNAVAILABLE: Final = (BlobsUnavailable, BlobRefused, NoSuchBucket, DatabaseUnavailable)
_SOURCE_PHASES: Final = ("objects", "photos", "previews", "uploads")
_DERIVED_PHASES: Final = ("derived", "uploads", "jobs")
_AT_ONCE = 4  # requests to the storage, and with them connections to Postgres
_PAGES = 2  # of a listing that are read to find one window of rows
_APART = "\n"  # between key and upload id in a cursor


@dataclass(frozen=True, kw_only=True)
class Part:
    """A bucket, or what lies in it under a prefix."""

    bucket: str
    prefix: str = ""
    derived: bool = False

    @property
    def phases(self) -> tuple[str, ...]:
        return _DERIVED_PHASES if self.derived else _SOURCE_PHASES


Watch = Callable[[Part, Place], None]


async def list_parts(site: Site, *, bucket: str | None = None, prefix: str = "") -> list[Part]:
    """What there is to go through: one bucket of photos or all that are known, then their previews."""
    derived = site.storage.derived_bucket
    if bucket is not None:
        return [Part(bucket=bucket, prefix=prefix), Part(bucket=derived, prefix=f"{bucket}/{prefix}", derived=True)]
    async with site.database.connection() as conn:
        buckets = await _list_ours(site, conn)
    if site.looks_everywhere:
        buckets |= set(await site.blobs.list_buckets())
    buckets -= {derived, site.storage.quarantine_bucket}
    return [*(Part(bucket=name) for name in sorted(buckets)), Part(bucket=derived, derived=True)]


async def _list_ours(site: Site, conn: Connection) -> set[str]:
    """The buckets of photos that are ours to go through, whatever else the storage has."""
    return {*await reconciliation.list_buckets(conn), site.storage.default_bucket, *site.named_buckets}


async def run_pass(site: Site, part: Part, *, restart: bool, watch: Watch) -> Place | None:
    """Finish the pass that was interrupted, or make a new one; its place at the end, with all findings. None: somebody
    else is at it. A dry run keeps nothing in Postgres and begins at the beginning. Raises UNAVAILABLE."""
    if site.dry_run:
        place = _first_place(part)
        while not place.finished:
            place = await _take_window(site, part, place, Tally())
            watch(part, place)
        return place
    async with reconciliation.hold(site.database, part.bucket) as conn:
        if conn is None:
            return None
        place = await _find_place(conn, "command", part, restart=restart)
        while not place.finished:
            watch(part, place)
            place = await _take_window(site, part, place, Tally())
            await reconciliation.save_place(conn, "command", part.bucket, part.prefix, place)
            await failpoints.reach("reconcile.window_saved")
        watch(part, place)
        return place


@contextlib.asynccontextmanager
async def reconciling(site: Site, count: Callable[[Tally], None], took_turn: Callable[[], None]) -> AsyncIterator[None]:
    """Reconcile while the block runs, unless the settings say not to."""
    if not site.settings.reconcile_interval_seconds:
        yield
        return
    task = asyncio.create_task(keep_reconciling(site, count, took_turn))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def keep_reconciling(
    site: Site, count: Callable[[Tally], None], took_turn: Callable[[], None] = lambda: None
) -> None:
    """The continuous form: a window now and then, until cancelled. One gateway at a time works on a bucket; an outage
    skips a turn. `count` is told what each turn found, `took_turn` of each that came to its end."""
    while True:
        await asyncio.sleep(site.settings.reconcile_interval_seconds)
        tally = Tally()
        try:
            await take_turn(site, tally)
            took_turn()
        except UNAVAILABLE as error:
            log.debug("reconcile.skipped", message="Something needed is away.", error=repr(error))
        except Exception:
            log.exception("reconcile.failed", message="A turn of reconciling failed; the next one follows.")
        finally:
            count(tally)


async def take_turn(site: Site, tally: Tally) -> None:
    """Abort what dead gateways left, then look at one window of the first bucket that is due, free, and lets us in.
    Raises UNAVAILABLE, also where nothing was left to do but in a bucket that does not."""
    async with site.database.connection() as conn:
        now = await reconciliation.ask_time(conn)
    await Repairs(site, tally, now).abort_dangling()
    refusal: Exception | None = None
    for part in await list_parts(site):
        try:
            if await _take_due_window(site, part, tally):
                return
        except (BlobsDenied, BlobRefused) as error:
            if await refuses_all(site.blobs, part.bucket):
                raise
            log.warning("reconcile.refused", message="A bucket is closed to us.", bucket=part.bucket, error=repr(error))
            refusal = error
    if refusal is not None:
        raise refusal


async def _take_due_window(site: Site, part: Part, tally: Tally) -> bool:
    async with reconciliation.hold(site.database, part.bucket) as conn:
        if conn is None:
            return False
        place = await reconciliation.find_place(conn, "gateway", part.bucket, part.prefix)
        if place and place.finished and place.age_seconds < site.settings.reconcile_pass_seconds:
            return False
        place = await _find_place(conn, "gateway", part, restart=False)
        place = await _take_window(site, part, place, tally)
        await reconciliation.save_place(conn, "gateway", part.bucket, part.prefix, place)
    if place.finished:
        log.info(
            "reconcile.pass_done",
            message="A bucket was compared with Postgres.",
            bucket=part.bucket,
            keys=place.keys,
            findings=place.findings,
        )
    return True


async def _find_place(conn: Connection, runner: str, part: Part, *, restart: bool) -> Place:
    place = await reconciliation.find_place(conn, runner, part.bucket, part.prefix)
    if place is not None and not place.finished and not restart:
        return place
    place = _first_place(part)
    await reconciliation.start_pass(conn, runner, part.bucket, part.prefix, phase=place.phase)
    return place


def _first_place(part: Part) -> Place:
    return Place(phase=part.phases[0], cursor="", keys=0, findings={}, finished=False, age_seconds=0)


async def _take_window(site: Site, part: Part, place: Place, tally: Tally) -> Place:
    """Look at one window, and say where to go on. What is found is added to `tally` and to the place."""
    window = _Window(site, part)
    try:
        cursor, looked_at = await window.take(place)
    finally:
        tally.add(window.tally.counts)
    so_far = Tally()
    so_far.add(place.findings)
    so_far.add(window.tally.counts)
    place = replace(place, keys=place.keys + looked_at, findings=so_far.counts)
    if cursor is not None:
        return replace(place, cursor=cursor)
    later = part.phases[part.phases.index(place.phase) + 1 :] if not window.hopeless else ()
    return replace(place, phase=later[0], cursor="") if later else replace(place, finished=True)


class _Window:
    """One window of one phase. Each phase returns the next cursor, None at its end, and how many keys it looked at."""

    def __init__(self, site: Site, part: Part) -> None:
        self._site = site
        self._part = part
        self._limit = site.settings.reconcile_window_keys
        self._derived = site.storage.derived_bucket
        self.tally = Tally()
        self.hopeless = False  # there is no use in further phases

    async def take(self, place: Place) -> tuple[str | None, int]:
        async with self._site.database.connection() as conn:
            self._repairs = Repairs(self._site, self.tally, await reconciliation.ask_time(conn))
            known = self._part.derived or self._part.bucket in await reconciliation.list_buckets(conn)
            is_ours = known or self._part.bucket in await _list_ours(self._site, conn)
        try:
            return await self._look(place, known=known)
        except (BlobsDenied, BlobRefused):
            if is_ours or await refuses_all(self._site.blobs, self._part.bucket):
                raise
            self.hopeless = True  # somebody else's, on the same storage
            return None, 0

    async def _look(self, place: Place, *, known: bool) -> tuple[str | None, int]:
        if not await self._site.blobs.has_bucket(self._part.bucket, fresh=True):
            self.hopeless = True
            if known:
                self._repairs.note("bucket_missing", "left", self._part.bucket, "")
            return None, 0
        phase = {
            "objects": self._objects,
            "photos": self._photos,
            "previews": self._previews,
            "derived": self._derived_objects,
            "uploads": self._uploads,
            "jobs": self._jobs,
        }[place.phase]
        return await phase(place.cursor)

    async def _objects(self, after: str) -> tuple[str | None, int]:
        """Every object of the bucket should be a current row with that etag."""
        bucket = self._part.bucket
        page, more = await self._list(bucket, self._part.prefix, after)
        async with self._site.database.connection() as conn:
            known = await reconciliation.find_current(conn, bucket, _usable(item.key for item in page))
        await _each(page, lambda item: self._repairs.check_object(bucket, item, known.get(item.key)))
        return page[-1].key if more else None, len(page)

    async def _photos(self, after: str) -> tuple[str | None, int]:
        """Every current row should have its original, its jobs and the wanted previews."""
        bucket = self._part.bucket
        async with self._site.database.connection() as conn:
            rows = await reconciliation.list_photos(
                conn,
                bucket,
                prefix=self._part.prefix,
                after=after,
                limit=self._limit,
                grace_seconds=self._site.settings.reconcile_grace_seconds,
            )
        seen = await self._see(bucket, self._part.prefix, after, {row.key for row in rows})
        unseen = [row for row in rows if row.key not in seen]
        gone = await _each(unseen, lambda row: self._repairs.is_lost(bucket, row))
        lost = [row for row, is_gone in zip(unseen, gone, strict=True) if is_gone]
        await _each(lost, lambda row: self._repairs.settle_lost(bucket, row))
        gone_ids = {row.id for row in lost}
        there = [row for row in rows if row.id not in gone_ids]
        for row in there:
            if self._site.lacks_jobs(bucket, row):
                self._repairs.note("job_missing", "left", bucket, row.key, photo_id=row.id)
        outdated = [row for row in there if self._site.is_outdated(bucket, row)]
        await _each(outdated, lambda row: self._repairs.remake("preview_outdated", row.id, bucket, row.key))
        return rows[-1].key if len(rows) == self._limit else None, len(rows)

    async def _previews(self, after: str) -> tuple[str | None, int]:
        """Every preview of a current photo should be the object that was made."""
        prefix = f"{self._part.bucket}/{self._part.prefix}"
        async with self._site.database.connection() as conn:
            rows = await reconciliation.list_previews(
                conn, self._derived, prefix=prefix, after=after, limit=self._limit
            )
        if rows and not await self._site.blobs.has_bucket(self._derived, fresh=True):
            return None, 0  # the pass over the bucket of previews reports it
        seen = await self._see(self._derived, prefix, after, {row.key for row in rows})
        odd = [row for row in rows if seen.get(row.key) != row.etag]
        await _each(odd, lambda row: self._repairs.check_preview(self._part.bucket, self._derived, row))
        return rows[-1].key if len(rows) == self._limit else None, len(rows)

    async def _derived_objects(self, after: str) -> tuple[str | None, int]:
        """Every derived object should belong to something."""
        page, more = await self._list(self._derived, self._part.prefix, after)
        async with self._site.database.connection() as conn:
            named = await reconciliation.find_named(conn, self._derived, _usable(item.key for item in page))
        nameless = [item for item in page if item.key not in named]
        await _each(nameless, lambda item: self._repairs.check_derived(self._derived, item))
        return page[-1].key if more else None, len(page)

    async def _uploads(self, after: str) -> tuple[str | None, int]:
        """No multipart upload should stay open for long."""
        bucket, prefix = self._part.bucket, self._part.prefix
        if not after:
            await self._repairs.abort_dangling(bucket=bucket, prefix=prefix, limit=1000)
        key, _, upload_id = after.rpartition(_APART)
        page, more = await self._site.blobs.list_uploads(
            bucket, prefix=prefix, after=(key, upload_id), limit=self._limit
        )
        async with self._site.database.connection() as conn:
            ours = await reconciliation.find_uploads_of_ours(conn, bucket, _usable(item.key for item in page))
        foreign = [item for item in page if item.key not in ours]
        await _each(foreign, lambda item: self._repairs.check_foreign_upload(bucket, item))
        cursor = f"{page[-1].key}{_APART}{page[-1].upload_id}" if more else None
        return None if cursor == after else cursor, len(page)

    async def _jobs(self, _after: str) -> tuple[str | None, int]:
        """No job should be stuck. The dispatchers repair that; here it is only counted."""
        async with self._site.database.connection() as conn:
            stuck = await reconciliation.count_stuck(conn, redispatch_seconds=self._site.jobs.redispatch_seconds)
        for finding, jobs in stuck.items():
            self.tally.note(finding, "left", jobs)
        return None, 0

    async def _list(self, bucket: str, prefix: str, after: str) -> tuple[list[Listed], bool]:
        return await self._site.blobs.list_page(bucket, prefix=prefix, after=after, limit=self._limit)

    async def _see(self, bucket: str, prefix: str, after: str, wanted: set[str]) -> dict[str, str]:
        """Key -> etag of those wanted keys that a few pages of the listing show."""
        seen: dict[str, str] = {}
        for _ in range(_PAGES):
            if len(seen) == len(wanted):
                break
            page, more = await self._list(bucket, prefix, after)
            seen |= {item.key: item.etag for item in page if item.key in wanted}
            if not more:
                break
            after = page[-1].key
        return seen


def _usable(found: Iterable[str]) -> list[str]:
    """Those keys that Postgres can be asked about: what our doors take is not asked here, the storage has them."""
    return [key for key in found if is_storable(key)]


async def _each(items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """Run `work` for each, a few at a time. All of them are tried before the first error is raised."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def run(item: T) -> R:
        async with slots:
            return await work(item)

    results = await asyncio.gather(*(run(item) for item in items), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
