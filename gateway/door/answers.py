"""The door's answers: the storage's, relayed as they come, and errors of our own in S3's XML."""

from __future__ import annotations

import re
from typing import cast
from xml.sax.saxutils import escape

import structlog
from aiohttp import web
from multidict import CIMultiDict

from gateway.door.backend import Answer, BackendUnavailable
from gateway.door.splicing import Taker
from gateway.s3.errors import S3Error
from gateway.s3.request import Header, RawRequest
from gateway.s3.xml import render_error

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = "2"
OWN_ID = "x-safelight-request-id"  # which our logs, the queue and the workers know a request by
STORAGE_ID = "x-amz-request-id"  # the storage's, where it has answered: its errors repeat it in their XML

# Between two neighbours only, or made anew.
_NOT_RELAYED = frozenset(
    b"connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade".split()
)
_LOCATION = re.compile(rb"<Location>[^<]*</Location>")


def make_error(error: S3Error, raw: RawRequest | None, request_id: str) -> web.Response:
    """An error of our own. HEAD gets no body."""
    headers = {STORAGE_ID: request_id, OWN_ID: request_id}
    if error.status == 503:
        headers["Retry-After"] = str(error.retry_after_seconds or RETRY_AFTER_SECONDS)
    if raw is not None and raw.method == "HEAD":
        return web.Response(status=error.status, headers=headers)
    resource = raw.path.decode("latin-1") if raw is not None else ""
    body = render_error(error, resource=resource, request_id=request_id)
    return web.Response(status=error.status, headers=headers, body=body, content_type="application/xml")


def make_head(answer: Answer, request_id: str, *, origin: tuple[str, str]) -> web.StreamResponse:
    """The head of a relayed answer. `origin`: the storage's base URL and ours, for absolute locations."""
    response = web.StreamResponse(status=answer.status, headers=_relayable(answer.headers, origin))
    response.headers.setdefault(STORAGE_ID, request_id)
    response.headers[OWN_ID] = request_id
    if answer.status == 503:
        response.headers.setdefault("Retry-After", RETRY_AFTER_SECONDS)
    return response


async def relay(request: web.BaseRequest, answer: Answer, response: web.StreamResponse) -> web.StreamResponse:
    """Send the storage's answer on, piece by piece. Once its head is out, a failure can only be told by breaking the
    connection."""
    has_body = request.method != "HEAD" and answer.status not in (204, 304)
    length = response.content_length
    if has_body and length is None:
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        if has_body and length and not request.secure:
            await answer.pour(cast("Taker", request.protocol))
            request.writer.output_size += length
        async for piece in answer.pieces():
            await response.write(piece)
        await response.write_eof()
    except BackendUnavailable as error:
        break_off(request, response, error)
    except OSError:  # the client has gone
        response.force_close()
    return response


def break_off(request: web.BaseRequest, response: web.StreamResponse, error: Exception) -> None:
    log.warning("answer.broken", message="The storage failed during an answer.", path=request.path, error=repr(error))
    response.force_close()
    if request.transport is not None:
        request.transport.abort()


def replace_location(body: bytes, url: str) -> bytes:
    """The XML of a finished upload, with our address of the object in place of the storage's."""
    return _LOCATION.sub(lambda _: f"<Location>{escape(url)}</Location>".encode(), body)


def own_address(request: web.BaseRequest, raw: RawRequest) -> str:
    """What the client believes it speaks to: scheme and host."""
    return f"{request.scheme}://{raw.host}"


def _relayable(headers: tuple[Header, ...], origin: tuple[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(
        [(name.decode("latin-1"), _text(value)) for name, value in headers if name.lower() not in _NOT_RELAYED]
    )
    location = kept.get("Location", "")
    if location.startswith(origin[0]):
        kept["Location"] = origin[1] + location[len(origin[0]) :]
    return kept


def _text(value: bytes) -> str:
    """What is not UTF-8 is taken for Latin-1, as HTTP once had it: the same characters go out as UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
