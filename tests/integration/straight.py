"""A plain S3 client that writes photos straight to the storage, and a whole Safelight that is told of them."""

from __future__ import annotations

import asyncio
import os
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import boto3
from botocore.config import Config

from safelight.embedded.folder import LOCALHOST, choose_port
from storage import credentials
from storage.database import Database
from tests.integration.hooked import TOKEN
from tests.integration.programs import Program, Stage
from tests.integration.stage import fetch, in_transaction, until
from tests.photos import make_jpeg
from tests.servers import S3Backend

# Few in a common run; `EVENT_OBJECTS=500` for the whole claim.
OBJECTS = int(os.environ.get("EVENT_OBJECTS", "40"))
_NAMES = ("plain-{}.jpg", "with space {}.jpg", "a+b-{}.jpg", "100%-{}.jpg", "a%2Bb-{}.jpg", "ü☃-{}.jpg", "d/e f/{}.jpg")


def make_keys(count: int, *, doubled_slashes: bool) -> list[str]:
    """Keys of every kind. `doubled_slashes`: the storage keeps `//`."""
    names = (*_NAMES, "d//e-{}.jpg", "//{}.jpg") if doubled_slashes else _NAMES
    return [names[number % len(names)].format(number) for number in range(count)]


def make_photo(number: int) -> bytes:
    """A small photo that no other number has."""
    return make_jpeg(48, 32, comment=b"%d" % number)


def client(backend: S3Backend, service: str = "s3") -> Any:
    """boto3, as anybody has it."""
    return boto3.client(
        service,
        endpoint_url=backend.endpoint,
        aws_access_key_id=backend.access_key,
        aws_secret_access_key=backend.secret_key,
        region_name=backend.region,
        config=Config(s3={"addressing_style": "path"}, proxies={}, max_pool_connections=8),
    )


@dataclass(kw_only=True)
class Site:
    """One Safelight of real processes on one storage. The gateway keeps its port, so that it can go and come."""

    stage: Stage
    database: Database
    s3: Any
    bucket: str
    folder: Path
    port: int = field(default_factory=choose_port)
    gateway: Program | None = None

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def hook_url(self) -> str:
        return f"{self.url}/hooks/bucket-events"

    async def start_gateway(self, **more: str) -> None:
        """Start it and wait until it listens. Reconciling is slow unless it is asked for."""
        settings = {"hook_token": TOKEN, "reconcile_interval_seconds": "0", **more}
        self.gateway = self.stage.start("gateway", http_port=str(self.port), s3_port="0", **settings)
        await until(self._listens, seconds=60, what="the gateway listens")

    async def write(self, photos: Sequence[tuple[str, bytes]]) -> None:
        """Put them by S3, eight at a time."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(8) as pool:
            puts = (
                loop.run_in_executor(pool, partial(self.s3.put_object, Bucket=self.bucket, Key=key, Body=body))
                for key, body in photos
            )
            await asyncio.gather(*puts)

    async def upload(self, photos: Sequence[tuple[str, bytes]]) -> None:
        """Put them by our own REST door, four at a time."""
        credential = credentials.generate()
        make = partial(credentials.create, credential=credential, name="test", scopes=["read", "write"])
        await in_transaction(self.database, make)
        slots = asyncio.Semaphore(4)

        async def upload_one(session: aiohttp.ClientSession, key: str, body: bytes) -> None:
            path = f"{self.url}/v1/photos/{self.bucket}/{urllib.parse.quote(key)}"
            async with slots, session.put(path, data=body) as answer:
                assert answer.status == 201, await answer.text()

        headers = {"Authorization": f"Bearer {credential.token}"}
        async with aiohttp.ClientSession(headers=headers, requote_redirect_url=False) as session:
            await asyncio.gather(*(upload_one(session, key, body) for key, body in photos))

    async def until_ready(self, keys: Sequence[str], *, seconds: float) -> None:
        """All of these keys are photos with previews and facts, and there is nothing else and nothing twice."""

        async def ready() -> bool:
            rows = await fetch(self.database, "select key from object where status = 'ready'")
            return len(rows) >= len(keys)

        await until(ready, seconds=seconds, what=f"{len(keys)} photos are ready; {self.stage.unexpected()}")
        rows = await fetch(
            self.database,
            """
            select key, superseded_at is null and deleted_at is null as current,
                   (select count(*) from job where object_id = object.id and outcome = 'ok') as done,
                   (select count(*) from job where object_id = object.id) as jobs,
                   (select count(*) from artifact where object_id = object.id) as previews
            from object
            """,
        )
        assert sorted(row["key"] for row in rows) == sorted(keys)
        assert {(row["current"], row["done"], row["jobs"], row["previews"]) for row in rows} == {(True, 2, 2, 2)}

    async def _listens(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False
