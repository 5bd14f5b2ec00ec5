"""The S3 door when some of its requests do not come to an end: they do not take what the others need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage.blobs import Blobs
from storage.database import Database
from tests import photos
from tests.integration.door_site import Reply, Site, open_site
from tests.integration.stage import until
from tests.servers import S3Backend

PHOTO = photos.make_jpeg(64, 48, noise=20)
FORMS = 2
FORM_TYPE = "multipart/form-data; boundary=edge"
FORM = b'--edge\r\nContent-Disposition: form-data; name="key"\r\n\r\na.jpg\r\n'
FILE = b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--edge--\r\n'


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    limits = {"s3_max_requests": FORMS * 10, "chunk_timeout_seconds": 60, "record_seconds": 30}
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix, pool_size=2, **limits) as opened:
        yield opened


async def test_photos_are_stored_while_removals_wait(site: Site) -> None:
    """As many removals as there are connections to Postgres, and more, wait; a photo is recorded all the same."""
    keys = [f"{number}.jpg" for number in range(6)]
    async with site.database.transaction() as conn:
        for key in keys:
            await conn.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"{site.bucket}/{key}")
        removals = [asyncio.create_task(site.client.send("DELETE", f"/{site.bucket}/{key}")) for key in keys]

        async def waits() -> bool:
            return bool(await site.value("select count(*) from pg_locks where locktype = 'advisory' and not granted"))

        await until(waits, seconds=20, what="a removal waits for its key")
        async with asyncio.timeout(20):
            assert (await site.client.put(f"/{site.bucket}/new.jpg", PHOTO)).status == 200
        assert not any(removal.done() for removal in removals)
    assert {(await removal).status for removal in removals} == {204}
    assert await site.photos() == [("new.jpg", True)]


async def test_slow_forms_take_little_room(site: Site) -> None:
    """Forms of unknown senders that do not come to their file: further ones are told to slow down, and nobody else."""
    host, _, port = site.client.url.partition("://")[2].partition(":")
    lines = [f"POST /{site.bucket} HTTP/1.1", f"Host: {host}:{port}", f"Content-Type: {FORM_TYPE}"]
    head = "\r\n".join([*lines, "Content-Length: 9999", "", ""])
    slow = [await asyncio.open_connection(host, int(port)) for _ in range(FORMS)]
    for _, writer in slow:
        writer.write(head.encode() + FORM)
        await writer.drain()

    async def post() -> Reply:
        url, headers = f"{site.client.url}/{site.bucket}", {"Content-Type": FORM_TYPE}
        async with site.session.post(url, data=FORM + FILE, headers=headers) as answer:
            return Reply(status=answer.status, body=await answer.read(), headers=answer.headers)

    async def is_told(code: str) -> bool:
        return (await post()).code == code

    await until(lambda: is_told("SlowDown"), seconds=20, what="there is no room for a further form")
    assert (await site.client.put(f"/{site.bucket}/a.jpg", PHOTO)).status == 200
    for _, writer in slow:
        writer.close()
    await until(lambda: is_told("AccessDenied"), seconds=20, what="a form without a policy is read again")
