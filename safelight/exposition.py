"""A port of its own for a process's metrics: GET /metrics, and nothing else. Without a key, so it listens on the
address that SAFELIGHT_METRICS_HOST says, and on no port at all unless SAFELIGHT_METRICS_PORT is set.

Strangers get little: one short request a connection, a deadline for it, and few connections at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from processors.vitals import Render
from safelight.settings import ProcessSettings

log = structlog.get_logger(__name__)

_HEAD_BYTES = 8 << 10
_HEAD_SECONDS = 5.0
_ANSWER_SECONDS = 15.0
_CONNECTIONS = 16


@contextlib.asynccontextmanager
async def serving(settings: ProcessSettings, render: Render) -> AsyncIterator[None]:
    """Answer scrapes while the block runs. Raises OSError where the port cannot be had."""
    if not settings.metrics_port:
        yield
        return
    gate = asyncio.Semaphore(_CONNECTIONS)
    asking: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        asking.add(task)
        try:
            if not gate.locked():
                async with gate:
                    await _answer(reader, writer, render)
        except asyncio.CancelledError:
            pass  # by the end below, and asyncio on Python 3.11 would report it as an error
        finally:
            asking.discard(task)
            writer.close()

    server = await asyncio.start_server(answer, settings.metrics_host, settings.metrics_port, limit=_HEAD_BYTES)
    port = server.sockets[0].getsockname()[1]
    log.info("metrics.listening", message="Metrics can be scraped.", host=settings.metrics_host, port=port)
    try:
        yield
    finally:
        server.close()
        for task in asking:
            task.cancel()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, render: Render) -> None:
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return
    method, target, *_ = (*head.split(b"\r\n", 1)[0].split(b" "), b"", b"")
    status, body = b"404 Not Found", b"Ask for /metrics.\n"
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            if method in (b"GET", b"HEAD") and target.split(b"?")[0] == b"/metrics":
                status, body = b"200 OK", await render()
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n"
                b"X-Content-Type-Options: nosniff\r\n\r\n" % (status, CONTENT_TYPE_PLAIN_0_0_4.encode(), len(body))
            )
            if method != b"HEAD":
                writer.write(body)
            await writer.drain()
