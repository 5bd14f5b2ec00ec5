"""Whether this gateway is alive, and whether it can take photos."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from aiohttp import web

from gateway import rendering
from gateway.routing import Call
from gateway.schemas import HealthSchema, ReadinessSchema
from storage.blobs import BlobsUnavailable
from storage.database import DatabaseUnavailable


async def get_healthz(_call: Call) -> web.StreamResponse:
    """The process answers: restart it only where it does not."""
    return rendering.answer(HealthSchema, {"alive": True, "version": version("safelight")})


async def get_readyz(call: Call) -> web.StreamResponse:
    """Photos can be taken: Postgres and the storage are there. Redis is named too, but uploads do not need it."""
    context = call.context
    postgres, s3, depth = await asyncio.gather(
        answers(context.database.ping()), answers(context.blobs.ping()), context.broker.depth()
    )
    dependencies = {
        "postgres": _state(postgres, context.database.down_since, required=True),
        "s3": _state(s3, context.blobs.down_since, required=True),
        "redis": _state(depth is not None, context.broker.down_since, required=False),
    }
    ready = postgres and s3
    return rendering.answer(
        ReadinessSchema, {"ready": ready, "dependencies": dependencies}, status=200 if ready else 503
    )


async def answers(ping: Awaitable[None]) -> bool:
    """Whether a dependency can be used."""
    try:
        await ping
    except (DatabaseUnavailable, BlobsUnavailable):
        return False
    return True


def _state(up: bool, down_since: float | None, *, required: bool) -> dict[str, Any]:
    since = datetime.fromtimestamp(down_since, UTC) if down_since and not up else None
    return {"up": up, "required": required, "down_since": since}
