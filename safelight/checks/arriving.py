"""Whether the gateway answers, and, where it is asked for, whether the storage tells of what is written straight to it.

The second is tried in earnest: a photo of one pixel is written to the default bucket behind Safelight's back, and its
row is waited for. It is deleted again, row and all.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import aiohttp

from safelight.checks.finding import Finding, fail, ok, warn
from safelight.checks.sandbox import PIXEL_GIF
from safelight.settings import Settings
from storage import objects
from storage.blobs import BlobRefused, Blobs, BlobsUnavailable, NoSuchBucket
from storage.database import Database

_PATIENCE_SECONDS = 20.0
_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)


async def check_gateway(url: str) -> AsyncIterator[Finding]:
    """`url`: of a gateway. Its readiness names what it misses."""
    try:
        timeout = aiohttp.ClientTimeout(total=10)
        address = f"{url.rstrip('/')}/readyz"
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(address) as answer:
            told = await answer.json(content_type=None)
            ready = answer.status == 200
            down = [name for name, item in told["dependencies"].items() if not item["up"]]
    except _TROUBLE as error:
        said = f"No gateway answers at {url}: {type(error).__name__}."
        yield warn("gateway", said, "Start one (safelight gateway), or set SAFELIGHT_URL to where it listens.")
        return
    except (KeyError, TypeError, ValueError):
        yield fail("gateway", f"What answers at {url} is no gateway.", "Set SAFELIGHT_URL to the gateway's address.")
        return
    if ready and not down:
        yield ok("gateway", f"The gateway at {url} is ready.")
    elif ready:
        yield warn(
            "gateway", f"The gateway at {url} is ready, without {', '.join(down)}.", "See that dependency above."
        )
    else:
        yield fail("gateway", f"The gateway at {url} is not ready; it misses {', '.join(down)}.", "See that one above.")


async def check_events(settings: Settings) -> AsyncIterator[Finding]:
    """Write a photo as a stranger to Safelight would, and wait until it is known."""
    name, bucket, key = "bucket events", settings.storage.default_bucket, f".safelight-doctor/{uuid.uuid4().hex}.gif"
    if not settings.jobs.processors_for(bucket, key):
        said = f"Nobody watches {bucket}/.safelight-doctor/ (SAFELIGHT_HOOKS), so an event of it cannot be seen."
        yield warn(name, said, "Watch the whole bucket, or try with a photo of your own.")
        return
    async with Database(settings.storage) as database, Blobs(settings.storage) as blobs:
        begun = time.monotonic()
        try:
            await blobs.put(bucket, key, PIXEL_GIF, content_type="image/gif")
        except (BlobRefused, BlobsUnavailable, NoSuchBucket) as error:
            yield warn(name, f"It cannot be tried: the bucket cannot be written ({error}).", "Mend that first.")
            return
        try:
            arrived = await _await_row(database, bucket, key)
        finally:
            await blobs.delete(bucket, key)
            async with database.transaction() as conn:
                await objects.mark_deleted(conn, bucket, key)
    if arrived:
        yield ok(name, f"The storage told of a photo in {bucket} within {time.monotonic() - begun:.1f} s.")
    else:
        yield fail(
            name,
            f"The storage did not tell of a photo in {bucket} within {_PATIENCE_SECONDS:g} s.",
            f"Photos written straight to it wait for reconcile. Set events up: safelight setup bucket {bucket} "
            f"(docs/bucket-events.md). At once: safelight reconcile --bucket {bucket}",
        )


async def _await_row(database: Database, bucket: str, key: str) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        async with database.connection() as conn:
            if await objects.find_current(conn, bucket, key):
                return True
        await asyncio.sleep(0.2)
    return False
