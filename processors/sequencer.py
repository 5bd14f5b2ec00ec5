"""Gives events their places, so that others can hear of them. Runs in every gateway and every worker: one row's lock
lets one at a time do it, so there is no leader to lose, and a frozen one loses the lock with its transaction.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from storage import events, failpoints
from storage.database import Database, DatabaseUnavailable

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
_BUSY_SECONDS = 0.05  # another is at it, who may not have seen what we were woken for
_GATHER_SECONDS = 0.01  # what comes at once is placed at once
_BATCH = 200  # with a hundred webhooks that is 20,000 deliveries in one statement


class Sequencer:
    """The loop of one process. `wake` makes it look at once; a wake that is lost costs a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._awake = asyncio.Event()

    def wake(self) -> None:
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause_seconds = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self._awake.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._awake.clear()
            try:
                pause_seconds = await self._turn()
            except DatabaseUnavailable:
                pause_seconds = _LOOK_SECONDS
            except Exception:  # without this loop nobody hears of anything: nothing may end it
                log.exception("events.unplaced", message="Events could not be given places; the next turn follows.")
                pause_seconds = _LOOK_SECONDS

    async def _turn(self) -> float:
        """Seconds until the next one, unless woken."""
        async with self._database.connection() as conn:
            if not await events.any_waiting(conn):
                return _LOOK_SECONDS
        async with self._database.transaction() as conn:
            given = await events.sequence(conn, limit=_BATCH)
            await failpoints.reach("sequence.before_commit")
        if given is None:
            return _BUSY_SECONDS
        return 0.0 if given == _BATCH else _LOOK_SECONDS
