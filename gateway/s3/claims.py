"""Reads what a Signature Version 4 says of itself, in the Authorization header or in the query, and refuses what is
malformed. Nothing here is proven: see sigv4.verify.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gateway.s3.errors import S3Error
from gateway.s3.identity import UNSIGNED, PayloadMode, read_payload
from gateway.s3.request import RawRequest
from gateway.s3.scope import Scope, format_date, parse_date

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_EXPIRES_SECONDS = 604_800
MARKERS = (b"X-Amz-Algorithm", b"X-Amz-Credential", b"X-Amz-Signature")

_MALFORMED = "AuthorizationHeaderMalformed"
_PARAMETERS = "AuthorizationQueryParametersError"
_NUMBER = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a V4 signature says of itself; nothing of it is proven. `expires_seconds` None: in the header.
    `payload_lines`: what the last line of the canonical request may be."""

    access_key: str
    scope: Scope
    signed_headers: tuple[bytes, ...]
    signature: str
    amz_date: str
    expires_seconds: int | None
    payload_mode: PayloadMode
    payload_sha256: str | None
    payload_lines: tuple[bytes, ...]

    @property
    def is_presigned(self) -> bool:
        return self.expires_seconds is not None

    @property
    def malformed_code(self) -> str:
        return _PARAMETERS if self.is_presigned else _MALFORMED


def read_header(request: RawRequest) -> Claim:
    """The claim of an Authorization header. Raises S3Error AuthorizationHeaderMalformed, AccessDenied, InvalidRequest,
    InvalidArgument, NotImplemented."""
    algorithm, _, rest = (request.header(b"authorization") or b"").decode("latin-1").partition(" ")
    _check_algorithm(algorithm, _MALFORMED)
    parts: dict[str, str] = {}
    for item in rest.split(","):
        name, equals, value = item.strip().partition("=")
        if not equals or name in parts or name not in ("Credential", "SignedHeaders", "Signature"):
            raise S3Error(_MALFORMED)
        parts[name] = value
    if len(parts) != 3:
        raise S3Error(_MALFORMED, "The authorization header needs Credential, SignedHeaders and Signature.")
    stated = request.header(b"x-amz-content-sha256")
    if stated is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    mode, sha256 = read_payload(stated)
    access_key, scope = read_credential(parts["Credential"], _MALFORMED)
    return Claim(
        access_key=access_key,
        scope=scope,
        signed_headers=_read_names(parts["SignedHeaders"], _MALFORMED),
        signature=parts["Signature"],
        amz_date=_header_date(request),
        expires_seconds=None,
        payload_mode=mode,
        payload_sha256=sha256,
        payload_lines=(stated,),
    )


def read_query(request: RawRequest) -> Claim:
    """The claim of a presigned URL. Raises S3Error AuthorizationQueryParametersError, InvalidArgument,
    NotImplemented."""
    algorithm = _parameter(request, b"X-Amz-Algorithm")
    _check_algorithm(algorithm, _PARAMETERS)
    credential, amz_date, expires, names, signature = (
        _parameter(request, name)
        for name in (b"X-Amz-Credential", b"X-Amz-Date", b"X-Amz-Expires", b"X-Amz-SignedHeaders", b"X-Amz-Signature")
    )
    if parse_date(amz_date) is None:
        raise S3Error(_PARAMETERS, "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    is_number = _NUMBER.fullmatch(expires) is not None
    if not is_number or not 1 <= int(expires) <= MAX_EXPIRES_SECONDS:
        raise S3Error(
            _PARAMETERS,
            f"X-Amz-Expires must be a number of seconds from 1 to {MAX_EXPIRES_SECONDS}.",
            # A life out of bounds is AWS's error with the status of Ceph's: clients of both are told what they know.
            status=403 if is_number else None,
        )
    stated = request.stated(b"x-amz-content-sha256")
    mode, sha256 = read_payload(stated or UNSIGNED)
    access_key, scope = read_credential(credential, _PARAMETERS)
    return Claim(
        access_key=access_key,
        scope=scope,
        signed_headers=_read_names(names, _PARAMETERS),
        signature=signature,
        amz_date=amz_date,
        expires_seconds=int(expires),
        payload_mode=mode,
        payload_sha256=sha256,
        # Some signers repeat a pinned hash there, the common SDKs do not.
        payload_lines=(UNSIGNED,) if stated in (None, UNSIGNED) else (UNSIGNED, stated or UNSIGNED),
    )


def read_credential(credential: str, code: str) -> tuple[str, Scope]:
    """The access key, which may hold slashes, and the scope. Raises S3Error with that code."""
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not parts[0] or parts[4] != "aws4_request":
        raise S3Error(code, 'The Credential must be "<access key>/YYYYMMDD/<region>/s3/aws4_request".')
    return parts[0], Scope(date=parts[1], region=parts[2], service=parts[3])


def _check_algorithm(algorithm: str, code: str) -> None:
    if algorithm.startswith("AWS4-ECDSA"):
        raise S3Error("NotImplemented", "SigV4A is not supported. Use AWS4-HMAC-SHA256.")
    if algorithm != ALGORITHM:
        raise S3Error(code, "Only AWS4-HMAC-SHA256 is supported.")


def _parameter(request: RawRequest, name: bytes) -> str:
    values = [pair.value for pair in request.pairs if pair.name == name]
    if len(values) != 1 or not values[0]:
        raise S3Error(
            _PARAMETERS,
            "Query-string authentication version 4 requires X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
            "X-Amz-Date, X-Amz-SignedHeaders and X-Amz-Expires, each once.",
        )
    return values[0].decode("latin-1")


def _read_names(text: str, code: str) -> tuple[bytes, ...]:
    names = text.lower().encode("latin-1").split(b";")
    if not all(names) or len(set(names)) != len(names):
        raise S3Error(code, "SignedHeaders must be distinct names of headers, joined by semicolons.")
    return tuple(sorted(names))


def _header_date(request: RawRequest) -> str:
    stated = request.header(b"x-amz-date")
    if stated is not None:
        if parse_date(stated.decode("latin-1")) is not None:
            return stated.decode("ascii")
    elif dated := request.header(b"date"):
        text = dated.decode("latin-1")
        try:
            return text if parse_date(text) else format_date(_as_utc(parsedate_to_datetime(text)))
        except (ValueError, OverflowError):
            pass
    raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")


def _as_utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
