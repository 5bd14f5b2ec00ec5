"""The HTTP server under the S3 door. What is not HTTP gets an error in S3's XML as well, and one short line in the log:
it must neither confuse a client that reads XML only, nor write a stranger's bytes into the log. And whoever takes
nothing of an answer is not waited for without end: there is room for so many requests.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from gateway.door import answers
from gateway.door.connection import read_taken_bytes, reset
from gateway.s3.errors import S3Error

log = structlog.get_logger(__name__)


class Server(web.Server):
    """aiohttp's, but for the errors that it finds before there is a request, and for clients that do not read."""

    def __init__(self, handler: Any, *, stall_seconds: float, **more: Any) -> None:
        super().__init__(handler, **more)
        self._stall_seconds = stall_seconds

    def __call__(self) -> RequestHandler:
        return _Protocol(self, self._stall_seconds, loop=self._loop, **self._kwargs)


class _Protocol(RequestHandler):
    def __init__(self, server: Server, stall_seconds: float, **more: Any) -> None:
        super().__init__(server, **more)
        self._stall_seconds = stall_seconds
        self._next_look: asyncio.TimerHandle

    async def drain(self) -> None:
        """Until the client has taken enough of what was written."""
        if self.transport is not None and self._paused:
            await self._drain_helper()

    def expect(self) -> None:
        """From now on the client has to take something, until `relax`."""
        self._look_later()

    def relax(self) -> None:
        self._next_look.cancel()

    async def _drain_helper(self) -> None:
        """What every writer waits in, with TLS or without, while the client has much to take."""
        self.expect()
        try:
            await super()._drain_helper()
        finally:
            self.relax()

    def _look_later(self) -> None:
        taken = read_taken_bytes(self.transport) if self.transport is not None else None
        self._next_look = self._loop.call_later(self._stall_seconds, self._look, taken)

    def _look(self, taken_before: int | None) -> None:
        """The kernel holds megabytes: that it has no room for more does not tell that the client takes nothing."""
        if self.transport is None:
            return
        if taken_before is not None and read_taken_bytes(self.transport) != taken_before:
            self._look_later()
            return
        log.info("answer.not_taken", message="A client took nothing of its answer for too long; it is cut off.")
        reset(self.transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status != 400:  # the door itself has failed; that must be told in full
            return super().handle_error(request, status, exc, message)
        log.info("request.malformed", message="What came was not HTTP.", kind=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        error = S3Error("RequestHeaderSectionTooLarge" if isinstance(exc, LineTooLong) else "BadRequest")
        response = answers.make_error(error, None, secrets.token_hex(8))
        response.force_close()
        return response
