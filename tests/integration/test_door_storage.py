"""Long answers of the storage through the S3 door: whole, side by side, and told where they break off; and a storage
that answers from elsewhere.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

import aiohttp
import pytest

from storage.blobs import Blobs
from storage.database import Database
from tests.faults.harness.proxy import Fault, Proxy
from tests.integration.door_site import Site, open_site
from tests.servers import S3Backend

LENGTHS = (524_287, 524_288, 800_000, 4_000_000)
BODY = random.Random(4).randbytes(5_000_003)
KEY = "unwatched/long.bin"


@pytest.fixture
async def proxy(s3_backend: S3Backend) -> AsyncIterator[Proxy]:
    port = urlsplit(s3_backend.endpoint).port
    assert port is not None
    async with Proxy(port) as opened:
        yield opened


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str, proxy: Proxy
) -> AsyncIterator[Site]:
    """A door that reaches its storage through the proxy, with a long object in it."""
    behind = replace(s3_backend, endpoint=f"http://127.0.0.1:{proxy.port}")
    async with open_site(database, blobs, postgres_dsn, behind, bucket_prefix) as opened:
        assert (await opened.client.put(f"/{opened.bucket}/{KEY}", BODY)).status == 200
        yield opened


async def get(site: Site, span: range = range(len(BODY))) -> bool:
    """Whether that span of the object arrives as it was stored."""
    headers = {"Range": f"bytes={span.start}-{span.stop - 1}"}
    reply = await site.client.send("GET", f"/{site.bucket}/{KEY}", headers=headers)
    return reply.status == 206 and reply.body == BODY[span.start : span.stop]


async def test_long_answers_are_whole_side_by_side(site: Site) -> None:
    """Forty at once, more than pass inside of the kernel at a time, of lengths round the limits; then again on the same
    connections."""
    spans = [range(number, number + length) for length in LENGTHS for number in range(10)]
    for _ in range(2):
        assert all(await asyncio.gather(*(get(site, span) for span in spans)))


async def test_a_slow_storage_is_waited_for(site: Site, proxy: Proxy) -> None:
    """What comes little by little arrives whole."""
    proxy.set(Fault(mode="throttle", direction="down", n_bytes=4_000_000))
    assert await get(site)


@pytest.mark.parametrize("passed_bytes", [100_000, 1_000_000, 4_900_000])
async def test_a_long_answer_that_breaks_off(site: Site, proxy: Proxy, passed_bytes: int) -> None:
    """The client is not left with what looks like all of it; the next answer is whole."""
    proxy.set(Fault(mode="cut_after", direction="down", n_bytes=passed_bytes))
    with pytest.raises(aiohttp.ClientError):
        await get(site)
    assert proxy.fired == 1
    assert await get(site)


async def test_a_client_that_leaves(site: Site) -> None:
    """In the midst of its answer, again and again: others get theirs."""

    async def leave() -> None:
        reader, writer = await asyncio.open_connection(*site.client.url.removeprefix("http://").split(":"))
        writer.write(f"GET /{site.derived}/{site.bucket}/public/long.bin HTTP/1.1\r\nHost: door\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()

    await site.blobs.put(site.derived, f"{site.bucket}/public/long.bin", BODY, content_type="application/x-long")
    for _ in range(5):
        await asyncio.gather(*(leave() for _ in range(10)))
        assert await get(site)


async def test_a_storage_that_answers_from_elsewhere(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> None:
    """503, and nobody learns where that is."""

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere/\r\nContent-Length: 9\r\n\r\nelsewhere"
        )
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    behind = S3Backend(endpoint=f"http://127.0.0.1:{port}", access_key="a", secret_key="b")
    async with server, open_site(database, blobs, postgres_dsn, behind, bucket_prefix) as site:
        reply = await site.client.send("GET", f"/{site.bucket}/a.jpg")
    assert (reply.status, reply.code) == (503, "ServiceUnavailable")
    assert b"elsewhere" not in reply.body
    assert "elsewhere" not in str(reply.headers)
