"""Browser forms made by hand, so that they can be wrong in every way: V4 and V2."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.conformance.site import REGION, Bucket, Login, Reply

BOUNDARY = "----form-of-a-test"
Fields = Sequence[tuple[str, str]]


def make_policy(bucket: str, *more: Any, minutes: int = 10, **changed: Any) -> dict[str, Any]:
    """A policy for keys that begin with `foo`, with further conditions; `changed`: members that are to be otherwise,
    None for not at all."""
    conditions: list[Any] = [
        {"bucket": bucket},
        ["starts-with", "$key", "foo"],
        {"acl": "private"},
        ["starts-with", "$Content-Type", "text/plain"],
        ["content-length-range", 0, 1024],
        *more,
    ]
    until = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    policy = {"expiration": until, "conditions": conditions, **changed}
    return {name: value for name, value in policy.items() if value is not None}


def sign_v2(login: Login, policy: Mapping[str, Any] | str) -> list[tuple[str, str]]:
    encoded = _encode(policy)
    signature = base64.b64encode(hmac.digest(login.secret_key.encode(), encoded.encode(), "sha1")).decode()
    return [("AWSAccessKeyId", login.access_key), ("signature", signature), ("policy", encoded)]


def sign_v4(login: Login, policy: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Signs the policy with the conditions that V4 asks for added to it."""
    now = datetime.now(UTC)
    scope = f"{now:%Y%m%d}/{REGION}/s3/aws4_request"
    stated = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{login.access_key}/{scope}",
        "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}",
    }
    conditions = [*policy.get("conditions", []), *({name: value} for name, value in stated.items())]
    encoded = _encode({**policy, "conditions": conditions})
    key = b"AWS4" + login.secret_key.encode()
    for part in (*scope.split("/"),):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    signature = hmac.new(key, encoded.encode(), hashlib.sha256).hexdigest()
    return [*stated.items(), ("policy", encoded), ("x-amz-signature", signature)]


def post(
    bucket: Bucket,
    fields: Fields,
    *,
    file: bytes | None = b"bar",
    filename: str = "upload.txt",
    after: Fields = (),
    content_type: str = f"multipart/form-data; boundary={BOUNDARY}",
    headers: Fields = (),
) -> Reply:
    """Send a form. `file` None: without one; `after`: fields behind it."""
    parts = [_part(f'name="{name}"', value.encode()) for name, value in fields]
    if file is not None:
        parts.append(_part(f'name="file"; filename="{filename}"\r\nContent-Type: text/plain', file))
    parts += [_part(f'name="{name}"', value.encode()) for name, value in after]
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return bucket.send("POST", headers=[("Content-Type", content_type), *headers], body=body, is_signed=False)


def _part(described: str, content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {described}\r\n\r\n".encode() + content + b"\r\n"


def _encode(policy: Mapping[str, Any] | str) -> str:
    text = policy if isinstance(policy, str) else json.dumps(policy)
    return base64.b64encode(text.encode()).decode()
