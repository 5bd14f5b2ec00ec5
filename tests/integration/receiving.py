"""A receiver of webhooks: a real HTTP server that answers as a test tells it and keeps what it was sent."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook


@dataclass(kw_only=True)
class Received:
    """One request, whose signature was right."""

    path: str
    headers: dict[str, str]
    text: str
    body: dict[str, Any]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Reply = Callable[[Received], Awaitable[web.StreamResponse] | web.StreamResponse]


@dataclass(kw_only=True)
class Receiver:
    """Listens on 127.0.0.1. Verifies each request by the reference library, with the secret of its path or the one of
    all; what it cannot verify is kept apart and refused."""

    secret: str = ""
    secrets: dict[str, str] = field(default_factory=dict)  # path -> secret
    reply: Reply = lambda _: web.Response(status=204)
    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)

    async def __aenter__(self) -> Receiver:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.received]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            body = Webhook(self.secrets.get(request.path, self.secret)).verify(text, headers)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is no webhook of ours
            self.forged.append(repr(error))
            return web.Response(status=400)
        item = Received(path=request.path, headers=headers, text=text, body=body)
        self.received.append(item)
        answer = self.reply(item)
        return answer if isinstance(answer, web.StreamResponse) else await answer
