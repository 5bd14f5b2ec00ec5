"""The checksums that a client promises for its body, in a header or in a trailer, computed as the body passes.

The headers are about the body in PutObject, UploadPart and the XML operations only: CompleteMultipartUpload states the
checksum of the finished object there. A header of an algorithm that we do not know is left to the storage.

A checksum in the query was hoisted there by a presigner. The AWS SDK for JavaScript signs that of an empty body into
every URL for a PUT, because it has no other; AWS does not look at it, and here it counts as none. Any other was meant.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Protocol

from isal import isal_zlib

from gateway.s3 import crc
from gateway.s3.errors import S3Error
from gateway.s3.request import Header, QueryPair, RawRequest

_PREFIX = b"x-amz-checksum-"


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A CRC with the manners of hashlib."""

    def __init__(self, function: Callable[[bytes, int], int], size_bytes: int) -> None:
        self._function = function
        self._size_bytes = size_bytes
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")


# name -> (how to begin one, bytes of its value)
ALGORITHMS: dict[str, tuple[Callable[[], Digest], int]] = {
    "crc32": (lambda: _Crc(isal_zlib.crc32, 4), 4),
    "crc32c": (lambda: _Crc(crc.crc32c, 4), 4),
    "crc64nvme": (lambda: _Crc(crc.crc64nvme, 8), 8),
    "sha1": (lambda: hashlib.sha1(usedforsecurity=False), 20),
    "sha256": (hashlib.sha256, 32),
    "md5": (lambda: hashlib.md5(usedforsecurity=False), 16),
}


_OF_NOTHING = {
    _PREFIX + name.encode("ascii"): base64.b64encode(begin().digest())
    for name, (begin, _) in ALGORITHMS.items()
    if name != "md5"
}


class Check:
    """One promised checksum. `expected` None: it comes in the trailer, under the header's name."""

    def __init__(self, algorithm: str, header: bytes, expected: bytes | None, *, error_code: str = "BadDigest") -> None:
        self.algorithm = algorithm
        self.header = header
        self._expected = expected
        self._error_code = error_code
        self._running = ALGORITHMS[algorithm][0]()

    @property
    def is_in_trailer(self) -> bool:
        return self._expected is None

    def update(self, data: bytes) -> None:
        self._running.update(data)

    def verify(self, in_trailer: bytes = b"") -> None:
        """Raises S3Error BadDigest (XAmzContentSHA256Mismatch), MalformedTrailerError, InvalidRequest."""
        expected = self._expected
        if expected is None:
            if not in_trailer:
                raise S3Error("MalformedTrailerError", f"The trailer {self.header.decode()} is missing.")
            expected = _decode(in_trailer, self.header, self.algorithm, "InvalidRequest")
        if not hmac.compare_digest(expected, self._running.digest()):
            name = "Content-MD5" if self.header == b"content-md5" else self.algorithm.upper()
            message = None if self._error_code != "BadDigest" else f"The {name} you specified did not match the body."
            raise S3Error(self._error_code, message)


def read_checks(
    request: RawRequest, *, payload_sha256: str | None, has_trailer: bool, of_body: bool = True
) -> tuple[Check, ...]:
    """Everything that the body must match. `payload_sha256`, `has_trailer`: of the verified signature. `of_body`: the
    x-amz-checksum- headers speak of this body. Raises S3Error InvalidRequest, BadDigest, InvalidDigest,
    InvalidArgument, MalformedTrailerError."""
    checks = [*_md5_checks(request), *(_header_checks(request) if of_body else ())]
    if payload_sha256 is not None:
        expected = bytes.fromhex(payload_sha256)
        checks.append(Check("sha256", b"x-amz-content-sha256", expected, error_code="XAmzContentSHA256Mismatch"))
    if has_trailer:
        checks.extend(Check(_algorithm_of(name), name, None) for name in _trailer_names(request))
    named = [check for check in checks if check.header.startswith(_PREFIX)]
    if len(named) > 1:
        raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header.")
    wanted = request.header(b"x-amz-sdk-checksum-algorithm")
    if wanted is not None and named and named[0].algorithm != wanted.decode("latin-1").lower():
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if has_trailer and not any(check.is_in_trailer for check in checks):
        raise S3Error("MalformedTrailerError", "x-amz-trailer must name the checksum that follows the body.")
    return tuple(checks)


def drop_empty(pairs: tuple[QueryPair, ...]) -> tuple[QueryPair, ...]:
    """A query without checksums of nothing: storages that look at them refuse every body."""
    if not any(_is_of_nothing(pair) for pair in pairs):
        return pairs
    announced = b"x-amz-sdk-checksum-algorithm"
    return tuple(pair for pair in pairs if not _is_of_nothing(pair) and pair.name.lower() != announced)


def verify_all(checks: Iterable[Check]) -> None:
    """For bodies without a trailer. Raises S3Error as `Check.verify`."""
    for check in checks:
        check.verify()


def _md5_checks(request: RawRequest) -> Iterable[Check]:
    if (md5 := request.header(b"content-md5")) is not None:
        yield Check("md5", b"content-md5", _decode(md5, b"content-md5", "md5", "InvalidDigest"))


def _header_checks(request: RawRequest) -> Iterable[Check]:
    for name, value in _stated(request):
        algorithm = _algorithm_of(name)
        yield Check(algorithm, name, _decode(value, name, algorithm, "BadDigest"))


def _stated(request: RawRequest) -> Iterable[Header]:
    """The checksums in headers, and those that a presigner hoisted into the query."""
    for name in _OF_NOTHING:
        if (value := request.header(name)) is not None:
            yield name, value
    for pair in request.pairs:
        if pair.name.lower() in _OF_NOTHING and not _is_of_nothing(pair):
            yield pair.name.lower(), pair.value


def _is_of_nothing(pair: QueryPair) -> bool:
    return _OF_NOTHING.get(pair.name.lower()) == pair.value


def _trailer_names(request: RawRequest) -> list[bytes]:
    return [name.strip().lower() for value in request.values(b"x-amz-trailer") for name in value.split(b",")]


def _algorithm_of(trailer: bytes) -> str:
    algorithm = trailer.removeprefix(_PREFIX).decode("latin-1")
    if not trailer.startswith(_PREFIX) or algorithm not in ALGORITHMS or algorithm == "md5":
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    return algorithm


def _decode(value: bytes, header: bytes, algorithm: str, code: str) -> bytes:
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    # Only the form that encoders write: the last character has bits that mean nothing.
    if len(decoded) != ALGORITHMS[algorithm][1] or base64.b64encode(decoded) != value:
        raise S3Error(code, f"Value for {header.decode('latin-1')} header is invalid.")
    return decoded
