"""Redis: within reach, new enough, keeping what it is given. It carries job ids alone: trouble costs latency only."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from safelight.checks.finding import Finding, fail, judge_clock, ok, warn
from safelight.settings import Settings

_OLDEST = (6, 2)
_SILENT_POLICIES = ("noeviction",)


async def check(settings: Settings) -> AsyncIterator[Finding]:
    client = Redis.from_url(settings.jobs.redis_url, socket_connect_timeout=3, socket_timeout=5)
    try:
        async with client:
            asked_at = time.time()
            seconds, microseconds = await client.time()
            took_seconds = time.time() - asked_at
            info = await client.info()
            yield _version(info)
            yield judge_clock("redis clock", "Redis'", seconds + microseconds / 1e6 - asked_at - took_seconds / 2)
            yield _memory(info)
            yield _keeping(info)
            yield await _writing(client, settings.jobs.redis_stream)
    except (RedisError, OSError, TimeoutError) as error:
        yield fail(
            "redis",
            f"Redis cannot be used: {type(error).__name__}: {error}",
            "Check SAFELIGHT_REDIS_URL and that the server is up. Meanwhile jobs come from Postgres, a little later.",
        )


def _version(info: dict[str, Any]) -> Finding:
    name, text = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    if tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]) < _OLDEST:
        return fail("redis", f"Redis is {text}.", "Use Redis 6.2 or later, or Valkey.")
    return ok("redis", f"{name} {text} answers.")


def _memory(info: dict[str, Any]) -> Finding:
    limit, used, policy = info.get("maxmemory", 0), info["used_memory"], info.get("maxmemory_policy", "noeviction")
    if limit and policy not in _SILENT_POLICIES:
        said = f"With its memory full it evicts by {policy}: job ids may vanish, and come late."
        return warn("redis eviction", said, "Set maxmemory-policy noeviction.")
    if limit and used > 0.9 * limit:
        return warn("redis memory", f"{used / limit:.0%} of its memory is used.", "Raise maxmemory.")
    return ok("redis memory", f"{used / 1e6:.0f} MB are used, nothing is evicted ({policy}).")


def _keeping(info: dict[str, Any]) -> Finding:
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status") != "ok":
            return fail(
                "redis persistence", "It cannot write its append-only file.", "See its log; make room on its disk."
            )
        return ok("redis persistence", "It keeps an append-only file.")
    return warn(
        "redis persistence",
        "It keeps no append-only file: after a restart job ids come again from Postgres, some seconds late.",
        "Set appendonly yes.",
    )


async def _writing(client: Redis, stream: str) -> Finding:
    """As jobs are sent, to a stream of its own."""
    name = f"{stream}-doctor"
    try:
        await client.xadd(name, {"probe": "1"}, maxlen=1)
        await client.delete(name)
    except RedisError as error:
        return fail("redis writing", f"It takes no messages: {error}", "End what makes it read-only or full.")
    return ok("redis writing", "It takes messages.")
