"""Bounded reading from the bytes at hand, which may be only the head of the object.

Every header reader goes through `Window.read`, so running off the end always has one of two answers: fetch
the whole, or the file is truncated. Nothing is copied but what is asked for.
"""

from __future__ import annotations

from processors.contract import Incomplete, Source
from processors.photos.formats import rejection


class Window:
    """A view of a source's bytes. All offsets are in bytes from the start of the object."""

    __slots__ = ("complete", "end", "view")

    def __init__(self, source: Source) -> None:
        self.view = memoryview(source.data)
        self.complete = source.complete
        self.end = len(self.view) if source.complete else max(source.size_bytes, len(self.view))

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes. Raises Incomplete beyond the head, Unprocessable `truncated` beyond the
        object.
        """
        if offset < 0 or offset + size > self.end:
            raise rejection("truncated")
        if offset + size > len(self.view):
            raise Incomplete
        return bytes(self.view[offset : offset + size])

    def number(self, offset: int, size: int, order: str = "big") -> int:
        """The unsigned integer of `size` bytes there. Raises as `read` does."""
        return int.from_bytes(self.read(offset, size), "little" if order == "little" else "big")
