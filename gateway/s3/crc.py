"""CRC32C and CRC64NVME: from the AWS common runtime where that is installed, else from tables, byte pair by byte pair.

The tables give the same values some thousand times more slowly.
"""

from __future__ import annotations

import importlib
import sys
from array import array
from collections.abc import Callable
from functools import lru_cache

# crc(data, the CRC of all data before it or 0) -> the CRC of both
Crc = Callable[[bytes, int], int]

_CRC32C = (0x82F63B78, 32)  # reflected polynomial, bits
_CRC64NVME = (0x9A6C9329AC4BC9B5, 64)


@lru_cache(maxsize=4)
def _tables(polynomial: int) -> tuple[list[int], list[int]]:
    """What one byte, and what a little-endian pair of bytes, does to a register of zeros."""
    single = list(range(256))
    for _ in range(8):
        single = [value >> 1 ^ (polynomial if value & 1 else 0) for value in single]
    pair = [single[value >> 8 ^ single[value & 255] & 255] ^ single[value & 255] >> 8 for value in range(65536)]
    return single, pair


def _from_table(data: bytes, previous: int, polynomial: int, bits: int) -> int:
    single, pair = _tables(polynomial)
    ones = (1 << bits) - 1
    register = previous ^ ones
    even = len(data) & ~1
    words = array("H", data[:even])
    if sys.byteorder == "big":
        words.byteswap()
    for word in words:
        register = pair[register & 65535 ^ word] ^ register >> 16
    for byte in data[even:]:
        register = single[register & 255 ^ byte] ^ register >> 8
    return register ^ ones


def crc32c_from_table(data: bytes, previous: int = 0) -> int:
    return _from_table(data, previous, *_CRC32C)


def crc64nvme_from_table(data: bytes, previous: int = 0) -> int:
    return _from_table(data, previous, *_CRC64NVME)


@lru_cache(maxsize=1)
def _chosen() -> tuple[Crc, Crc]:
    """Imported when first needed: the runtime takes 5 MB, and most clients ask for neither."""
    try:
        native = importlib.import_module("awscrt.checksums")
    except ImportError:
        return crc32c_from_table, crc64nvme_from_table
    return native.crc32c, native.crc64nvme


def crc32c(data: bytes, previous: int = 0) -> int:
    return _chosen()[0](data, previous)


def crc64nvme(data: bytes, previous: int = 0) -> int:
    return _chosen()[1](data, previous)
