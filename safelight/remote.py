"""The gateway as the command line reaches it: where it is, with which key, and requests that are tried again.

Address and key come from SAFELIGHT_URL and SAFELIGHT_KEY, or from the connection.json that `safelight up` keeps. A key
is never an argument, which every user of a machine can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from safelight import console
from storage import credentials

T = TypeVar("T")
_PIECE_BYTES = 256 << 10
_PASSING = (408, 429, 500, 502, 503, 504)
_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)
_HOW = (
    "Set SAFELIGHT_URL to the gateway's address, as in http://127.0.0.1:8080, and SAFELIGHT_KEY to <access key>."
    "<secret key>, as `safelight keys create` prints it; or run this in the folder in which `safelight up` runs."
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the gateway is, and the key to it."""

    url: str
    token: str = field(repr=False)


class Refused(Exception):
    """The gateway's answer was no: its status, stable code, and what to do."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code") or f"http_{status}")
        self.detail = " ".join(str(problem[name]) for name in ("title", "detail") if problem.get(name))
        if problem.get("errors"):
            self.detail += " " + json.dumps(problem["errors"])
        super().__init__(self.detail or f"It answered {status}.")


class Unreachable(Exception):
    """No answer, however often it was asked."""


def find_access(environ: Mapping[str, str]) -> Access:
    """Ends the command with exit code 2, and says what to set, where there is none."""
    url, token = environ.get("SAFELIGHT_URL", "").strip(), environ.get("SAFELIGHT_KEY", "").strip()
    if not (url and token):
        found = console.read_connection(environ)
        url, token = url or str(found.get("http_url", "")), token or str(found.get("token", ""))
    if not (url and token):
        console.fail(f"It is not known where the gateway is, or with which key to ask. {_HOW}")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        console.fail(f"SAFELIGHT_URL is {url!r}, which is no address such as http://127.0.0.1:8080.")
    if credentials.parse_token(token) is None:
        console.fail("SAFELIGHT_KEY is not <access key>.<secret key>, as `safelight keys create` prints it.")
    return Access(url=url.rstrip("/"), token=token)


def run(action: Callable[[Gateway], Awaitable[T]], *, retry_seconds: float = 10) -> T:
    """Run a command that asks the gateway. What it refuses is one sentence and exit code 2, 1 for what is not there."""
    access = find_access(os.environ)

    async def act() -> T:
        async with Gateway(access, retry_seconds=retry_seconds) as gateway:
            return await action(gateway)

    try:
        return console.run(act())
    except Refused as refused:
        console.fail(f"{refused} ({refused.code})", code=1 if refused.status in (404, 409, 410) else 2)
    except Unreachable as error:
        console.fail(
            f"The gateway at {access.url} does not answer: {error}. Is it running? `safelight doctor` tells more."
        )


class Gateway:
    """A client of one gateway. What passes (no answer, 429, 503) is tried again, for retry_seconds in all; every
    request that is made with it may be repeated."""

    def __init__(self, access: Access, *, retry_seconds: float) -> None:
        self.access = access
        self._retry_seconds = retry_seconds

    async def __aenter__(self) -> Gateway:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.access.token}", "User-Agent": "safelight-cli"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=90),
            connector=aiohttp.TCPConnector(limit=0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return await self.ask("GET", path, query=query)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self.ask("POST", path, json=body)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Callable[[], AsyncIterator[bytes]] | None = None,
        **more: Any,
    ) -> Any:
        """The JSON of a successful answer; `body` is called for each try. Raises Refused, Unreachable."""
        deadline = time.monotonic() + self._retry_seconds
        while True:
            async with self._opened(method, path, query, body, more) as answer:
                try:
                    return await answer.json()
                except (ValueError, aiohttp.ContentTypeError) as error:
                    raise Unreachable("what does answer there is no Safelight") from error
                except _TROUBLE as error:
                    if time.monotonic() > deadline:
                        raise Unreachable(f"it cut its answer off ({error or type(error).__name__})") from error
            await asyncio.sleep(random.uniform(0.2, 0.5))  # noqa: S311 - spreads retries

    @contextlib.asynccontextmanager
    async def download(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a successful answer. Raises Refused, Unreachable; the latter from its pieces, too."""
        async with self._opened("GET", path, None, None, {}) as answer:
            yield _pieces(answer)

    async def page(self, path: str, query: Mapping[str, Any], *, member: str, most: int | None) -> AsyncIterator[Any]:
        """The items of all pages, at most so many."""
        left, cursor = most, None
        while left is None or left > 0:
            size = 200 if left is None else min(200, left)
            answer = await self.get(path, {**query, "limit": size, "cursor": cursor})
            for item in answer[member]:
                yield item
            left = None if left is None else left - len(answer[member])
            cursor = answer["next_cursor"]
            if cursor is None:
                return

    @contextlib.asynccontextmanager
    async def _opened(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Callable[[], AsyncIterator[bytes]] | None,
        more: Mapping[str, Any],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(self.access.url + path, encoded=True)
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        deadline, pause_seconds = time.monotonic() + self._retry_seconds, 0.2
        while True:
            options = dict(more) | ({"data": body()} if body else {})
            try:
                answer = await self._session.request(method, url.update_query(given) if given else url, **options)
            except _TROUBLE as error:
                if time.monotonic() + pause_seconds > deadline:
                    raise Unreachable(str(error) or type(error).__name__) from error
            else:
                async with answer:
                    if answer.status < 400:
                        yield answer
                        return
                    refused = await _read_refusal(answer)
                    passing = answer.status in _PASSING or refused.code == "idempotency_in_progress"
                    if not passing or time.monotonic() + pause_seconds > deadline:
                        raise refused
                    pause_seconds = max(pause_seconds, _retry_after(answer))
            await asyncio.sleep(random.uniform(0.5, 1) * pause_seconds)  # noqa: S311 - spreads retries
            pause_seconds = min(5, pause_seconds * 2)


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.content.iter_chunked(_PIECE_BYTES):
            yield piece
    except _TROUBLE as error:
        raise Unreachable(f"it cut its answer off ({error or type(error).__name__})") from error


def photo_path(bucket: str, key: str) -> str:
    return f"/v1/photos/{quote(bucket, safe='')}/{quote(key, safe='/')}"


async def _read_refusal(answer: aiohttp.ClientResponse) -> Refused:
    try:
        problem = await answer.json(content_type=None)
    except (ValueError, *_TROUBLE):
        problem = None
    return Refused(answer.status, problem if isinstance(problem, dict) else {})


def _retry_after(answer: aiohttp.ClientResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(30.0, float(text)) if text.isascii() and text.isdigit() else 0.0
