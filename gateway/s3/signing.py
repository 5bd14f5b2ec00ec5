"""Signs requests to the storage with SigV4 in the header, and says which of a client's headers may travel on.

The client's own signature never does. Addresses that others may use are made elsewhere (gateway.s3.presigning).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from gateway.s3.canonical import canonical_query, canonical_request, canonical_value, recode_path, string_to_sign
from gateway.s3.request import Header, RawRequest
from gateway.s3.scope import Scope, Signer, format_date, sign, signing_key

# Between two neighbours only (RFC 9110), or made anew for the storage.
_NOT_FORWARDED = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade expect authorization host date content-length x-amz-date x-amz-security-token x-amz-content-sha256 "
    b"accept-encoding".split()
)


def forwardable(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The headers of a client that may be sent to the storage, in their order, before they are signed anew. Not those
    that MinIO takes orders by, which need no signature; nor names with a _, which some servers take for a -."""
    kept = [(name.lower(), (name, value)) for name, value in headers]
    dropped = _NOT_FORWARDED.union(
        token.strip().lower() for lower, (_, value) in kept if lower == b"connection" for token in value.split(b",")
    )
    return tuple(header for lower, header in kept if _may_travel(lower, dropped))


def _may_travel(name: bytes, dropped: frozenset[bytes]) -> bool:
    if name in dropped or name.startswith(b"x-minio-"):
        return False
    return b"_" not in name or name.startswith(b"x-amz-meta-")


def sign_request(request: RawRequest, signer: Signer, *, payload: str, now: datetime) -> tuple[Header, ...]:
    """All headers to send, signed. `request`: as it will be sent, its headers `forwardable`, its host the storage's.
    `payload`: the body's sha256 in hexadecimal digits, or UNSIGNED-PAYLOAD."""
    amz_date = format_date(now)
    scope = Scope(date=amz_date[:8], region=signer.region)
    headers = (
        (b"Host", request.host.encode("latin-1")),
        (b"x-amz-date", amz_date.encode("ascii")),
        (b"x-amz-content-sha256", payload.encode("ascii")),
        *request.headers,
    )
    lines = _lines_to_sign(headers)
    canonical = canonical_request(
        method=request.method,
        path=recode_path(request.path),
        query=canonical_query(request.pairs),
        lines=lines,
        payload_line=payload.encode("ascii"),
    )
    text = string_to_sign(canonical, amz_date=amz_date, scope=str(scope))
    signature = sign(signing_key(signer.secret_key, scope.date, scope.region), text)
    names = b";".join(name for name, _ in lines).decode("latin-1")
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={signer.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return (*headers, (b"Authorization", authorization.encode("latin-1")))


def _lines_to_sign(headers: Iterable[Header]) -> list[Header]:
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in (b"host", b"content-type", b"content-md5") or lower.startswith(b"x-amz-"):
            values.setdefault(lower, []).append(value)
    return [(name, canonical_value(values[name])) for name in sorted(values)]
