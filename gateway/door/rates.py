"""How much one key may ask of the S3 door. Says no with SlowDown and when to come again.

The rate is one bucket per key for all processes, in Redis (GCRA, by Redis' own clock). Requests do not wait for it: a
process takes tokens in batches, the next one before the last is spent, and asks nothing while a bucket is empty. While
Redis is away each process keeps buckets of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

import structlog

from gateway.door.valkey import Valkey, ValkeyUnavailable
from gateway.s3.errors import S3Error
from gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)

_BATCH_SECONDS = 0.05  # of the rate; as much more may pass in each process
_REDIS_SECONDS = 0.1
_REDIS_REST_SECONDS = 1.0  # after a failure Redis is left alone for so long
_ACCOUNTS = 10_000

# The generic cell rate algorithm, several requests at a time. KEYS[1]: bucket; ARGV: microseconds per request,
# microseconds of burst, requests wanted. Answers how many may pass, and the microseconds to wait where none may.
_GCRA = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local each, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local room = now + burst - due
if room < 0 then return {0, math.ceil(-room)} end
local granted = math.min(wanted, math.floor(room / each) + 1)
due = due + granted * each
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000) + 1)
return {granted, 0}
"""


@dataclass(kw_only=True, slots=True)
class _Account:
    """What this process has of one key. Times by time.monotonic()."""

    tokens: int = 0
    in_flight: int = 0
    closed_until: float = 0.0
    due: float = 0.0  # when this process' own bucket is empty
    filling: asyncio.Task[None] | None = None


class Rates:
    """The rates and the requests in flight of one process' keys."""

    def __init__(self, settings: GatewaySettings, redis_url: str) -> None:
        self._per_second = settings.s3_requests_per_second
        self._burst = settings.s3_requests_burst
        self._max_in_flight = settings.s3_max_requests_per_key
        self._batch = max(1, min(self._burst, round(self._per_second * _BATCH_SECONDS)))
        self._valkey = Valkey(redis_url, timeout_seconds=_REDIS_SECONDS)
        self._rest_until = 0.0
        self._accounts: dict[str, _Account] = {}

    def close(self) -> None:
        for account in self._accounts.values():
            if account.filling is not None:
                account.filling.cancel()
        self._valkey.close()

    async def enter(self, access_key: str) -> None:
        """Count one request of a key, and that it is in flight until `leave`. Raises S3Error SlowDown."""
        account = self._accounts.get(access_key) or self._open(access_key)
        if account.in_flight >= self._max_in_flight:
            raise S3Error("SlowDown", "This key has too many requests in flight.", retry_after_seconds=1)
        await self.take(access_key)
        account.in_flight += 1

    async def take(self, access_key: str) -> None:
        """Count one request of a key. Raises S3Error SlowDown."""
        if self._per_second <= 0:
            return
        account = self._accounts.get(access_key) or self._open(access_key)
        if not account.tokens:
            await self._wait_for_tokens(access_key, account)
        account.tokens -= 1
        if account.tokens < self._batch // 2 and account.filling is None:
            self._fill(access_key, account)

    def leave(self, access_key: str) -> None:
        account = self._accounts.get(access_key)
        if account is not None and account.in_flight:
            account.in_flight -= 1

    def _open(self, access_key: str) -> _Account:
        if len(self._accounts) >= _ACCOUNTS:
            self._accounts = {key: item for key, item in self._accounts.items() if item.in_flight or item.filling}
        return self._accounts.setdefault(access_key, _Account())

    async def _wait_for_tokens(self, access_key: str, account: _Account) -> None:
        """Until there is at least one. Raises S3Error SlowDown."""
        while not account.tokens:
            wait_seconds = account.closed_until - time.monotonic()
            if wait_seconds > 0:
                raise S3Error(
                    "SlowDown",
                    f"This key may ask {self._per_second:g} times a second. Come again after Retry-After.",
                    retry_after_seconds=math.ceil(wait_seconds),
                )
            await asyncio.shield(account.filling or self._fill(access_key, account))

    def _fill(self, access_key: str, account: _Account) -> asyncio.Task[None]:
        account.filling = asyncio.create_task(self._take(access_key, account))
        return account.filling

    async def _take(self, access_key: str, account: _Account) -> None:
        try:
            if time.monotonic() < account.closed_until:
                return
            answer = await self._ask_redis(access_key)
            granted, wait_seconds = self._ask_here(account) if answer is None else answer
            account.tokens += granted
            if not granted:
                account.closed_until = time.monotonic() + wait_seconds
        finally:
            account.filling = None

    async def _ask_redis(self, access_key: str) -> tuple[int, float] | None:
        """How many may pass, and the seconds to wait where none may; None where Redis cannot say."""
        if time.monotonic() < self._rest_until:
            return None
        each = 1e6 / self._per_second
        bucket = f"safelight:s3-rate:{access_key}"
        try:
            answer = await self._valkey.ask(
                "EVAL", _GCRA, 1, bucket, f"{each:.3f}", f"{each * self._burst:.0f}", self._batch
            )
        except ValkeyUnavailable as error:
            if not self._rest_until:
                log.warning("rates.own", message="Redis is away: rates hold for each process.", cause=str(error))
            self._rest_until = time.monotonic() + _REDIS_REST_SECONDS
            return None
        self._rest_until = 0.0
        match answer:
            case [int(granted), int(wait_microseconds)]:
                return granted, wait_microseconds / 1e6
        return None

    def _ask_here(self, account: _Account) -> tuple[int, float]:
        now, each = time.monotonic(), 1 / self._per_second
        due = max(account.due, now)
        room = now + each * self._burst - due
        if room < 0:
            return 0, -room
        granted = min(self._batch, int(room / each) + 1)
        account.due = due + granted * each
        return granted, 0.0
