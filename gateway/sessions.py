"""Who a request is of: a bearer token, or the cookie of a browser that signed in with a key.

The cookie holds a random token, of which Postgres keeps the hash: every gateway knows every session, and signing out
ends it everywhere. What changes something and comes by cookie needs the session's CSRF token as well; other pages
can send the cookie nowhere (SameSite), and could not read that token. What destroys may need a wider scope by cookie
than by token: whoever finds a browser open is not who was given the key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from gateway.auth import Gatekeeper, Principal, Scope
from gateway.errors import Problem
from gateway.remembering import Remembered
from storage import sessions
from storage.credentials import Credential, KeyRecord
from storage.database import Database
from storage.sessions import Session

COOKIE = "safelight_session"
CSRF_HEADER = "X-CSRF-Token"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_READING = ("GET", "HEAD")


@dataclass(frozen=True, kw_only=True)
class SignedIn:
    """A session that has just begun. `token` goes into the cookie and nowhere else."""

    token: str
    key: KeyRecord
    expires_at: datetime


class Sessions:
    """The sessions as one process knows them."""

    def __init__(self, database: Database, gatekeeper: Gatekeeper, *, hours: float) -> None:
        self._database = database
        self._gatekeeper = gatekeeper
        self._hours = hours
        self._known = Remembered(self._ask)

    async def admit(self, request: web.Request, scope: Scope, *, by_cookie: Scope | None = None) -> Principal:
        """Whose request this is. A bearer token goes before a cookie, which needs the scope `by_cookie` where that is
        given. Raises Problem unauthorized, forbidden or csrf_refused, DatabaseUnavailable."""
        authorization, token = request.headers.get("Authorization"), request.cookies.get(COOKIE, "")
        if authorization is not None or not _TOKEN.fullmatch(token):
            return await self._gatekeeper.admit(authorization, scope)
        session = await self._known.find(token)
        now = datetime.now(UTC)
        if session is None or session.expires_at <= now or not session.key.is_valid(now):
            raise Problem("unauthorized", "This session has ended. Sign in again.")
        if request.method not in _READING:
            _check_origin(request, token)
        principal = self._gatekeeper.let_in(session.key, scope)
        if by_cookie is not None and by_cookie not in principal.scopes:
            has = ", ".join(sorted(principal.scopes))
            raise Problem(
                "forbidden",
                f"In a browser it needs the scope {by_cookie!r}; the key that is signed in has {has}. "
                "Sign in with a key of that scope.",
            )
        return principal

    async def find(self, request: web.Request) -> Session | None:
        """The session of the request's cookie; None where it came without one."""
        token = request.cookies.get(COOKIE, "")
        return await self._known.find(token) if _TOKEN.fullmatch(token) else None

    async def begin(self, credential: Credential) -> SignedIn:
        """Raises Problem unauthorized where the key does not open, forbidden where it may not read."""
        key = await self._gatekeeper.recognise(credential)
        self._gatekeeper.let_in(key, "read")
        token = secrets.token_urlsafe(32)
        async with self._database.transaction() as conn:
            expires_at = await sessions.begin(conn, _hash(token), key, seconds=self._hours * 3600)
        return SignedIn(token=token, key=key, expires_at=expires_at)

    async def end(self, request: web.Request) -> None:
        token = request.cookies.get(COOKIE, "")
        async with self._database.connection() as conn:
            await sessions.end(conn, _hash(token))
        self._known.forget(token)

    async def _ask(self, token: str) -> Session | None:
        async with self._database.connection() as conn:
            return await sessions.find(conn, _hash(token))


def csrf_token(token: str) -> str:
    """What a page must send with whatever changes something; says nothing about the cookie's token."""
    return hmac.digest(token.encode(), b"safelight csrf token", hashlib.sha256).hex()


def _check_origin(request: web.Request, token: str) -> None:
    given = request.headers.get(CSRF_HEADER, "")
    same = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), csrf_token(token).encode())
    # Browsers say where a request comes from; what says nothing is no browser of today.
    if not same or request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Problem("csrf_refused", f"Send the header {CSRF_HEADER} with the csrf_token of GET /v1/session.")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
