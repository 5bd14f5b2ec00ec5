"""S3's signatures by the letter of its documentation, written apart from the door's own code. Whatever goes into a
signature can be told otherwise. Keys and values must need no percent-encoding but that of a slash in a query.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from tests.integration.wrong_requests.wire import Draft

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
V2_SUBRESOURCES = ("acl", "delete", "partNumber", "tagging", "uploadId", "uploads", "versionId")


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Who signs, when, and for what. `late`: how far the clock is off. `names`: signed headers besides host and x-amz-,
    which are always signed; `leaves_out`: unless they stand here. `date`: the scope's, if it is not the request's."""

    access_key: str
    secret_key: str = field(repr=False)
    late: timedelta = timedelta()
    date: str = ""
    region: str = "us-east-1"
    service: str = "s3"
    terminator: str = "aws4_request"
    algorithm: str = "AWS4-HMAC-SHA256"
    names: tuple[str, ...] = ("content-type", "content-md5")
    leaves_out: tuple[str, ...] = ()

    @property
    def amz_date(self) -> str:
        return (datetime.now(UTC) + self.late).strftime("%Y%m%dT%H%M%SZ")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Where the signatures of chunks begin."""

    key: bytes
    amz_date: str
    scope: str
    seed: str

    def next(self, kind: str, previous: str, digests: str) -> str:
        text = f"AWS4-HMAC-SHA256-{kind}\n{self.amz_date}\n{self.scope}\n{previous}\n{digests}"
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sign_header(draft: Draft, host: str, payload: str, by: Signature) -> Chain:
    """V4 in the Authorization header."""
    amz_date = by.amz_date
    draft.headers[:0] = [("Host", host), ("x-amz-date", amz_date), ("x-amz-content-sha256", payload)]
    chain, names = _sign_v4(draft, amz_date, payload, by, _signed_names(draft, by))
    draft.headers.append(
        (
            "Authorization",
            f"{by.algorithm} Credential={by.access_key}/{chain.scope}, SignedHeaders={names}, Signature={chain.seed}",
        )
    )
    return chain


def sign_query(draft: Draft, host: str, by: Signature, *, expires: str = "600") -> None:
    """V4 in the query."""
    amz_date = by.amz_date
    draft.headers[:0] = [("Host", host)]
    names = _signed_names(draft, by)
    draft.query += [
        ("X-Amz-Algorithm", by.algorithm),
        ("X-Amz-Credential", quote(f"{by.access_key}/{_scope(by, amz_date)}", safe="")),
        ("X-Amz-Date", amz_date),
        ("X-Amz-Expires", expires),
        ("X-Amz-SignedHeaders", quote(";".join(names), safe="")),
    ]
    chain, _ = _sign_v4(draft, amz_date, "UNSIGNED-PAYLOAD", by, names)
    draft.query.append(("X-Amz-Signature", chain.seed))


def sign_query_v2(draft: Draft, host: str, by: Signature, *, expires_in: int = 600) -> None:
    """V2 in the query, as boto3 makes it by default."""
    draft.headers[:0] = [("Host", host)]
    expires = str(int((datetime.now(UTC) + by.late).timestamp()) + expires_in)
    custom = sorted((name.lower(), value) for name, value in draft.headers if name.lower().startswith("x-amz-"))
    covered = sorted(item for item in draft.query if item[0] in V2_SUBRESOURCES)
    resources = "&".join(name if value is None else f"{name}={value}" for name, value in covered)
    stated = {name.lower(): value for name, value in draft.headers}
    text = (
        f"{draft.method}\n{stated.get('content-md5', '')}\n{stated.get('content-type', '')}\n{expires}\n"
        + "".join(f"{name}:{value}\n" for name, value in custom)
        + draft.path
        + ("?" + resources if resources else "")
    )
    signature = base64.b64encode(hmac.new(by.secret_key.encode(), text.encode(), hashlib.sha1).digest()).decode()
    draft.query += [
        ("AWSAccessKeyId", by.access_key),
        ("Signature", quote(signature, safe="")),
        ("Expires", expires),
    ]


def sign_form(conditions: Sequence[Any], by: Signature, *, lasts: timedelta, version: int) -> list[tuple[str, str]]:
    """The fields of a form's signature, V4 or V2, over a policy with those conditions."""
    amz_date = by.amz_date
    stated: list[tuple[str, str]] = []
    if version == 4:
        stated = [
            ("x-amz-algorithm", by.algorithm),
            ("x-amz-credential", f"{by.access_key}/{_scope(by, amz_date)}"),
            ("x-amz-date", amz_date),
        ]
    document = {
        "expiration": (datetime.now(UTC) + lasts).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "conditions": [*conditions, *({name: value} for name, value in stated)],
    }
    policy = base64.b64encode(json.dumps(document).encode()).decode()
    if version == 4:
        signature = hmac.new(_key(by, amz_date), policy.encode(), hashlib.sha256).hexdigest()
        return [*stated, ("policy", policy), ("x-amz-signature", signature)]
    digest = hmac.new(by.secret_key.encode(), policy.encode(), hashlib.sha1).digest()
    signature = base64.b64encode(digest).decode()
    return [("AWSAccessKeyId", by.access_key), ("policy", policy), ("signature", signature)]


def _signed_names(draft: Draft, by: Signature) -> list[str]:
    found = {name.lower() for name, _ in draft.headers}
    wanted = {name for name in found if name in ("host", *by.names) or name.startswith("x-amz-")}
    return sorted(wanted.difference(by.leaves_out))


def _sign_v4(draft: Draft, amz_date: str, payload: str, by: Signature, names: list[str]) -> tuple[Chain, str]:
    lines = "".join(
        f"{name}:{','.join(value for key, value in draft.headers if key.lower() == name)}\n" for name in names
    )
    query = "&".join(sorted(f"{name}={value or ''}" for name, value in draft.query))
    joined = ";".join(names)
    canonical = f"{draft.method}\n{draft.path}\n{query}\n{lines}\n{joined}\n{payload}"
    scope, key = _scope(by, amz_date), _key(by, amz_date)
    text = f"AWS4-HMAC-SHA256\n{amz_date}\n{scope}\n{sha256(canonical.encode())}"
    seed = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return Chain(key=key, amz_date=amz_date, scope=scope, seed=seed), joined


def _scope(by: Signature, amz_date: str) -> str:
    return f"{by.date or amz_date[:8]}/{by.region}/{by.service}/{by.terminator}"


def _key(by: Signature, amz_date: str) -> bytes:
    key = ("AWS4" + by.secret_key).encode()
    for part in (by.date or amz_date[:8], by.region, by.service, by.terminator):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
