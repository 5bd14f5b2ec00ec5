"""Verifies Signature Version 2 in the query, which boto3 still makes by default when it presigns for other servers.

V2 covers the path, some headers and a fixed list of sub-resources, not the whole query: a parameter that would choose
another operation and is not covered is refused. V2 in the Authorization header is not supported.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote_to_bytes

from gateway.s3.canonical import recode_path
from gateway.s3.claims import MAX_EXPIRES_SECONDS
from gateway.s3.errors import S3Error
from gateway.s3.identity import UNSIGNED, PayloadMode, Verified, read_payload
from gateway.s3.operations import SELECTORS
from gateway.s3.request import RawRequest
from gateway.s3.scope import is_same
from gateway.s3.sigv4 import expired, mismatch

MARKERS = (b"AWSAccessKeyId", b"Signature")

# The sub-resources that V2 signs.
SUBRESOURCES = frozenset(
    b"accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics notification "
    b"object-lock partNumber policy replication requestPayment response-cache-control response-content-disposition "
    b"response-content-encoding response-content-language response-content-type response-expires restore select "
    b"select-type storageClass tagging torrent uploadId uploads versionId versioning versions website".split()
)
_NOT_A_SECRET = "0" * 40
_DIGITS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a V2 signature says of itself; nothing of it is proven. `expires`: Unix time in seconds."""

    access_key: str
    signature: str
    expires: int
    payload_mode: PayloadMode
    payload_sha256: str | None


def read_query(request: RawRequest) -> Claim:
    """The claim of a presigned URL. Raises S3Error AccessDenied, InvalidArgument, InvalidRequest."""
    access_key, signature, expires = (request.parameter(n) for n in (b"AWSAccessKeyId", b"Signature", b"Expires"))
    if not (access_key and signature and expires):
        raise S3Error(
            "AccessDenied",
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
        )
    if not _DIGITS.fullmatch(expires.decode("latin-1")):
        raise S3Error("AccessDenied", "Invalid date (should be seconds since epoch)")
    mode, sha256 = read_payload(request.stated(b"x-amz-content-sha256") or UNSIGNED)
    if mode.has_signed_chunks:
        raise S3Error("InvalidRequest", "Signed chunks need AWS4-HMAC-SHA256.")
    return Claim(
        access_key=access_key.decode("latin-1"),
        signature=signature.decode("latin-1"),
        expires=int(expires),
        payload_mode=mode,
        payload_sha256=sha256,
    )


def verify(
    request: RawRequest, claim: Claim, *, secret_key: str | None, host_bucket: str | None, now: datetime
) -> Verified:
    """The claim, proven. `host_bucket`: the bucket where the host names it. A URL may be valid for 7 days at most, as
    in V4. Raises S3Error SignatureDoesNotMatch, AccessDenied, InvalidAccessKeyId."""
    if claim.expires < now.timestamp():
        raise expired(datetime.fromtimestamp(claim.expires, UTC), now)
    if claim.expires > now.timestamp() + MAX_EXPIRES_SECONDS:
        raise S3Error("AccessDenied", f"Expires may lie at most {MAX_EXPIRES_SECONDS} seconds ahead.")
    _check_covered(request)
    secret = (_NOT_A_SECRET if secret_key is None else secret_key).encode("utf-8")
    first = b""
    for text in _candidates(request, claim, host_bucket):
        first = first or text
        ours = base64.b64encode(hmac.digest(secret, text, "sha1")).decode("ascii")
        if is_same(ours, claim.signature) and secret_key is not None:
            return Verified(
                access_key=claim.access_key,
                version="v2",
                is_presigned=True,
                payload_mode=claim.payload_mode,
                payload_sha256=claim.payload_sha256,
                seed_signature=claim.signature,
                expires_at=datetime.fromtimestamp(0, UTC) + timedelta(seconds=claim.expires),
            )
    if secret_key is None:
        raise S3Error("InvalidAccessKeyId", details={"AWSAccessKeyId": claim.access_key})
    raise mismatch(claim.access_key, claim.signature, first)


def _check_covered(request: RawRequest) -> None:
    # Storages differ in which spelling of response- they look at.
    choosing = {
        pair.name for pair in request.pairs if pair.name in SELECTORS or pair.name.lower().startswith(b"response-")
    }
    uncovered = choosing - SUBRESOURCES
    if uncovered:
        names = b", ".join(sorted(uncovered)).decode("utf-8", "replace")
        raise S3Error("AccessDenied", f"Signature version 2 does not cover {names}. Use AWS4-HMAC-SHA256.")


def _candidates(request: RawRequest, claim: Claim, host_bucket: str | None) -> Iterator[bytes]:
    """The strings that the client may have signed, the likeliest first."""
    prefix = f"/{host_bucket}".encode() if host_bucket else b""
    paths = dict.fromkeys((request.path, recode_path(request.path)))
    # A header counts before what was hoisted: it is what the object gets.
    content_type, md5 = (
        [*request.values(name), *_hoisted(request, name), b""][0] for name in (b"content-type", b"content-md5")
    )
    custom, resources = _custom_headers(request), _subresources(request)
    for path in paths:
        yield b"".join(
            [
                b"%s\n%s\n%s\n%d\n" % (request.method.encode("ascii", "replace"), md5, content_type, claim.expires),
                custom,
                prefix,
                path,
                resources,
            ]
        )


def _hoisted(request: RawRequest, name: bytes) -> list[bytes]:
    return [pair.value for pair in request.pairs if pair.name.lower() == name]


def _custom_headers(request: RawRequest) -> bytes:
    merged = {name: list(values) for name, values in request.fields.items() if name.startswith(b"x-amz-")}
    for pair in request.pairs:
        name, value = pair.name.lower(), pair.value.strip()
        # Clients send again as a header what they hoisted; two different values are signed as two.
        if name.startswith(b"x-amz-") and merged.get(name) != [value]:
            merged.setdefault(name, []).append(value)
    return b"".join(b"%s:%s\n" % (name, b",".join(merged[name])) for name in sorted(merged))


def _subresources(request: RawRequest) -> bytes:
    """Taken from the raw query: `+` means itself here, unlike everywhere else. Names count as what they mean: an
    encoded one chooses an operation, too."""
    split = (part.partition(b"=") for part in request.query.split(b"&"))
    parts = [(unquote_to_bytes(name), equals, unquote_to_bytes(value)) for name, equals, value in split]
    kept = sorted((part for part in parts if part[0] in SUBRESOURCES), key=lambda part: part[0])
    text = b"&".join(name + equals + value for name, equals, value in kept)
    return b"?" + text if text else b""
