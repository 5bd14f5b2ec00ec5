"""What SNS sends over HTTP: believed by its signature alone, from the topics that were named.

Nothing is fetched but certificates and confirmations, from addresses that `gateway.events.sns` has checked; redirects
are not followed, and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final
from weakref import WeakValueDictionary

import aiohttp
import structlog
from yarl import URL

from gateway.events.envelopes import Envelope
from gateway.events.sns import Refusal, Rules, check_envelope, check_signature

log = structlog.get_logger(__name__)

_FETCH_SECONDS: Final = 5.0
_CERTIFICATE_BYTES: Final = 64 << 10
_CERTIFICATES: Final = 16
_CERTIFICATE_SECONDS: Final = 24 * 3600.0
_ABSENT_SECONDS: Final = 60.0  # that an address which has no certificate is not asked again


class TopicsUnavailable(Exception):
    """SNS cannot be asked for its certificate, or does not take the confirmation."""


class _Absent(TopicsUnavailable):
    """There is nothing at that address."""


class Topics:
    """The SNS topics that one process listens to."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._certificates: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # URL -> (known until, PEM)
        self._absent: OrderedDict[str, float] = OrderedDict()  # URL -> known until
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of who fetches a URL now

    @property
    def are_named(self) -> bool:
        return bool(self._rules.topic_arns)

    async def check(self, envelope: Envelope) -> Refusal | None:
        """Why the envelope is not to be believed; None where it is genuine. Raises TopicsUnavailable."""
        now = datetime.now(UTC)
        refusal = check_envelope(envelope, rules=self._rules, now=now)
        if refusal is not None:
            return refusal
        certificate = await self._certificate(envelope.signing_cert_url)
        return check_signature(envelope, certificate_pem=certificate, now=now)

    async def confirm(self, envelope: Envelope) -> None:
        """Confirm the subscription of a genuine envelope. Raises TopicsUnavailable."""
        await self._fetch(envelope.subscribe_url)
        log.info("topic.confirmed", message="A subscription was confirmed.", topic_arn=envelope.topic_arn)

    async def _certificate(self, url: str) -> bytes:
        """Out of memory, or fetched by one for all who wait for it. Nobody waits for another address: strangers may
        name some that are slow."""
        known = self._recall(url)
        if known is not None:
            return known
        turn = self._turns.setdefault(url, asyncio.Lock())
        async with turn:
            known = self._recall(url)
            return known if known is not None else await self._learn(url)

    def _recall(self, url: str) -> bytes | None:
        known_until, certificate = self._certificates.get(url, (0.0, b""))
        if known_until > time.monotonic():
            return certificate
        if self._absent.get(url, 0.0) > time.monotonic():
            raise TopicsUnavailable("no certificate was there a moment ago")
        return None

    async def _learn(self, url: str) -> bytes:
        try:
            certificate = await self._fetch(url)
        except _Absent:
            self._absent[url] = time.monotonic() + _ABSENT_SECONDS
            if len(self._absent) > _CERTIFICATES:
                self._absent.popitem(last=False)
            raise
        self._certificates[url] = (time.monotonic() + _CERTIFICATE_SECONDS, certificate)
        self._certificates.move_to_end(url)
        if len(self._certificates) > _CERTIFICATES:
            self._certificates.popitem(last=False)
        return certificate

    async def _fetch(self, url: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.get(URL(url, encoded=True), allow_redirects=False) as answer,
            ):
                body = await answer.content.read(_CERTIFICATE_BYTES)
                if answer.status != 200:
                    is_absent = answer.status in (403, 404, 410)
                    raise (_Absent if is_absent else TopicsUnavailable)(f"HTTP {answer.status}")
                while len(body) < _CERTIFICATE_BYTES and (more := await answer.content.read(_CERTIFICATE_BYTES)):
                    body += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TopicsUnavailable(type(error).__name__) from error
        return body[:_CERTIFICATE_BYTES]
