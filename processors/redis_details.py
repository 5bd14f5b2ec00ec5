"""What Redis or Valkey says of itself, as the few numbers that people look at. Pure: asks nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def read_details(info: Mapping[str, Any], *, depth: int, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the answers to INFO, XLEN and XINFO GROUPS. None stands for what this server does not tell."""
    return {
        "server": info.get("server_name", "redis"),
        "version": info.get("valkey_version") or info.get("redis_version"),
        "mode": info.get("server_mode") or info.get("redis_mode"),
        "role": info.get("role"),
        "os": info.get("os"),
        "port": info.get("tcp_port"),
        "uptime_seconds": info.get("uptime_in_seconds"),
        "used_memory_bytes": info.get("used_memory"),
        "peak_memory_bytes": info.get("used_memory_peak"),
        "max_memory_bytes": info.get("maxmemory") or None,  # 0: as much as there is
        "system_memory_bytes": info.get("total_system_memory"),
        "fragmentation_ratio": info.get("mem_fragmentation_ratio"),
        "eviction_policy": info.get("maxmemory_policy"),
        "append_only_file": None if "aof_enabled" not in info else bool(info["aof_enabled"]),
        "connected_clients": info.get("connected_clients"),
        "blocked_clients": info.get("blocked_clients"),
        "evicted_keys": info.get("evicted_keys"),
        "stream_messages": depth,
        "stream_pending": sum(int(group["pending"]) for group in groups),
        "stream_consumers": sum(int(group["consumers"]) for group in groups),
    }
