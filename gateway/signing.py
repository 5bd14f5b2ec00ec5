"""Signing in, seeing who is signed in, and signing out: the addresses that the pages begin with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from aiohttp import web

from gateway import rendering
from gateway.context import Context
from gateway.errors import Problem
from gateway.routing import Call
from gateway.schemas import SessionSchema
from gateway.sessions import COOKIE, csrf_token
from storage import credentials
from storage.credentials import Credential

log = structlog.get_logger(__name__)

_NO_KEY = Credential(access_key="", secret_key="")


async def post_session(call: Call) -> web.StreamResponse:
    """Sign in with a key. Its failures are counted by address."""
    request, context = call.request, call.context
    context.attempts.check(request.remote)
    credential = credentials.parse_token(f"{call.body['access_key'].strip()}.{call.body['secret'].strip()}")
    try:
        signed_in = await context.sessions.begin(credential or _NO_KEY)
    except Problem:
        context.attempts.fail(request.remote)
        raise
    key = signed_in.key
    log.info("session.begun", message="A browser signed in.", access_key=key.access_key, name=key.name)
    answer = rendering.answer(
        SessionSchema,
        _describe(context, key.access_key, key.name, key.scopes, key.places)
        | {"csrf_token": csrf_token(signed_in.token), "expires_at": signed_in.expires_at},
        status=201,
    )
    answer.set_cookie(
        COOKIE,
        signed_in.token,
        max_age=int(context.settings.session_hours * 3600),
        path="/",
        httponly=True,
        samesite="Strict",
        # The header may be anybody's, but a cookie that is marked Secure needlessly is only not sent.
        secure=request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https",
    )
    return answer


async def get_session(call: Call) -> web.StreamResponse:
    """Who asks, by cookie or by bearer token; the latter has neither CSRF token nor end."""
    principal, token = call.principal, call.request.cookies.get(COOKIE, "")
    assert principal is not None
    by_cookie = "Authorization" not in call.request.headers
    session = await call.context.sessions.find(call.request) if by_cookie else None
    ends_at: datetime | None = session.expires_at if session else None
    return rendering.answer(
        SessionSchema,
        _describe(call.context, principal.access_key, principal.name, principal.scopes, principal.reach.places)
        | {"csrf_token": csrf_token(token) if session else None, "expires_at": ends_at},
    )


async def delete_session(call: Call) -> web.StreamResponse:
    """Sign out: the session ends in every gateway within a second."""
    if "Authorization" not in call.request.headers:
        await call.context.sessions.end(call.request)
    answer = web.Response(status=204)
    answer.del_cookie(COOKIE, path="/")
    return answer


def _describe(
    context: Context, access_key: str, name: str, scopes: frozenset[str], places: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "access_key": access_key,
        "name": name,
        "scopes": sorted(scopes),
        "places": list(places),
        "default_bucket": context.storage.default_bucket,
        "derived_bucket": context.storage.derived_bucket,
        "max_upload_bytes": context.settings.max_upload_bytes,
    }
