"""A live S3 door before a real storage, in this process and on a socket; and a client that signs as it is told, so that
requests can be wrong in every way.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from gateway.door.app import make_server, open_door
from gateway.s3.request import RawRequest
from gateway.s3.scope import Scope, Signer, signing_key
from gateway.s3.signing import sign_request
from gateway.settings import GatewaySettings
from processors.hooks import parse_hooks
from processors.settings import JobSettings
from storage import credentials, sealing
from storage.blobs import Blobs
from storage.database import Database
from storage.sealing import MasterKeys
from tests.access_keys import make_key
from tests.integration.stage import storage_settings
from tests.servers import S3Backend

REGION = "us-east-1"
EMPTY = hashlib.sha256(b"").hexdigest()
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
Query = Sequence[tuple[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    body: bytes
    headers: Any

    @property
    def code(self) -> str:
        return self.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


@dataclass(kw_only=True)
class Client:
    """Signs as it is told. `shift`: how far its clock is off."""

    url: str
    key: credentials.Credential
    session: aiohttp.ClientSession
    shift: timedelta = field(default_factory=timedelta)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        headers: dict[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] = b"",
        payload: str | None = None,
        late: dict[str, str] | None = None,
        drop: Sequence[str] = (),
        signer: Signer | None = None,
    ) -> Reply:
        """`payload`: for x-amz-content-sha256, the body's hash if left out; a body in pieces, which goes without a
        length, needs one. `late`: headers set after signing; `drop`: headers taken away after it."""
        host = self.url.partition("://")[2]
        target = quote(path, safe="/-_.~")
        text = "&".join(
            quote(name, safe="-_.~") + ("" if v is None else "=" + quote(v, safe="-_.~")) for name, v in query
        )
        raw = RawRequest(
            method=method,
            path=target.encode(),
            query=text.encode(),
            headers=tuple((name.encode(), value.encode()) for name, value in (headers or {}).items()),
            host=host,
        )
        signed = sign_request(
            raw,
            signer or Signer(access_key=self.key.access_key, secret_key=self.key.secret_key, region=REGION),
            payload=payload or hashlib.sha256(bytes(body)).hexdigest(),
            now=datetime.now(UTC) + self.shift,
        )
        sent = {name.decode(): value.decode() for name, value in signed if name.decode().lower() not in drop}
        sent |= late or {}
        url = URL(f"{self.url}{target}" + (f"?{text}" if text else ""), encoded=True)
        async with self.session.request(method, url, headers=sent, data=body or None) as answer:
            return Reply(status=answer.status, body=await answer.read(), headers=answer.headers)

    async def put(self, path: str, body: bytes | AsyncIterator[bytes], **more: Any) -> Reply:
        return await self.send("PUT", path, body=body, **more)

    def frame(
        self, chunks: Sequence[bytes], *, mode: str, seed: str, amz_date: str, trailer: bytes = b"", spoil: str = ""
    ) -> bytes:
        """An aws-chunked body. `spoil`: first, last or trailer: whose signature is wrong."""
        scope = Scope(date=amz_date[:8], region=REGION)
        key = signing_key(self.key.secret_key, scope.date, REGION)
        previous, out = seed, b""
        for number, chunk in enumerate((*chunks, b"")):
            digest = hashlib.sha256(chunk).hexdigest()
            text = f"AWS4-HMAC-SHA256-PAYLOAD\n{amz_date}\n{scope}\n{previous}\n{EMPTY}\n{digest}"
            previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
            wrong = (spoil == "first" and number == 0) or (spoil == "last" and not chunk)
            shown = "0" * 64 if wrong else previous
            extension = f";chunk-signature={shown}".encode() if mode != UNSIGNED_TRAILER else b""
            out += b"%x" % len(chunk) + extension + b"\r\n" + (chunk + b"\r\n" if chunk else b"")
        if trailer:
            out += trailer + b"\r\n"
            if mode == SIGNED_TRAILER:
                digest = hashlib.sha256(trailer + b"\n").hexdigest()
                text = f"AWS4-HMAC-SHA256-TRAILER\n{amz_date}\n{scope}\n{previous}\n{digest}"
                signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
                out += (
                    b"x-amz-trailer-signature:" + (("0" * 64) if spoil == "trailer" else signature).encode() + b"\r\n"
                )
        return out + b"\r\n"

    async def put_framed(
        self,
        path: str,
        chunks: Sequence[bytes],
        *,
        mode: str,
        trailer: bytes = b"",
        spoil: str = "",
        declared: int | None = None,
        cut: int = 0,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """PUT of an aws-chunked body. `declared`: the stated length; `cut`: so many bytes of its end are not sent."""
        length = sum(map(len, chunks)) if declared is None else declared
        stated = {"x-amz-decoded-content-length": str(length), "content-encoding": "aws-chunked", **(headers or {})}
        if trailer:
            stated["x-amz-trailer"] = trailer.partition(b":")[0].decode()
        host, target = self.url.partition("://")[2], quote(path, safe="/-_.~")
        lines = tuple((name.encode(), value.encode()) for name, value in stated.items() if value)
        raw = RawRequest(method="PUT", path=target.encode(), query=b"", headers=lines, host=host)
        signer = Signer(access_key=self.key.access_key, secret_key=self.key.secret_key, region=REGION)
        signed = sign_request(raw, signer, payload=mode, now=datetime.now(UTC))
        sent = {name.decode(): value.decode() for name, value in signed}
        seed = sent["Authorization"].rpartition("=")[2]
        body = self.frame(chunks, mode=mode, seed=seed, amz_date=sent["x-amz-date"], trailer=trailer, spoil=spoil)
        data = body[: len(body) - cut]
        async with self.session.put(URL(self.url + target, encoded=True), headers=sent, data=data) as answer:
            return Reply(status=answer.status, body=await answer.read(), headers=answer.headers)


@dataclass(frozen=True, kw_only=True)
class Site:
    client: Client
    blobs: Blobs
    database: Database
    bucket: str
    derived: str
    master_keys: MasterKeys
    session: aiohttp.ClientSession

    async def has(self, key: str) -> bool:
        reply = await self.client.send("HEAD", f"/{self.bucket}/{key}")
        return reply.status == 200

    async def photos(self) -> list[tuple[str, bool]]:
        """(key, whether it is current) of every photo, oldest first."""
        async with self.database.connection() as conn:
            rows = await conn.fetch(
                "select key, superseded_at is null and deleted_at is null as current from object order by id"
            )
        return [(row["key"], row["current"]) for row in rows]

    async def value(self, statement: str, *arguments: object) -> Any:
        async with self.database.connection() as conn:
            return await conn.fetchval(statement, *arguments)

    async def key_for(self, **more: Any) -> Client:
        """A client with a key of its own: scopes, places, expires_at."""
        async with self.database.transaction() as conn:
            key = await make_key(conn, self.master_keys, **more)
        return Client(url=self.client.url, key=key, session=self.session)


@asynccontextmanager
async def open_site(
    database: Database,
    blobs: Blobs,
    postgres_dsn: str,
    s3_backend: S3Backend,
    bucket_prefix: str,
    *,
    pool_size: int = 10,
    **more: Any,
) -> AsyncIterator[Site]:
    """A door with two buckets of the storage behind it. `pool_size`: its connections to Postgres; `more`: settings of
    the door."""
    master_key, bucket, derived = sealing.generate(), f"{bucket_prefix}-photos", f"{bucket_prefix}-derived"
    await blobs.ensure_bucket(bucket)
    await blobs.ensure_bucket(derived)
    storage = storage_settings(
        postgres_dsn, s3_backend, default_bucket=bucket, derived_bucket=derived, postgres_pool_size=pool_size
    )
    settings = GatewaySettings(
        **{
            "master_key": master_key,
            "s3_public_places": f"{derived}/{bucket}/public/",
            "chunk_timeout_seconds": 2,
            **more,
        }
    )
    jobs = JobSettings(redis_url="redis://127.0.0.1:1/0", hooks=parse_hooks("*,*/unwatched/:none"))
    async with open_door(settings, jobs, storage) as door, aiohttp.ClientSession() as session:
        runner = web.ServerRunner(make_server(door, settings))
        await runner.setup()
        listening = web.TCPSite(runner, "127.0.0.1", 0)
        await listening.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        nobody = Client(url=url, key=credentials.generate(), session=session)
        made = Site(
            client=nobody,
            blobs=blobs,
            database=database,
            bucket=bucket,
            derived=derived,
            master_keys=MasterKeys.parse(master_key),
            session=session,
        )
        made.client.key = (await made.key_for()).key
        yield made
        await runner.cleanup()
