"""A client's checksum from behind its body, sent on behind the body: so the storage verifies it, too, and keeps it.

The body goes out in chunks without signatures, however the client had framed it. Content-Encoding does not say so:
x-amz-content-sha256 is what counts, and some storages keep what Content-Encoding says with the object.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.s3.chunked import Decoder
from gateway.s3.request import Header

PAYLOAD = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

_CHUNK_BYTES = 64 << 10  # AWS takes smaller ones than 8 KiB at the end only


def announce(decoder: Decoder, length: int) -> tuple[Header, ...]:
    """The headers that say what comes. `length`: bytes of the body itself."""
    names = b",".join(decoder.promised)
    return (b"x-amz-trailer", names), (b"x-amz-decoded-content-length", str(length).encode("ascii"))


async def frame(pieces: AsyncIterator[bytes], decoder: Decoder) -> AsyncIterator[bytes]:
    """`pieces`: the body that this decoder proves; they end only where it is proven. Raises as they do, before any end
    of the body is told."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        if len(held) >= _CHUNK_BYTES:
            yield _chunk(held)
            held.clear()
    lines = b"".join(b"%b:%b\r\n" % line for line in decoder.trailer)
    yield (_chunk(held) if held else b"") + b"0\r\n" + lines + b"\r\n"


def _chunk(data: bytearray) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"
