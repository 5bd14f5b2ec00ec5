"""The canonical forms of S3 signatures. They differ from generic SigV4: a path is decoded once and encoded once,
and neither dot segments nor doubled slashes are normalised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.s3.request import Header, QueryPair, RawRequest

# Parameters that carry a signature and ask for nothing themselves.
V4_PARAMETERS = frozenset(
    {
        b"X-Amz-Algorithm",
        b"X-Amz-Credential",
        b"X-Amz-Date",
        b"X-Amz-Expires",
        b"X-Amz-SignedHeaders",
        b"X-Amz-Signature",
        b"X-Amz-Security-Token",
    }
)
V2_PARAMETERS = frozenset({b"AWSAccessKeyId", b"Signature", b"Expires"})


def encode(text: bytes) -> bytes:
    """Percent-encoded but for the unreserved characters."""
    return quote_from_bytes(text, safe="-_.~").encode("ascii")


@lru_cache(maxsize=128)
def recode_path(path: bytes) -> bytes:
    """A raw path decoded once and encoded once. `+` means itself."""
    return quote_from_bytes(unquote_to_bytes(path), safe="/-_.~").encode("ascii") or b"/"


def canonical_query(pairs: Iterable[QueryPair]) -> bytes:
    """Encoded pairs, sorted by name and then value, duplicates kept. `acl` and `acl=` are one."""
    encoded = sorted((encode(pair.name), encode(pair.value)) for pair in pairs if pair.name != b"X-Amz-Signature")
    return b"&".join(b"%s=%s" % pair for pair in encoded)


def canonical_value(values: Iterable[bytes]) -> bytes:
    """A header's values: trimmed, inner whitespace as one space, joined by commas."""
    return b",".join([b" ".join(value.split()) for value in values])


def canonical_request(*, method: str, path: bytes, query: bytes, lines: Sequence[Header], payload_line: bytes) -> bytes:
    """`path` and `query` in canonical form, `lines` as sorted (lower-case name, canonical value)."""
    return b"\n".join(
        [
            method.encode("ascii", "replace"),
            path,
            query,
            *(b"%s:%s" % line for line in lines),
            b"",
            b";".join(name for name, _ in lines),
            payload_line,
        ]
    )


def string_to_sign(canonical: bytes, *, amz_date: str, scope: str) -> bytes:
    """What SigV4 signs in the end. `amz_date`: like 20130524T000000Z; `scope`: date/region/service/aws4_request."""
    digest = hashlib.sha256(canonical).hexdigest()
    return f"AWS4-HMAC-SHA256\n{amz_date}\n{scope}\n{digest}".encode("latin-1")


def join_query(pairs: Iterable[QueryPair]) -> bytes:
    """A query for the wire: order, duplicates and the presence of `=` kept."""
    return b"&".join(encode(p.name) + (b"=" + encode(p.value) if p.has_equals else b"") for p in pairs)


def strip_signature(request: RawRequest) -> tuple[QueryPair, ...]:
    """The query without the parameters of a query signature. What else a presigner hoisted out of the headers stays,
    so that the storage judges it as if it had been asked directly; but not what V2 clients send as a header, too."""
    names = {pair.name for pair in request.pairs}
    dropped: frozenset[bytes] = frozenset()
    if b"X-Amz-Signature" in names:
        dropped |= V4_PARAMETERS | {n for n in names if n.lower() in (b"x-amz-content-sha256", b"x-amz-security-token")}
    if b"AWSAccessKeyId" in names:
        dropped |= V2_PARAMETERS | {n for n in names if n.lower() == b"x-amz-security-token"}
        dropped |= {name for name in names if name.lower().startswith(b"x-amz-") and request.values(name.lower())}
    return tuple(pair for pair in request.pairs if pair.name not in dropped)
