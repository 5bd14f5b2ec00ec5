"""A gateway of the integration tests with a client that puts photos into the storage itself, by plain HTTP."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient
from yarl import URL

from gateway.app import create_app
from gateway.context import CONTEXT, Context
from gateway.settings import GatewaySettings
from processors.hooks import parse_hooks
from storage import credentials
from storage.database import Database
from tests.integration.stage import in_transaction, job_settings, storage_settings
from tests.photos import make_jpeg
from tests.servers import S3Backend

PHOTO = make_jpeg(64, 48)


@dataclass(frozen=True, kw_only=True)
class App:
    """A gateway in this process, a key to it, and a client that knows neither of them: `send` speaks plain HTTP to the
    storage."""

    client: TestClient[Any, Any]
    credential: credentials.Credential
    bucket: str
    browser: aiohttp.ClientSession

    @property
    def context(self) -> Context:
        app = self.client.app
        assert app is not None
        return app[CONTEXT]

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        bearer = {"Authorization": f"Bearer {self.credential.token}"}
        async with await self.client.request(method, path, json=body, headers={**bearer, **headers}) as answer:
            return answer.status, await answer.json() if answer.content_type.endswith("json") else None

    async def open(self, **body: Any) -> dict[str, Any]:
        """Without a method: for a PUT, of PHOTO if no size is named."""
        if "method" not in body:
            body = {"size_bytes": len(PHOTO), **body}
        status, upload = await self.ask("POST", "/v1/uploads", body)
        assert status == 201, upload
        assert isinstance(upload, dict)
        return upload

    async def complete(self, upload: Mapping[str, Any], body: Any = None) -> tuple[int, Any]:
        return await self.ask("POST", f"/v1/uploads/{upload['id']}/complete", body)

    async def look(self, upload: Mapping[str, Any]) -> dict[str, Any]:
        status, found = await self.ask("GET", f"/v1/uploads/{upload['id']}")
        assert status == 200, found
        assert isinstance(found, dict)
        return found

    async def send(
        self, url: str, body: bytes = PHOTO, headers: Mapping[str, str] | None = None, method: str = "PUT"
    ) -> tuple[int, str]:
        """Status and S3's error code, "" where there is none."""
        sent = {"Content-Type": "application/octet-stream", **(headers or {})}
        if headers is None:
            sent.pop("Content-Type")
        async with self.browser.request(
            method, URL(url, encoded=True), data=body, headers=sent, skip_auto_headers=["Content-Type"]
        ) as answer:
            found = re.search("<Code>([^<]+)</Code>", await answer.text())
            return answer.status, found[1] if found else ""

    async def put(self, upload: Mapping[str, Any], body: bytes = PHOTO, **changed: str) -> tuple[int, str]:
        return await self.send(upload["url"], body, {**upload["headers"], **changed})

    async def post(self, upload: Mapping[str, Any], body: bytes = PHOTO, **changed: str) -> tuple[int, str]:
        form = aiohttp.FormData()
        for name, text in {**upload["fields"], **changed}.items():
            form.add_field(name, text)
        form.add_field("file", body, filename="whatever.bin", content_type="image/jpeg")
        async with self.browser.post(upload["url"], data=form) as answer:
            found = re.search("<Code>([^<]+)</Code>", await answer.text())
            return answer.status, found[1] if found else ""


StartApp = Callable[..., Awaitable[App]]


@contextlib.asynccontextmanager
async def opening_apps(
    aiohttp_client: Any, database: Database, postgres_dsn: str, redis_url: str, backend: S3Backend, prefix: str
) -> AsyncIterator[StartApp]:
    """A function that opens a gateway with the given settings and a key of its own, on that storage. `prefix` begins
    the names of buckets; `places` and `scopes` are those of the key."""
    clients: list[TestClient[Any, Any]] = []
    browser = aiohttp.ClientSession()

    async def start_one(
        *,
        places: tuple[str, ...] = (),
        scopes: tuple[str, ...] = ("read", "write"),
        hooks: str = "*",
        quarantine: bool = False,
        **settings: Any,
    ) -> App:
        storage = storage_settings(
            postgres_dsn,
            backend,
            default_bucket=f"{prefix}-photos",
            derived_bucket=f"{prefix}-derived",
            quarantine_bucket=f"{prefix}-rejected" if quarantine else "",
        )
        jobs = job_settings(redis_url, hooks=parse_hooks(hooks))
        credential = credentials.generate()
        create = partial(
            credentials.create, credential=credential, name="test", scopes=list(scopes), places=list(places)
        )
        await in_transaction(database, create)
        settings = {"reconcile_interval_seconds": 0, "reconcile_grace_seconds": 0, **settings}
        clients.append(await aiohttp_client(create_app(GatewaySettings(**settings), jobs, storage)))
        app = App(client=clients[-1], credential=credential, bucket=storage.default_bucket, browser=browser)
        for name in dict.fromkeys((storage.default_bucket, *storage.closed_buckets)):
            await app.context.blobs.ensure_bucket(name)  # it does so itself, but not before it listens
        return app

    try:
        yield start_one
    finally:
        await browser.close()
        for client in clients:  # before the servers that they use
            await client.close()


@pytest.fixture
async def start_app(
    aiohttp_client: Any,
    database: Database,
    postgres_dsn: str,
    redis_url: str,
    s3_backend: S3Backend,
    bucket_prefix: str,
    bucket: str,
) -> AsyncIterator[StartApp]:
    """Opens gateways on the session's SeaweedFS, where the bucket of photos is made."""
    assert bucket == f"{bucket_prefix}-photos"
    async with opening_apps(aiohttp_client, database, postgres_dsn, redis_url, s3_backend, bucket_prefix) as start:
        yield start
