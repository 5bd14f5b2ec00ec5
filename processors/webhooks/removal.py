"""Forgets a webhook with its whole log, in steps that each fit into the time that a statement may take."""

from __future__ import annotations

import uuid

from storage import deliveries, webhooks
from storage.database import Database

_STEP = 5000


async def remove(database: Database, webhook_id: uuid.UUID) -> bool:
    """False where there is no such webhook. It is disabled first, so that nothing is added meanwhile; broken off, it
    stays so and can be removed again. Raises DatabaseUnavailable."""
    async with database.transaction() as conn:
        if not await webhooks.change(conn, webhook_id, {"enabled": False}):
            return False
    forgotten = _STEP
    while forgotten == _STEP:
        async with database.transaction() as conn:
            forgotten = await deliveries.forget(conn, webhook_id, limit=_STEP)
    async with database.transaction() as conn:
        await webhooks.delete(conn, webhook_id)
    return True
