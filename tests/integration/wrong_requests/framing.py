"""aws-chunked bodies whose chunks, signatures and trailers can be changed one by one before they are written."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass, field

import awscrt.checksums

from tests.integration.wrong_requests.signing import SIGNED_TRAILER, UNSIGNED_TRAILER, Chain, sha256

CHECKSUMS = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc32c": lambda data: awscrt.checksums.crc32c(data).to_bytes(4, "big"),
    "crc64nvme": lambda data: awscrt.checksums.crc64nvme(data).to_bytes(8, "big"),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


def checksum(algorithm: str, data: bytes) -> str:
    return base64.b64encode(CHECKSUMS[algorithm](data)).decode()


@dataclass(kw_only=True)
class Chunk:
    """`signature` empty: an unsigned chunk. `size`: as it is written."""

    data: bytes
    size: str
    signature: str = ""

    def render(self) -> bytes:
        extension = f";chunk-signature={self.signature}" if self.signature else ""
        return f"{self.size}{extension}\r\n".encode() + (self.data + b"\r\n" if self.data else b"")


@dataclass(kw_only=True)
class Frames:
    """The chunks, the empty one last; then the lines of the trailer."""

    chunks: list[Chunk]
    trailer: list[str] = field(default_factory=list)
    end: bytes = b"\r\n"

    def render(self) -> bytes:
        lines = "".join(f"{line}\r\n" for line in self.trailer).encode()
        return b"".join(chunk.render() for chunk in self.chunks) + lines + self.end


def frame(pieces: list[bytes], mode: str, chain: Chain, *, algorithm: str = "crc32") -> Frames:
    """A right body in that mode. `algorithm` empty: without a checksum."""
    chunks, previous = [], chain.seed
    for piece in (*pieces, b""):
        chunk = Chunk(data=piece, size=f"{len(piece):x}")
        if mode != UNSIGNED_TRAILER:
            previous = chunk.signature = chain.next("PAYLOAD", previous, f"{sha256(b'')}\n{sha256(piece)}")
        chunks.append(chunk)
    if mode not in (SIGNED_TRAILER, UNSIGNED_TRAILER):
        return Frames(chunks=chunks)
    lines = [f"x-amz-checksum-{algorithm}:{checksum(algorithm, b''.join(pieces))}"] if algorithm else []
    if mode == UNSIGNED_TRAILER:
        return Frames(chunks=chunks, trailer=lines)
    signature = chain.next("TRAILER", previous, sha256("".join(f"{line}\n" for line in lines).encode()))
    return Frames(chunks=chunks, trailer=[*lines, f"x-amz-trailer-signature:{signature}"])
