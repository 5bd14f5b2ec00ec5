"""What a checked signature establishes: whose key it was, and what it says about the body.

How a body travels is decided by x-amz-content-sha256 alone. Clients omit or misstate Content-Encoding and
Transfer-Encoding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from gateway.s3.errors import S3Error
from gateway.s3.scope import Scope

UNSIGNED = b"UNSIGNED-PAYLOAD"
_SHA256 = re.compile(rb"[0-9a-fA-F]{64}")


class PayloadMode(Enum):
    """How the body is guarded; the value is the header's, but for SHA256."""

    SHA256 = "sha256"
    UNSIGNED = "UNSIGNED-PAYLOAD"
    SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    @property
    def is_chunked(self) -> bool:
        return self not in (PayloadMode.SHA256, PayloadMode.UNSIGNED)

    @property
    def has_signed_chunks(self) -> bool:
        return self in (PayloadMode.SIGNED_CHUNKS, PayloadMode.SIGNED_CHUNKS_TRAILER)

    @property
    def has_trailer(self) -> bool:
        return self in (PayloadMode.SIGNED_CHUNKS_TRAILER, PayloadMode.UNSIGNED_CHUNKS_TRAILER)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A signature that is right, or that there is none. `payload_sha256`: 64 lower-case digits that the body must
    match, or None. `seed_signature`, `signing_key`, `scope` and `amz_date` begin the chain of chunk signatures (V4
    only)."""

    access_key: str
    version: str  # v4, v2 or none
    is_presigned: bool
    payload_mode: PayloadMode
    payload_sha256: str | None
    seed_signature: str
    signing_key: bytes = field(default=b"", repr=False)
    scope: Scope | None = None
    amz_date: str = ""
    expires_at: datetime | None = None


def read_payload(stated: bytes) -> tuple[PayloadMode, str | None]:
    """The mode, and the hash that the body must have. Raises S3Error InvalidArgument, NotImplemented."""
    if _SHA256.fullmatch(stated):
        return PayloadMode.SHA256, stated.decode("ascii").lower()
    text = stated.decode("latin-1")
    if text.startswith("STREAMING-AWS4-ECDSA"):
        raise S3Error("NotImplemented", "SigV4A is not supported. Use AWS4-HMAC-SHA256.")
    for mode in PayloadMode:
        if mode is not PayloadMode.SHA256 and mode.value == text:
            return mode, None
    raise S3Error(
        "InvalidArgument",
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value that S3 knows, or a valid sha256 value.",
        details={"ArgumentName": "x-amz-content-sha256", "ArgumentValue": text},
    )
