"""An S3 server that lies: passes every request on to the real one, signature and all, and spoils the answers it is told
to. `async with Shim(url) as shim:` listens on `shim.url`, for `stack.start(s3_endpoint=shim.url)`.

It knows which operation a request is, which the TCP proxy cannot; it does not check signatures, the real server does.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import aiohttp
from aiohttp import web
from yarl import URL

from safelight.embedded.folder import LOCALHOST, choose_port

Act = Literal["answer", "delay", "cut", "flip", "etag", "lie", "hold"]
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "date", "server"}
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>As told.</Message></Error>'
_OPERATIONS = {
    ("GET", False): "ListObjectsV2", ("HEAD", False): "HeadBucket", ("PUT", False): "CreateBucket",
    ("GET", True): "GetObject", ("HEAD", True): "HeadObject", ("PUT", True): "PutObject",
    ("DELETE", True): "DeleteObject",
}  # fmt: skip
_ETAG = re.compile(rb"(ETag>(?:&#34;|&quot;|\")?)([0-9a-f]+)")


@dataclass(frozen=True, kw_only=True)
class Spoil:
    """What is done to requests. `delay`: they are passed on so many seconds late. Instead of passing them on: `answer`
    (status and S3 code), `lie` (200 with an <Error> for a body). After the real server has done what it was asked:
    `cut` the answer off, `flip` one bit of its body, change its `etag`, `hold` it back until `heal`."""

    act: Act
    operations: tuple[str, ...] = ()  # none: any
    within: str = ""  # what the path must hold
    status: int = 500
    code: str = "InternalError"
    seconds: float = 0
    times: int | None = None  # None: always


class Shim:
    def __init__(self, upstream: str) -> None:
        self._upstream = URL(upstream)
        self._port = choose_port()
        self._spoil: Spoil | None = None
        self._healed = asyncio.Event()
        self.fired = 0  # times the spoil acted since it was set
        self.held = 0  # answers held back now
        self.seen: Counter[str] = Counter()  # operations, over the shim's life

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self._port}"

    async def __aenter__(self) -> Shim:
        self._session = aiohttp.ClientSession(
            auto_decompress=False, connector=aiohttp.TCPConnector(limit=0, force_close=True)
        )
        self._runner = web.ServerRunner(
            web.Server(self._handle, auto_decompress=False), access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, LOCALHOST, self._port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.heal()
        await self._runner.cleanup()
        await self._session.close()

    def set(self, spoil: Spoil) -> None:
        self.heal()
        self.fired, self._spoil, self._healed = 0, spoil, asyncio.Event()

    def heal(self) -> None:
        """Pass everything, and let go what is held or delayed."""
        self._spoil = None
        self._healed.set()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        operation = name_operation(request)
        self.seen[operation] += 1
        spoil = self._due(operation, request.path)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # what an application would do unasked
        try:
            body = await request.content.read()  # read() would refuse more than a megabyte
        except ConnectionError:
            return _break(request)  # the client is gone
        if spoil is not None and spoil.act == "answer":
            return _error(spoil.status, spoil.code)
        if spoil is not None and spoil.act == "lie":
            return _error(200, spoil.code)
        if spoil is not None and spoil.act == "delay":
            await self._wait(spoil.seconds)
        try:
            answer, data = await self._pass_on(request, body)
        except (aiohttp.ClientError, ConnectionError):
            return _break(request)
        if spoil is not None and spoil.act == "cut":
            return _break(request)
        if spoil is not None and spoil.act == "hold":
            await self._hold()
        return _render(request, answer, data, spoil)

    def _due(self, operation: str, path: str) -> Spoil | None:
        spoil = self._spoil
        if spoil is None or (spoil.times is not None and self.fired >= spoil.times):
            return None
        if (spoil.operations and operation not in spoil.operations) or spoil.within not in path:
            return None
        self.fired += 1
        return spoil

    async def _pass_on(self, request: web.BaseRequest, body: bytes) -> tuple[aiohttp.ClientResponse, bytes]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = self._upstream.join(URL(request.raw_path, encoded=True))
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            return answer, await answer.read()

    async def _hold(self) -> None:
        self.held += 1
        try:
            await self._healed.wait()
        finally:
            self.held -= 1

    async def _wait(self, seconds: float) -> None:
        await asyncio.wait([asyncio.ensure_future(self._healed.wait())], timeout=seconds)


def name_operation(request: web.BaseRequest) -> str:
    """The S3 operation of a path-style request, by its name in the API."""
    query, has_key = request.query, bool(request.path.strip("/").partition("/")[2])
    if "uploads" in query:
        return "CreateMultipartUpload" if request.method == "POST" else "ListMultipartUploads"
    if "uploadId" in query:
        by_method = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
        return by_method.get(request.method, "ListParts")
    return _OPERATIONS.get((request.method, has_key), request.method)


def _render(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, data: bytes, spoil: Spoil | None
) -> web.StreamResponse:
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
    if spoil is not None and spoil.act == "flip" and data:
        middle = len(data) // 2
        data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    if spoil is not None and spoil.act == "etag":
        headers = {name: _other(value) if name.lower() == "etag" else value for name, value in headers.items()}
        data = _ETAG.sub(lambda match: match[1] + match[2][::-1], data)
        headers.pop("Content-Length", None)
    if request.method == "HEAD":  # its length is the object's
        return web.Response(status=answer.status, headers=headers)
    headers.pop("Content-Length", None)
    return web.Response(status=answer.status, headers=headers, body=data)


def _other(etag: str) -> str:
    """A well-formed ETag that is not this one."""
    return f'"{etag.strip(chr(34))[::-1]}"'


def _error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=_ERROR.format(code=code), content_type="application/xml")


def _break(request: web.BaseRequest) -> web.Response:
    """An answer that never arrives: the connection is reset."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)
