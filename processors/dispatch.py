"""Due jobs -> broker; expired leases -> due. Runs in every gateway and every worker: SKIP LOCKED and the claim make any
number of dispatchers safe, so there is no leader to lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from processors.broker import Broker
from processors.settings import JobSettings
from storage import failpoints, jobs
from storage.database import Database, DatabaseUnavailable

log = structlog.get_logger(__name__)

_BATCH = 200


class Dispatcher:
    """The loop of one process. `wake` makes it look at once, otherwise it looks every dispatch_interval_seconds."""

    def __init__(self, settings: JobSettings, database: Database, broker: Broker) -> None:
        self._settings = settings
        self._database = database
        self._broker = broker
        self._awake = asyncio.Event()
        self.succeeded_at: float | None = None  # time.time() of the last complete round
        self.sent = 0  # job ids that Redis took
        self.taken_back = 0  # jobs whose lease had run out

    def wake(self) -> None:
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._awake.clear()
            try:
                await self.reap()
                more = await self.dispatch()
                self.succeeded_at = time.time()
            except DatabaseUnavailable:
                more = False
            except Exception:  # this loop is what heals everything else: nothing may end it
                log.exception("dispatch.failed", message="A round of dispatching failed; the next one follows.")
                more = False
            if more:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.dispatch_interval_seconds):
                    await self._awake.wait()

    async def reap(self) -> int:
        """Take back the jobs of workers that fell silent. Returns how many."""
        async with self._database.transaction() as conn:
            lost = await jobs.reap(conn, max_expiries=self._settings.max_expiries)
        self.taken_back += len(lost)
        if lost:
            await failpoints.reach("reap.after")
        for job in lost:
            log.warning(
                "job.expired",
                message="A worker fell silent; its job runs again."
                if job["state"] == "ready"
                else "A job is dead: workers fell silent over it too often.",
                job_id=job["id"],
                photo_id=str(job["object_id"]),
                state=job["state"],
                **({"request_id": job["request_id"]} if job["request_id"] else {}),
            )
        return len(lost)

    async def dispatch(self) -> bool:
        """Send a batch of due jobs. True: there are probably more.

        They are marked before they are sent, so that no row stays locked while Redis is waited for; a crash in between
        costs redispatch_seconds at most."""
        async with self._database.transaction() as conn:
            due = await jobs.pick_due(conn, redispatch_seconds=self._settings.redispatch_seconds, limit=_BATCH)
            if due:
                await jobs.mark_dispatched(conn, due)
        if not due:
            return False
        await failpoints.reach("mark.after")
        sent = await self._broker.send(due)
        self.sent += len(sent)
        if len(sent) < len(due):
            async with self._database.connection() as conn:
                await jobs.unmark_dispatched(conn, due[len(sent) :])
            return False
        return len(due) == _BATCH
