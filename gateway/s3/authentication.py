"""Which of S3's signatures a request carries, if any: V4 in the header, V4 or V2 in the query, never two of them.

The caller looks up the secret between `read_claim` and `verify_claim`. Forms carry theirs in the body, see policy.
"""

from __future__ import annotations

from datetime import datetime

from gateway.s3 import claims, sigv2, sigv4
from gateway.s3.errors import S3Error
from gateway.s3.identity import UNSIGNED, Verified, read_payload
from gateway.s3.request import RawRequest
from gateway.s3.sigv4 import Rules

Claim = claims.Claim | sigv2.Claim


def read_claim(request: RawRequest) -> Claim | None:
    """The one signature of a request; None for an anonymous one. Raises S3Error, InvalidArgument for two signatures."""
    authorization = request.header(b"authorization") or None  # an empty one says nothing
    names = {pair.name for pair in request.pairs}
    in_query = [read for read, markers in _QUERY_READERS if not names.isdisjoint(markers)]
    is_ours = authorization is not None and authorization.upper().startswith(b"AWS")
    if len(in_query) + is_ours > 1:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed: the query or the Authorization header.")
    if in_query:  # a foreign header, such as Bearer, is for somebody else
        return in_query[0](request)
    if authorization is None:
        return None
    if authorization.startswith(b"AWS "):
        raise S3Error(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )
    if not is_ours:
        raise S3Error("InvalidArgument", "Unsupported Authorization Type", details={"ArgumentName": "Authorization"})
    return claims.read_header(request)


def describe_unsigned(request: RawRequest) -> Verified:
    """What a request without a signature says of its body: clients hash and frame it all the same. Raises S3Error
    AccessDenied, InvalidArgument, NotImplemented."""
    mode, sha256 = read_payload(request.header(b"x-amz-content-sha256") or UNSIGNED)
    if mode.has_signed_chunks:
        raise S3Error("AccessDenied", "Signed chunks need a signed request.")
    return Verified(
        access_key="",
        version="none",
        is_presigned=False,
        payload_mode=mode,
        payload_sha256=sha256,
        seed_signature="",
    )


def verify_claim(
    request: RawRequest,
    claim: Claim,
    *,
    secret_key: str | None,
    rules: Rules,
    now: datetime,
    host_bucket: str | None = None,
) -> Verified:
    """The claim, proven. `secret_key` None: the key is unknown; `host_bucket`: see targets.locate. Raises S3Error."""
    if isinstance(claim, sigv2.Claim):
        return sigv2.verify(request, claim, secret_key=secret_key, host_bucket=host_bucket, now=now)
    return sigv4.verify(request, claim, secret_key=secret_key, rules=rules, now=now, host_bucket=host_bucket)


_QUERY_READERS = ((claims.read_query, claims.MARKERS), (sigv2.read_query, sigv2.MARKERS))
