"""Makes addresses and forms that let others store one object in the storage for a while: SigV4 in the query, and POST
policies. Pure.

What is signed, the storage holds clients to: the headers of an address must be sent with these very values, the fields
of a form must keep theirs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from gateway.s3.canonical import canonical_request, encode, recode_path, string_to_sign
from gateway.s3.claims import ALGORITHM
from gateway.s3.policy import sign_policy
from gateway.s3.scope import Scope, Signer, format_date, sign, signing_key

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def presign_url(
    method: str,
    place: tuple[str, str],
    *,
    endpoint: str,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    signer: Signer,
    now: datetime,
    expires_seconds: int,
) -> str:
    """An address for that method, path style. `place`: bucket and key; `endpoint`: scheme, host and port; `headers`: to
    be sent by the client, with these values; `expires_seconds`: 1 to 604,800."""
    scheme, host = split_endpoint(endpoint)
    amz_date = format_date(now)
    scope = Scope(date=amz_date[:8], region=signer.region)
    lines = sorted(
        [(b"host", host.encode("latin-1"))]
        + [(name.lower().encode("ascii"), value.strip().encode("utf-8")) for name, value in headers.items()]
    )
    stated = {
        **query,
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{signer.access_key}/{scope}",
        "X-Amz-Date": amz_date,
        "X-Amz-Expires": str(expires_seconds),
        "X-Amz-SignedHeaders": ";".join(name.decode("ascii") for name, _ in lines),
    }
    path = b"/".join(encode(part.encode("utf-8")) for part in f"/{place[0]}/{place[1]}".split("/"))
    encoded = b"&".join(sorted(encode(name.encode()) + b"=" + encode(value.encode()) for name, value in stated.items()))
    canonical = canonical_request(
        method=method, path=recode_path(path), query=encoded, lines=lines, payload_line=b"UNSIGNED-PAYLOAD"
    )
    text = string_to_sign(canonical, amz_date=amz_date, scope=str(scope))
    signature = sign(signing_key(signer.secret_key, scope.date, scope.region), text)
    return f"{scheme}://{host}{path.decode()}?{encoded.decode()}&X-Amz-Signature={signature}"


def sign_form(
    fields: Mapping[str, str],
    conditions: Iterable[Sequence[Any]],
    *,
    bucket: str,
    signer: Signer,
    now: datetime,
    expires_at: datetime,
) -> dict[str, str]:
    """The fields of a POST form, in order, to be followed by `file`. Each of `fields` must keep its value; `conditions`
    are further ones, as S3 writes them."""
    amz_date = format_date(now)
    scope = Scope(date=amz_date[:8], region=signer.region)
    signed = {
        **fields,
        "x-amz-algorithm": ALGORITHM,
        "x-amz-credential": f"{signer.access_key}/{scope}",
        "x-amz-date": amz_date,
    }
    document = {
        "expiration": expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "conditions": [{"bucket": bucket}, *({name: value} for name, value in signed.items()), *map(list, conditions)],
    }
    policy = base64.b64encode(json.dumps(document).encode("utf-8"))
    signature = sign_policy(signer.secret_key, policy, scope)
    return {**signed, "policy": policy.decode("ascii"), "x-amz-signature": signature}


def split_endpoint(endpoint: str) -> tuple[str, str]:
    """Scheme and host of an endpoint, as a client sends the host: without a port that its scheme implies."""
    parts = urlsplit(endpoint)
    return parts.scheme, parts.netloc.removesuffix(_DEFAULT_PORTS.get(parts.scheme, "")).lower()
