"""Verifies AWS Signature Version 4, in the Authorization header and in the query, by S3's rules.

`claims` says whose key is claimed; `verify` decides. Looking the key up lies between the two, with the caller. SigV4A,
other services and session tokens are not supported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product

from gateway.s3.canonical import canonical_query, canonical_request, canonical_value, recode_path, string_to_sign
from gateway.s3.claims import Claim
from gateway.s3.errors import S3Error
from gateway.s3.identity import Verified
from gateway.s3.request import Header, RawRequest
from gateway.s3.scope import Scope, is_same, parse_date, sign, signing_key

MAX_SKEW = timedelta(minutes=15)

_NOT_A_SECRET = "0" * 40  # unknown keys cost the same HMACs
_REWRITTEN_ENCODINGS = (b"identity", b"gzip")  # what proxies make of a signed accept-encoding


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What this server expects. `region` None: any. `public_hosts`: its names where a proxy changes the Host header."""

    region: str | None = None
    public_hosts: tuple[str, ...] = ()


def verify(
    request: RawRequest,
    claim: Claim,
    *,
    secret_key: str | None,
    rules: Rules,
    now: datetime,
    host_bucket: str | None = None,
) -> Verified:
    """The claim, proven. `secret_key` None: the key is unknown; `host_bucket`: the bucket where the host names it.
    Raises S3Error SignatureDoesNotMatch, AccessDenied, RequestTimeTooSkewed, InvalidAccessKeyId,
    AuthorizationHeaderMalformed, AuthorizationQueryParametersError."""
    check_scope(claim.scope, claim.amz_date, rules.region, claim.malformed_code)
    expires_at = _check_time(claim, now)
    _check_signed(request, claim)
    key = signing_key(_NOT_A_SECRET if secret_key is None else secret_key, claim.scope.date, claim.scope.region)
    first: tuple[bytes, bytes] | None = None
    for canonical in _candidates(request, claim, rules, host_bucket):
        text = string_to_sign(canonical, amz_date=claim.amz_date, scope=str(claim.scope))
        first = first or (text, canonical)
        if is_same(sign(key, text), claim.signature) and secret_key is not None:
            return Verified(
                access_key=claim.access_key,
                version="v4",
                is_presigned=claim.is_presigned,
                payload_mode=claim.payload_mode,
                payload_sha256=claim.payload_sha256,
                seed_signature=claim.signature,
                signing_key=key,
                scope=claim.scope,
                amz_date=claim.amz_date,
                expires_at=expires_at,
            )
    if secret_key is None:
        raise S3Error("InvalidAccessKeyId", details={"AWSAccessKeyId": claim.access_key})
    assert first is not None
    raise mismatch(claim.access_key, claim.signature, *first)


def mismatch(access_key: str, signature: str, text: bytes, canonical: bytes | None = None) -> S3Error:
    """SignatureDoesNotMatch, with what we signed: it shows where two signers differ."""
    details = {
        "AWSAccessKeyId": access_key,
        "StringToSign": text.decode("utf-8", "replace"),
        "SignatureProvided": signature,
    }
    if canonical is not None:
        details["CanonicalRequest"] = canonical.decode("utf-8", "replace")
    return S3Error("SignatureDoesNotMatch", details=details)


def check_scope(scope: Scope, amz_date: str, region: str | None, code: str) -> None:
    """Raises S3Error with that code where the scope is of another day, service or region."""
    if scope.service != "s3":
        raise S3Error(code, f'Incorrect service "{scope.service}". This endpoint belongs to "s3".')
    if scope.date != amz_date[:8]:
        raise S3Error(code, f'Invalid credential date "{scope.date}". It is not the date of the request.')
    if region is not None and scope.region != region:
        raise S3Error(code, f"The region '{scope.region}' is wrong; expecting '{region}'", details={"Region": region})


def _check_time(claim: Claim, now: datetime) -> datetime | None:
    at = parse_date(claim.amz_date)
    assert at is not None
    if claim.expires_seconds is None:
        if abs(now - at) > MAX_SKEW:
            details = {"RequestTime": claim.amz_date, "ServerTime": _iso(now), "MaxAllowedSkewMilliseconds": "900000"}
            raise S3Error("RequestTimeTooSkewed", details=details)
        return None
    if now < at - MAX_SKEW:
        raise S3Error("AccessDenied", "Request is not valid yet", details={"ServerTime": _iso(now)})
    expires_at = at + timedelta(seconds=claim.expires_seconds)
    if now > expires_at:
        raise expired(expires_at, now)
    return expires_at


def expired(expires_at: datetime, now: datetime) -> S3Error:
    return S3Error(
        "AccessDenied", "Request has expired", details={"Expires": _iso(expires_at), "ServerTime": _iso(now)}
    )


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_signed(request: RawRequest, claim: Claim) -> None:
    """Every x-amz- header must be signed: an unsigned one (a copy source, an ACL) could have been added on the way."""
    needed = {name for name in request.fields if name.startswith(b"x-amz-")} | {b"host"}
    if missing := sorted(needed.difference(claim.signed_headers)):
        names = b", ".join(missing).decode("latin-1")
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            details={"HeadersNotSigned": names},
        )


def _candidates(request: RawRequest, claim: Claim, rules: Rules, host_bucket: str | None) -> Iterator[bytes]:
    """The canonical requests that the client may have signed, the likeliest first."""
    recoded = recode_path(request.path)
    paths = [recoded] if recoded == request.path else [recoded, request.path]  # some clients send unescaped bytes
    # A public name may stand in for the host, but never change the bucket that the host names.
    prefix = f"{host_bucket}." if host_bucket else ""
    hosts = dict.fromkeys((request.host, *(prefix + host for host in rules.public_hosts)))
    encodings = [None, *(_REWRITTEN_ENCODINGS if b"accept-encoding" in claim.signed_headers else ())]
    query = canonical_query(request.pairs)
    for payload_line, path, host, encoding in product(claim.payload_lines, paths, hosts, encodings):
        lines = _signed_lines(request, claim, host, encoding)
        yield canonical_request(method=request.method, path=path, query=query, lines=lines, payload_line=payload_line)


def _signed_lines(request: RawRequest, claim: Claim, host: str, encoding: bytes | None) -> list[Header]:
    values = {name: request.values(name) for name in claim.signed_headers}
    if claim.is_presigned:
        for pair in request.pairs:  # a header that was hoisted although it was signed as one
            if values.get(pair.name.lower()) == []:
                values[pair.name.lower()] = [pair.value]
    values[b"host"] = [host.encode("latin-1")]
    if encoding is not None:
        values[b"accept-encoding"] = [encoding]
    return [(name, canonical_value(values[name])) for name in claim.signed_headers]
