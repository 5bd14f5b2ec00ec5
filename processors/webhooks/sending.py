"""One attempt: the body is posted to an address that was judged, and the answer is read as far as it matters.

The name is resolved once per attempt, by us, and the connection goes to an address that was found open: nothing asks
again in between. Each attempt has a connection of its own. Redirects are not followed, proxies of the environment not
used, and of the answer no more than its beginning is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from processors.webhooks import targets
from processors.webhooks.targets import Networks, TargetRefused
from storage.deliveries import Result

RESPONSE_BYTES = 1024  # that are kept; what comes after them is not read
_BODY_SECONDS = 2.0
_CONNECT_SECONDS = 5.0
_RESOLVING_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of an attempt, and when the receiver wants the next one."""

    result: Result
    retry_after_seconds: float | None = None


class Sender:
    """The HTTP client of one worker. `resolver` and `tls` are those of the system unless given."""

    def __init__(
        self,
        allowed: Networks,
        *,
        timeout_seconds: float,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = allowed
        self._timeout_seconds = timeout_seconds
        self._resolver = resolver or SystemResolver()
        self._tls = tls

    async def __aenter__(self) -> Sender:
        self._sessions = {scheme: self._open(by_http=scheme == "http") for scheme in ("http", "https")}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()
        await self._resolver.close()

    async def send(self, url: str, body: str, headers: Mapping[str, str]) -> Answer:
        """Post it. What goes wrong is told in the answer, not raised."""
        try:
            targets.check_url(url, self._allowed)
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._sessions[urlsplit(url).scheme].post(
                    url, data=body.encode(), headers=headers, allow_redirects=False
                )
        except TargetRefused as error:
            return _failed("address_refused", str(error))
        except TimeoutError:
            return _failed("timeout", f"There was no answer within {self._timeout_seconds:g} s.")
        except aiohttp.ClientConnectorError as error:
            return _failed("unreachable", f"It could not be connected to ({_kind(error)}).")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _failed("no_answer", f"The connection gave no answer that could be read ({_kind(error)}).")
        return await _judge(answer)

    def _open(self, *, by_http: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_OpenAddresses(self._resolver, self._allowed, by_http=by_http),
            use_dns_cache=False,
            force_close=True,
            limit=0,  # the number of deliveries is bounded by who sends
            ssl=self._tls or True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a compressed answer could be a bomb
            trust_env=False,
            read_bufsize=RESPONSE_BYTES * 4,
        )


class SystemResolver(AbstractResolver):
    """The system's, in threads of its own: names that nobody answers for must not hold up what else needs a thread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVING_THREADS, "webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _OpenAddresses(AbstractResolver):
    """Of a name's addresses those that are open, so that no other is connected to."""

    def __init__(self, resolver: AbstractResolver, allowed: Networks, *, by_http: bool) -> None:
        self._resolver = resolver
        self._allowed = allowed
        self._by_http = by_http

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        addresses = {item["host"]: ipaddress.ip_address(item["host"]) for item in found}
        opened = targets.pick_open(list(addresses.values()), self._allowed, by_http=self._by_http)
        return [item for item in found if addresses[item["host"]] in opened]

    async def close(self) -> None:
        """Nothing is held here; who made the resolver closes it."""


def read_retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date. None where it says nothing that can be read."""
    if text is None:
        return None
    if text.isascii() and text.strip().isdigit() and len(text) <= 9:
        return float(text)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


async def _judge(answer: aiohttp.ClientResponse) -> Answer:
    """The status decides, however the body goes on."""
    status, text = answer.status, await _read_beginning(answer)
    if 200 <= status < 300:
        return Answer(result=Result(status_code=status, response=text))
    code, detail = "bad_status", f"It answered {status}."
    if 300 <= status < 400:
        code, detail = "redirected", f"It answered {status}. Redirects are not followed: give the webhook that URL."
    return Answer(
        result=Result(status_code=status, error_code=code, error=detail, response=text),
        retry_after_seconds=read_retry_after(answer.headers.get("Retry-After"), datetime.now(UTC)),
    )


async def _read_beginning(answer: aiohttp.ClientResponse) -> str:
    """The first bytes of the body as text that Postgres can hold; the connection is closed upon the rest."""
    data = bytearray()
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
        async with asyncio.timeout(_BODY_SECONDS):
            while len(data) < RESPONSE_BYTES and (piece := await answer.content.read(RESPONSE_BYTES - len(data))):
                data += piece
    answer.close()
    return bytes(data).decode("utf-8", "replace").replace("\0", "\ufffd")


def _kind(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return f"{type(cause).__name__}: {cause}"[:300].replace("\0", "\ufffd")


def _failed(code: str, detail: str) -> Answer:
    return Answer(result=Result(error_code=code, error=detail))
