"""The HTTP server under the S3 door. What is not HTTP gets an error in S3's XML as well, and one short line in the log:
it must neither confuse a client that reads XML only, nor write a stranger's bytes into the log.
"""

from __future__ import annotations

import secrets

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from gateway.door import answers
from gateway.s3.errors import S3Error

log = structlog.get_logger(__name__)


class Server(web.Server):
    """aiohttp's, but for the errors that it finds before there is a request."""

    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(RequestHandler):
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
