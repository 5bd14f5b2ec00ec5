"""How much one key may ask, and how many uploads may be in flight. Says no with 429 and when to come again.

The rate is one bucket per key for all gateways, in Redis (GCRA, by Redis' own clock). While Redis is away each
gateway keeps buckets of its own: an outage never turns into errors, it only makes the limit looser.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncIterator

import redis.asyncio as redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from gateway.errors import Problem
from gateway.settings import GatewaySettings

_REDIS_SECONDS = 0.1
_REDIS_CONNECTIONS = 8
_REDIS_REST_SECONDS = 1.0  # after a failure Redis is left alone for so long
_BUCKETS = 10_000
_UPLOADS_SHARE = 3 / 4  # that one key may have: something is left for the others

# The generic cell rate algorithm. KEYS[1]: bucket; ARGV: microseconds per request, microseconds of burst. Answers the
# microseconds to wait, 0 where the request may pass.
_GCRA = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local each, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = due - burst - now
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', due + each), 'PX', math.ceil((due + each - now) / 1000) + 1)
return 0
"""


class Limits:
    """The limits of one gateway."""

    def __init__(self, settings: GatewaySettings, redis_url: str) -> None:
        self._settings = settings
        # Bounded: a pool that is not keeps as many connections as there ever were requests at once.
        pool = redis.BlockingConnectionPool.from_url(
            redis_url,
            max_connections=_REDIS_CONNECTIONS,
            timeout=_REDIS_SECONDS,
            socket_timeout=None,
            socket_connect_timeout=_REDIS_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.Redis.from_pool(pool)
        self._script = self._redis.register_script(_GCRA)
        self._rest_until = 0.0
        self._due: dict[str, float] = {}  # access key -> time.monotonic() at which its bucket is empty
        self._uploads: Counter[str] = Counter()  # in flight, by access key

    @property
    def uploads_in_flight(self) -> int:
        return self._uploads.total()

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def take(self, access_key: str) -> None:
        """Count one request of a key. Raises Problem too_many_requests."""
        per_second = self._settings.requests_per_second
        if per_second <= 0:
            return
        wait_seconds = await self._ask_redis(access_key, per_second)
        if wait_seconds is None:
            wait_seconds = self._ask_here(access_key, per_second)
        if wait_seconds > 0:
            raise Problem(
                "too_many_requests",
                f"This key may ask {per_second:g} times a second. Come again after Retry-After.",
                headers={"Retry-After": str(math.ceil(wait_seconds))},
            )

    @contextlib.asynccontextmanager
    async def upload(self, access_key: str) -> AsyncIterator[None]:
        """Count one upload of a key while it is in flight. Raises Problem too_many_uploads."""
        most = self._settings.max_uploads
        if self.uploads_in_flight >= most or self._uploads[access_key] >= math.ceil(most * _UPLOADS_SHARE):
            raise Problem(
                "too_many_uploads", "Nothing was accepted. Send it again in a moment.", headers={"Retry-After": "1"}
            )
        self._uploads[access_key] += 1
        try:
            yield
        finally:
            self._uploads[access_key] -= 1
            self._uploads += Counter()  # forgets the keys that have none

    async def _ask_redis(self, access_key: str, per_second: float) -> float | None:
        """Seconds to wait; None where Redis cannot say."""
        if time.monotonic() < self._rest_until:
            return None
        each = 1e6 / per_second
        try:
            async with asyncio.timeout(_REDIS_SECONDS):
                answer = await self._script(
                    keys=[f"safelight:rate:{access_key}"], args=[each, each * self._settings.requests_burst]
                )
        except (RedisError, OSError, TimeoutError):
            self._rest_until = time.monotonic() + _REDIS_REST_SECONDS
            return None
        return float(answer) / 1e6

    def _ask_here(self, access_key: str, per_second: float) -> float:
        now = time.monotonic()
        due = max(self._due.get(access_key, now), now)
        wait_seconds = due - self._settings.requests_burst / per_second - now
        if wait_seconds <= 0:
            if len(self._due) >= _BUCKETS:
                self._due.clear()
            self._due[access_key] = due + 1 / per_second
        return max(0.0, wait_seconds)
