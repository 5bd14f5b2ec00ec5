"""Takes aws-chunked framing off a body, piece by piece, and proves the body while it passes.

The last piece is held back until every signature, the trailer, the checksums and the length have been verified: whoever
forwards the pieces with the declared length cannot complete a false body. Nothing here limits how slowly a body comes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto

from gateway.s3.checksums import Check
from gateway.s3.errors import S3Error
from gateway.s3.identity import Verified
from gateway.s3.request import Header, RawRequest
from gateway.s3.scope import is_same, sign

MAX_CHUNK_HEADER_BYTES = 4 << 10
MAX_TRAILER_BYTES = 16 << 10
MAX_OBJECT_BYTES = 48 << 40  # as S3 allows now; a body must also fit its own declared length

_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_TRAILER_SIGNATURE = b"x-amz-trailer-signature"
_EMPTY_SHA256 = hashlib.sha256().hexdigest()
_FRAMING_HEADERS = frozenset(
    {b"x-amz-trailer", b"x-amz-decoded-content-length", b"x-amz-sdk-checksum-algorithm", b"content-length"}
)


class _State(Enum):
    HEADER = auto()  # waits for the line before a chunk
    DATA = auto()
    AFTER_DATA = auto()  # waits for the line end behind a chunk
    TRAILER = auto()
    END = auto()


class Decoder:
    """One body. `decoded_length`: as the client declared it. `checks`: see checksums.read_checks. After an error it
    takes nothing more and gives nothing out."""

    def __init__(self, verified: Verified, *, decoded_length: int, checks: Sequence[Check] = ()) -> None:
        self._signatures = _Chain(verified) if verified.payload_mode.has_signed_chunks else None
        self._has_trailer = verified.payload_mode.has_trailer
        self._checks = tuple(checks)
        self._missing = decoded_length  # bytes that no chunk has announced yet
        self._state = _State.HEADER
        self._rest = b""  # not yet understood, no more than the caps above
        self._chunk_missing = 0
        self._chunk_signature = b""
        self._trailer: dict[bytes, bytes] = {}
        self._trailer_bytes = 0
        self._held = b""
        self._failure: S3Error | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The decoded pieces that may go on; any number of them. Raises S3Error InvalidRequest, IncompleteBody,
        SignatureDoesNotMatch, MalformedTrailerError, BadDigest."""
        return self._guarded(self._feed, data)

    def finish(self) -> list[bytes]:
        """The last piece, if any, of a body that is proven. Raises S3Error IncompleteBody where it was cut short."""
        return self._guarded(self._finish, b"")

    @property
    def promised(self) -> tuple[bytes, ...]:
        """The names of the checksums that come in the trailer."""
        return tuple(check.header for check in self._checks if check.is_in_trailer)

    @property
    def trailer(self) -> tuple[Header, ...]:
        """Those checksums, as they came. They are right once `finish` has returned."""
        return tuple((name, self._trailer[name]) for name in self.promised)

    def _guarded(self, step: Callable[[bytes], list[bytes]], data: bytes) -> list[bytes]:
        if self._failure is not None:
            raise self._failure
        try:
            return step(data)
        except S3Error as error:
            self._failure, self._held, self._rest = error, b"", b""
            raise

    def _finish(self, _: bytes) -> list[bytes]:
        if self._state is not _State.END:
            raise S3Error("IncompleteBody", "The body ended before its last chunk.")
        held, self._held = self._held, b""
        return [held] if held else []

    def _feed(self, data: bytes) -> list[bytes]:
        if self._rest:
            data = self._rest + data
        pieces: list[bytes] = []
        position = 0
        while position < len(data):
            if self._state is _State.DATA:
                piece = data[position : position + self._chunk_missing]
                position += len(piece)
                self._take(piece)
                pieces.append(piece)
                continue
            if self._state is _State.END:
                raise S3Error("InvalidRequest", "There is data behind the last chunk.")
            end = self._find_line_end(data, position)
            if end < 0:
                break
            self._take_line(data[position:end])
            position = end + 2
        self._rest = data[position:]
        return self._hold_back(pieces)

    def _hold_back(self, pieces: list[bytes]) -> list[bytes]:
        if not pieces:
            return []
        earlier, self._held = self._held, pieces.pop()
        return [earlier, *pieces] if earlier else pieces

    def _find_line_end(self, data: bytes, position: int) -> int:
        """Where the line that begins there ends, or -1 where its end has not come yet."""
        cap = {_State.HEADER: MAX_CHUNK_HEADER_BYTES, _State.AFTER_DATA: 0}.get(
            self._state, MAX_TRAILER_BYTES - self._trailer_bytes
        )
        end = data.find(b"\r\n", position, position + cap + 2)
        if end < 0 and len(data) - position >= cap + 2:
            code = "MalformedTrailerError" if self._state is _State.TRAILER else "InvalidRequest"
            raise S3Error(code, "The aws-chunked framing is malformed.")
        return end

    def _take(self, piece: bytes) -> None:
        self._chunk_missing -= len(piece)
        if self._signatures is not None:
            self._signatures.update(piece)
        for check in self._checks:
            check.update(piece)
        if not self._chunk_missing:
            self._state = _State.AFTER_DATA

    def _take_line(self, line: bytes) -> None:
        if self._state is _State.HEADER:
            self._open_chunk(line)
        elif self._state is _State.AFTER_DATA:
            if self._signatures is not None:
                self._signatures.close_chunk(self._chunk_signature)
            self._state = _State.HEADER
        elif line:
            self._take_trailer(line)
        else:
            self._verify_end()
            self._state = _State.END

    def _open_chunk(self, line: bytes) -> None:
        size_text, _, extension = line.partition(b";")
        name, _, self._chunk_signature = extension.partition(b"=")
        if not _SIZE.fullmatch(size_text) or name != (b"chunk-signature" if self._signatures is not None else b""):
            raise S3Error("InvalidRequest", "The aws-chunked framing is malformed.")
        size = int(size_text, 16)
        if size > self._missing or (size == 0 and self._missing):
            raise S3Error("IncompleteBody", "The chunks and x-amz-decoded-content-length do not agree.")
        self._missing -= size
        self._chunk_missing = size
        self._state = _State.DATA
        if size == 0:
            if self._signatures is not None:
                self._signatures.close_chunk(self._chunk_signature)
            self._state = _State.TRAILER

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        name, colon, value = line.partition(b":")
        name = name.strip().lower()
        promised = {check.header for check in self._checks if check.is_in_trailer}
        if self._signatures is not None:
            promised.add(_TRAILER_SIGNATURE)
        if not self._has_trailer or not colon or name in self._trailer or name not in promised:
            raise S3Error("MalformedTrailerError")
        self._trailer[name] = value.strip()

    def _verify_end(self) -> None:
        if self._signatures is not None and self._has_trailer:
            signature = self._trailer.pop(_TRAILER_SIGNATURE, None)
            if signature is None:
                raise S3Error("MalformedTrailerError", "x-amz-trailer-signature is missing.")
            self._signatures.close_trailer(self._trailer, signature)
        for check in self._checks:
            check.verify(self._trailer.get(check.header, b""))


class _Chain:
    """Signatures of chunks: each signs the one before it."""

    def __init__(self, verified: Verified) -> None:
        assert verified.scope is not None
        self._key = verified.signing_key
        self._context = f"{verified.amz_date}\n{verified.scope}"
        self._previous = verified.seed_signature
        self._sha256 = hashlib.sha256()

    def update(self, data: bytes) -> None:
        self._sha256.update(data)

    def close_chunk(self, signature: bytes) -> None:
        """Raises S3Error SignatureDoesNotMatch."""
        self._close("PAYLOAD", f"{_EMPTY_SHA256}\n{self._sha256.hexdigest()}", signature)
        self._sha256 = hashlib.sha256()

    def close_trailer(self, trailer: dict[bytes, bytes], signature: bytes) -> None:
        """Raises S3Error SignatureDoesNotMatch."""
        text = b"".join(b"%s:%s\n" % item for item in sorted(trailer.items()))
        self._close("TRAILER", hashlib.sha256(text).hexdigest(), signature)

    def _close(self, kind: str, digests: str, signature: bytes) -> None:
        text = f"AWS4-HMAC-SHA256-{kind}\n{self._context}\n{self._previous}\n{digests}"
        ours = sign(self._key, text.encode("latin-1"))
        theirs = signature.decode("latin-1")
        if not is_same(ours, theirs):
            raise S3Error("SignatureDoesNotMatch", details={"StringToSign": text, "SignatureProvided": theirs})
        self._previous = ours


def read_decoded_length(request: RawRequest) -> int:
    """Bytes of the body without its framing. Raises S3Error MissingContentLength, InvalidArgument."""
    text = request.header(b"x-amz-decoded-content-length")
    if text is None:
        raise S3Error("MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
    if not _LENGTH.fullmatch(text) or int(text) > MAX_OBJECT_BYTES:
        raise S3Error("InvalidArgument", "x-amz-decoded-content-length is invalid.")
    return int(text)


def strip_framing(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The headers of the decoded body: without those about the framing, and without the token aws-chunked. A
    Content-Encoding that does not hold it stays as it was, byte by byte."""
    return tuple(header for name, value in headers if (header := _strip_header(name, value)) is not None)


def _strip_header(name: bytes, value: bytes) -> Header | None:
    lower = name.lower()
    if lower in _FRAMING_HEADERS:
        return None
    if lower != b"content-encoding":
        return name, value
    tokens = [token.strip() for token in value.split(b",")]
    kept = [token for token in tokens if token.lower() != b"aws-chunked"]
    if len(kept) == len(tokens):
        return name, value
    return (name, b",".join(kept)) if kept else None
