"""What servers say of themselves, as the board tells it."""

from __future__ import annotations

from processors.redis_details import read_details


def test_a_server_that_tells_little_is_told_so() -> None:
    """What a managed server leaves out is None, not a guess; an unlimited memory is no limit of zero."""
    told = read_details({"redis_version": "7.2.4", "maxmemory": 0}, depth=3, groups=[])
    assert (told["server"], told["version"], told["max_memory_bytes"]) == ("redis", "7.2.4", None)
    assert (told["used_memory_bytes"], told["append_only_file"], told["mode"]) == (None, None, None)
    assert (told["stream_messages"], told["stream_pending"], told["stream_consumers"]) == (3, 0, 0)


def test_valkey_tells_its_own_version() -> None:
    """And not that of the Redis that it is compatible with; pending messages of all groups are added up."""
    info = {"server_name": "valkey", "valkey_version": "9.1.2", "redis_version": "7.2.4", "aof_enabled": 1}
    told = read_details(info, depth=0, groups=[{"pending": 2, "consumers": 1}, {"pending": 1, "consumers": 4}])
    assert (told["server"], told["version"], told["append_only_file"]) == ("valkey", "9.1.2", True)
    assert (told["stream_pending"], told["stream_consumers"]) == (3, 5)
