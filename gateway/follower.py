"""Reads the events once for all streams of a process, while there are any, and remembers the latest.

Woken by NOTIFY, and looks by itself every second. A stream keeps nothing but its place, so a slow one costs no memory;
one that lags behind what is remembered reads Postgres for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice

import structlog

from gateway.errors import Problem
from storage import events
from storage.database import Database, DatabaseUnavailable
from storage.events import Event, Line

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
_REMEMBERED = 1000
_PAGE = 200


class Follower:
    """The events as one process hears of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._awake = asyncio.Event()
        self._news = asyncio.Condition()
        self._recent: deque[Event] = deque(maxlen=_REMEMBERED)
        self._seq: int | None = None  # heard up to here; None: nobody follows, or Postgres was not reached yet
        self._streams: Counter[str] = Counter()  # by access key
        self.closing = False

    @property
    def streams(self) -> int:
        return self._streams.total()

    def wake(self) -> None:
        """There may be news."""
        self._awake.set()

    async def close(self) -> None:
        """End every stream: the process stops."""
        self.closing = True
        async with self._news:
            self._news.notify_all()

    @contextlib.contextmanager
    def join(self, access_key: str, *, most: int, most_per_key: int) -> Iterator[None]:
        """Count a stream while it is open. Raises Problem too_many_streams."""
        if self.closing or self.streams >= most or self._streams[access_key] >= most_per_key:
            raise Problem(
                "too_many_streams",
                f"A gateway holds {most} streams open, {most_per_key} of them for one key. Close one, or come again.",
                headers={"Retry-After": "5"},
            )
        self._streams[access_key] += 1
        self.wake()
        try:
            yield
        finally:
            self._streams[access_key] -= 1
            self._streams += Counter()  # drops keys that are at zero

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if self.streams else None):
                    await self._awake.wait()
            self._awake.clear()
            try:
                await self._look()
            except DatabaseUnavailable:
                pass
            except Exception:
                log.exception("events.unread", message="Events could not be read; the next turn follows.")

    async def wait(self, after_seq: int, *, seconds: float) -> bool:
        """Until there is something after a place, or for that long. False where there is not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: self.closing or self._knows_more(after_seq))
        return self._knows_more(after_seq)

    async def read(self, after_seq: int) -> list[Event]:
        """What comes after a place, a page at most. Raises DatabaseUnavailable."""
        if self._recent and self._recent[0].seq <= after_seq + 1:
            start = after_seq + 1 - self._recent[0].seq  # places have no gaps
            return list(islice(self._recent, start, start + _PAGE))
        async with self._database.connection() as conn:
            return await events.read(conn, after_seq=after_seq, limit=_PAGE)

    async def find_line(self) -> Line:
        """How far the events go. Raises DatabaseUnavailable."""
        async with self._database.connection() as conn:
            return await events.find_line(conn)

    def _knows_more(self, after_seq: int) -> bool:
        return self._seq is not None and self._seq > after_seq

    async def _look(self) -> None:
        if not self.streams:
            self._seq = None
            self._recent.clear()
            return
        if self._seq is None:
            self._seq = (await self.find_line()).last_seq
        async with self._database.connection() as conn:
            found = await events.read(conn, after_seq=self._seq, limit=_REMEMBERED)
        if found:
            self._recent.extend(found)
            self._seq = found[-1].seq
        if len(found) == _REMEMBERED:
            self.wake()
        async with self._news:
            self._news.notify_all()
