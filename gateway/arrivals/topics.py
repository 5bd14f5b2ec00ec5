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


class TopicsUnavailable(Exception):
    """SNS cannot be asked for its certificate, or does not take the confirmation."""


class Topics:
    """The SNS topics that one process listens to."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._certificates: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # URL -> (known until, PEM)
        self._fetching = asyncio.Lock()

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
        async with self._fetching:  # one at a time: strangers may ask for many
            known_until, certificate = self._certificates.get(url, (0.0, b""))
            if known_until > time.monotonic():
                return certificate
            certificate = await self._fetch(url)
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
                    raise TopicsUnavailable(f"HTTP {answer.status}")
                while len(body) < _CERTIFICATE_BYTES and (more := await answer.content.read(_CERTIFICATE_BYTES)):
                    body += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TopicsUnavailable(type(error).__name__) from error
        return body[:_CERTIFICATE_BYTES]
