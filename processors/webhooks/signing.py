"""Standard Webhooks: what is sent with a body so that its receiver can tell who sent it, and when.

https://www.standardwebhooks.com; the signature is made by that project's own library. Does no I/O.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from standardwebhooks.webhooks import Webhook

PREFIX = "whsec_"
TEST_TYPE = "webhook.test"
_SECRET_BYTES = 32


def make_secret() -> str:
    """A fresh secret, as receivers' libraries take it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def make_test_body() -> dict[str, Any]:
    """An event of no photo, to try a webhook with."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    data = {"detail": "Nothing happened: somebody tries this webhook."}
    return {"id": f"test-{secrets.token_hex(8)}", "type": TEST_TYPE, "timestamp": now, "data": data}


def write_body(body: Mapping[str, Any]) -> str:
    """The body as it is sent and signed; the same each time."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def sign(text: str, *, message_id: str, at: datetime, signing_secrets: Sequence[str]) -> dict[str, str]:
    """The headers of a request with this body, signed with each secret: a receiver needs one of them."""
    signatures = [Webhook(secret).sign(message_id, at, text) for secret in signing_secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": f"Safelight/{version('safelight')}",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
