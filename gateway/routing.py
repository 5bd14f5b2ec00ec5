"""What a route is: one row of a table, from which the router, the scopes, the validation and the OpenAPI document
are all made, so that none of them can say something else than the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import marshmallow
from aiohttp import web
from marshmallow import Schema
from webargs.aiohttpparser import AIOHTTPParser

from gateway import bodies
from gateway.auth import Principal, Scope
from gateway.context import CONTEXT, Context
from gateway.errors import Problem
from gateway.reach import Reach


@dataclass(frozen=True, kw_only=True)
class Call:
    """One authenticated and validated request."""

    request: web.Request
    context: Context
    principal: Principal | None
    query: Mapping[str, Any]
    body: Mapping[str, Any]

    @property
    def actor(self) -> str:
        return f"{self.principal.name} ({self.principal.access_key})" if self.principal else "anyone"

    @property
    def sees_traces(self) -> bool:
        """Whether errors may be shown with tracebacks, which hold words that nobody has looked at."""
        return self.principal is not None and "admin" in self.principal.scopes

    @property
    def reach(self) -> Reach:
        """What the key is limited to. Only where the route has a scope, and so a principal."""
        assert self.principal is not None
        return self.principal.reach


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Answer:
    """What a status means, and the shape of its body: a Schema, or the content types of bytes."""

    description: str
    schema: type[Schema] | None = None
    content_types: tuple[str, ...] = ("application/json",)
    headers: Mapping[str, str] = field(default_factory=dict)  # name -> description


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str
    path: str  # aiohttp's syntax
    handler: Handler
    scope: Scope | None  # None: open to anyone
    scope_by_cookie: Scope | None = None  # where a browser's session needs a wider one than a bearer token
    own_scheme: str | None = None  # where `scope` is None and the handler itself asks for another kind of token
    opens_to_limited: bool = False  # True: the handler itself keeps a limited key to its places
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    problems: tuple[int, ...] = ()  # further problem+json statuses; those of scope and validation come by themselves
    query: type[Schema] | None = None
    body: type[Schema] | None = None
    raw_body: Mapping[str, Any] | None = None  # OpenAPI content of a body that is no JSON
    request_headers: Mapping[str, str] = field(default_factory=dict)  # name -> description
    accepts: tuple[str, ...] = ()
    description: str = ""


class _Parser(AIOHTTPParser):
    DEFAULT_UNKNOWN_BY_LOCATION = {  # noqa: RUF012 - webargs' own way to say it
        "query": marshmallow.RAISE,
        "json": marshmallow.RAISE,
    }

    def handle_error(self, error: marshmallow.ValidationError, *_: Any, **__: Any) -> NoReturn:
        messages = error.messages
        errors = messages if isinstance(messages, dict) else {"body": messages}
        raise Problem("invalid_request", "`errors` names each parameter and what is wrong with it.", errors=errors)

    def _handle_invalid_json_error(self, *_: Any, **__: Any) -> NoReturn:
        raise Problem("invalid_json", "Send a JSON object, as described in /docs.")


_PARSER = _Parser()


def bind(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler of a route: who may, what was asked, then the handler itself."""
    query_schema = route.query() if route.query else None
    body_schema = route.body() if route.body else None

    async def handle(request: web.Request) -> web.StreamResponse:
        context = request.app[CONTEXT]
        principal = None
        if route.scope is not None:
            principal = await context.sessions.admit(request, route.scope, by_cookie=route.scope_by_cookie)
            if principal.reach.is_limited and not route.opens_to_limited:
                raise _limited(principal)
            await context.limits.take(principal.access_key)
        query = await _PARSER.parse(query_schema, request, location="query") if query_schema else {}
        body = await _parse_json(body_schema, request, context) if body_schema else {}
        return await route.handler(Call(request=request, context=context, principal=principal, query=query, body=body))

    handle.__name__ = route.handler.__name__
    return handle


async def _parse_json(schema: Schema, request: web.Request, context: Context) -> Mapping[str, Any]:
    """The body, which is short and has to arrive as a whole in the time that a photo has for a piece."""
    parsing = _PARSER.parse(schema, request, location="json")
    body: Mapping[str, Any] = await bodies.in_time(parsing, context.settings.chunk_timeout_seconds)
    return body


def _limited(principal: Principal) -> Problem:
    places = ", ".join(principal.reach.places)
    return Problem("forbidden", f"This key is limited to photos in {places}; it opens nothing but those.")
