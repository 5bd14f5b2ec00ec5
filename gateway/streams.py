"""GET /v1/events: what happens, as server-sent events, in order and without gaps.

A stream goes on where its client was (Last-Event-ID), says when that is no longer possible, and ends when its key no
longer opens or its client takes nothing for a while. Redis is not needed. Reading is the follower's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from aiohttp import web

from gateway.errors import Problem
from gateway.follower import LOOK_SECONDS
from gateway.reach import Reach
from gateway.routing import Call
from storage import events
from storage.database import DatabaseUnavailable
from storage.events import Event, Line

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 15.0
RESET = "stream.reset"
_STALLED_SECONDS = 10.0
_RECONNECT_MS = 2000
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # proxies would hold events back
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which events a stream shows."""

    types: frozenset[str]  # none: all
    bucket: str | None
    prefix: str
    reach: Reach

    def covers(self, event: Event) -> bool:
        return (
            (not self.types or event.type in self.types)
            and (self.bucket is None or event.bucket == self.bucket)
            and event.key.startswith(self.prefix)
            and self.reach.covers(event.bucket, event.key)
        )


async def stream_events(call: Call) -> web.StreamResponse:
    context, query, principal = call.context, call.query, call.principal
    assert principal is not None
    wanted = Wanted(
        types=frozenset(query["types"] or ()), bucket=query["bucket"], prefix=query["prefix"], reach=principal.reach
    )
    with context.follower.join(
        principal.access_key, most=context.settings.max_streams, most_per_key=context.settings.max_streams_per_key
    ):
        after_seq, missed = _begin(call, await context.follower.find_line())
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(call.request)
        if call.request.method == "HEAD":
            return response
        stream = Stream(call, response)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await stream.send(f"retry: {_RECONNECT_MS}\n: events of Safelight\n\n")
            if missed:
                await stream.send(_show_reset(after_seq))
            await stream.follow(after_seq, wanted)
    return response


class Stream:
    """One open answer."""

    def __init__(self, call: Call, response: web.StreamResponse) -> None:
        self._call = call
        self._response = response
        self._spoke_at = time.monotonic()

    async def follow(self, after_seq: int, wanted: Wanted) -> None:
        """Send what is wanted as it happens, until there is a reason to stop. Raises ConnectionError or TimeoutError
        where the client is gone or takes nothing."""
        follower = self._call.context.follower
        while not follower.closing and not self._is_abandoned():
            if time.monotonic() - self._spoke_at >= HEARTBEAT_SECONDS:
                if not await self._still_opens():
                    return
                # The place goes along: what was passed over need not be read again after a break, nor be kept for it.
                await self.send(f": still here\nid: {events.write_id(after_seq)}\n\n")
            if not await follower.wait(after_seq, seconds=LOOK_SECONDS):
                continue
            try:
                page = await follower.read(after_seq)
            except DatabaseUnavailable:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            after_seq = page[-1].seq if page else after_seq
            text = "".join(_show(event) for event in page if wanted.covers(event))
            if text:
                await self.send(text)

    async def send(self, text: str) -> None:
        transport = self._call.request.transport
        try:
            async with asyncio.timeout(_STALLED_SECONDS):
                await self._response.write(text.encode())
        except TimeoutError:
            log.info("stream.cut_off", message="A client took no events for a while.", seconds=_STALLED_SECONDS)
            if transport is not None:
                transport.abort()
            raise
        self._spoke_at = time.monotonic()

    def _is_abandoned(self) -> bool:
        transport = self._call.request.transport
        return transport is None or transport.is_closing()

    async def _still_opens(self) -> bool:
        """Whether who listens would be let in again, with the same places."""
        try:
            principal = await self._call.context.sessions.admit(self._call.request, "read")
        except DatabaseUnavailable:
            return True
        except Problem:
            return False
        return principal.reach == self._call.reach


def _begin(call: Call, line: Line) -> tuple[int, bool]:
    """The place to begin after, and whether events before it were missed. Raises Problem events_gone where the client
    named a place itself; a browser that reconnects cannot read such an answer, so its stream says it instead."""
    asked: int | None = call.query["after"]
    resumed = call.request.headers.get("Last-Event-ID")
    if resumed is not None:
        try:
            asked = events.read_id(resumed)
        except ValueError:
            return line.last_seq, True
    if asked is None:
        return line.last_seq, False
    if line.pruned_seq <= asked <= line.last_seq:
        return asked, False
    if resumed is None:
        raise Problem(
            "events_gone",
            "What followed that event is no longer kept. List the photos anew, and follow without `after`.",
            oldest=events.write_id(line.pruned_seq),
            newest=events.write_id(line.last_seq),
        )
    return line.pruned_seq if asked < line.pruned_seq else line.last_seq, True


def _show(event: Event) -> str:
    return _write(event.id, event.type, event.body)


def _show_reset(after_seq: int) -> str:
    event_id, now = events.write_id(after_seq), datetime.now(UTC).isoformat().replace("+00:00", "Z")
    detail = "Events were missed: they are no longer kept, or were another database's. List the photos anew."
    return _write(event_id, RESET, {"id": event_id, "type": RESET, "timestamp": now, "data": {"detail": detail}})


def _write(event_id: str, kind: str, body: dict[str, object]) -> str:
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
