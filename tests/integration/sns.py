"""SNS over HTTP for tests: one that is played here with a key of its own, and a way for moto's to reach a gateway."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

TOPIC = "arn:aws:sns:eu-central-1:123456789012:photos"
AWS_ORIGIN = "https://sns.us-east-1.amazonaws.com"


@dataclass(kw_only=True)
class PlayedTopic:
    """A topic with a key of its own: signs as SNS does, serves its certificate, takes confirmations."""

    origin: str = ""
    key: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    confirmed: list[str] = field(default_factory=list)  # tokens
    certificates_served: int = 0
    absent_asked: int = 0  # times that /absent.pem was
    is_down: bool = False
    slow_asked: asyncio.Event = field(default_factory=asyncio.Event)  # somebody waits for /slow.pem
    slow_goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    def notification(self, message: str, **changes: Any) -> dict[str, Any]:
        fields = {"Type": "Notification", "Subject": "Amazon S3 Notification", "Message": message}
        return self._signed(fields | changes)

    def confirmation(self, kind: str = "SubscriptionConfirmation", **changes: Any) -> dict[str, Any]:
        token = uuid.uuid4().hex
        url = f"{self.origin}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={token}"
        fields = {"Type": kind, "Message": "You have chosen to subscribe.", "Token": token, "SubscribeURL": url}
        return self._signed(fields | changes)

    def _signed(self, fields: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document = {
            "MessageId": str(uuid.uuid4()),
            "TopicArn": TOPIC,
            "Timestamp": now,
            "SignatureVersion": "2",
            "SigningCertURL": f"{self.origin}/SimpleNotificationService-1.pem",
            **fields,
        }
        names = (
            ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
            if document["Type"] == "Notification"
            else ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        )
        text = "".join(f"{name}\n{document[name]}\n" for name in names)
        signature = self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return {"Signature": base64.b64encode(signature).decode(), **document}

    def certificate(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
        return (
            builder.not_valid_after(now + timedelta(days=1)).sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)
        )

    async def answer(self, request: web.Request) -> web.Response:
        if self.is_down:
            return web.Response(status=500)
        if request.path == "/absent.pem":
            self.absent_asked += 1
            return web.Response(status=404)
        if request.path == "/slow.pem":
            self.slow_asked.set()
            await self.slow_goes_on.wait()
        if request.path.endswith(".pem"):
            self.certificates_served += 1
            return web.Response(body=self.certificate())
        self.confirmed.append(request.query["Token"])
        return web.Response(text="<ConfirmSubscriptionResponse/>")


@asynccontextmanager
async def playing() -> AsyncIterator[PlayedTopic]:
    """A topic whose server listens."""
    topic = PlayedTopic()
    app = web.Application()
    app.router.add_get("/{path:.*}", topic.answer)
    async with TestServer(app) as server:
        topic.origin = f"http://127.0.0.1:{server.port}"
        yield topic


@dataclass(kw_only=True)
class Relay:
    """Stands where AWS's own host does: moto names that for its certificates, outside of what it signs. Passes moto's
    messages on to the hook with an address here, and moto's certificates back."""

    moto_url: str
    origin: str = ""
    hook_url: str = ""
    statuses: list[int] = field(default_factory=list)  # the hook's answers

    async def post(self, request: web.Request) -> web.Response:
        document = json.loads(await request.read())
        document["SigningCertURL"] = document["SigningCertURL"].replace(AWS_ORIGIN, self.origin)
        headers = {"Content-Type": request.headers["Content-Type"]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.hook_url, data=json.dumps(document), headers=headers) as answer,
        ):
            self.statuses.append(answer.status)
            return web.Response(status=answer.status)

    async def get(self, request: web.Request) -> web.Response:
        # moto tells its services apart by the scope of a signature, which it does not check.
        headers = {
            "Authorization": "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/sns/aws4_request, Signature=any"
        }
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.moto_url + request.path, headers=headers) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read())


@asynccontextmanager
async def relaying(moto_url: str) -> AsyncIterator[Relay]:
    """A relay that listens; its `hook_url` is to be set."""
    relay = Relay(moto_url=moto_url)
    app = web.Application()
    app.router.add_post("/", relay.post)
    app.router.add_get("/{name}.pem", relay.get)
    async with TestServer(app) as server:
        relay.origin = f"http://127.0.0.1:{server.port}"
        yield relay
