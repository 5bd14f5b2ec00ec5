"""How much one key may ask of the S3 door: held together by all processes, without asking Redis for each request, and
held while Redis is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.door.rates import Rates
from gateway.door.valkey import Valkey as Connection
from gateway.door.valkey import ValkeyUnavailable
from gateway.s3.errors import S3Error
from gateway.settings import GatewaySettings
from safelight.embedded import Valkey
from storage.blobs import Blobs
from storage.database import Database
from tests.integration.door_site import Site, open_site
from tests.integration.stage import until
from tests.servers import S3Backend


def make_rates(url: str, **more: Any) -> Rates:
    return Rates(GatewaySettings(**{"s3_requests_per_second": 100.0, "s3_requests_burst": 50, **more}), url)


def at_most(seconds: float, *, processes: int) -> float:
    """How many requests may pass in that time: the burst and one, a batch of 5 in each process, and the rate."""
    return 51 + 5 * processes + 100 * seconds


async def spend(rates: Rates, count: int, *, key: str = "a") -> int:
    """How many of so many requests pass."""
    refused = 0
    for _ in range(count):
        try:
            await rates.take(key)
        except S3Error as error:
            refused += error.code == "SlowDown"
    return count - refused


async def test_a_burst_passes_and_then_the_rate(redis_url: str) -> None:
    """All processes together let a burst through, and a batch more each; then the rate. Other keys are untouched."""
    one, two = make_rates(redis_url), make_rates(redis_url)
    began_at = time.monotonic()
    passed = await spend(one, 200) + await spend(two, 200)
    assert 50 <= passed <= at_most(time.monotonic() - began_at, processes=2)
    assert await spend(one, 10, key="b") == 10
    began_at, passed = time.monotonic(), 0
    while passed < 30:
        passed += await spend(one, 5)
        await asyncio.sleep(0.005)
    assert 0.2 < time.monotonic() - began_at < 3
    one.close()
    two.close()


async def test_redis_is_asked_for_batches(valkey: Valkey) -> None:
    """A thousand requests ask Redis less than a hundred times; while none may pass it is not asked at all."""
    rates = make_rates(valkey.url, s3_requests_per_second=2000.0, s3_requests_burst=1000)
    asked = Connection(valkey.url, timeout_seconds=1)
    before = await count_scripts(asked)
    assert await spend(rates, 1000) == 1000
    assert await count_scripts(asked) - before < 100
    rates.close()
    tight = make_rates(valkey.url, s3_requests_per_second=0.01, s3_requests_burst=1)
    await spend(tight, 3)
    before = await count_scripts(asked)
    assert await spend(tight, 500) == 0
    assert await count_scripts(asked) == before
    tight.close()
    asked.close()


async def count_scripts(connection: Connection) -> int:
    answer = await connection.ask("INFO", "commandstats")
    assert isinstance(answer, bytes)
    return int(answer.partition(b"cmdstat_eval:calls=")[2].partition(b",")[0] or b"0")


@pytest.mark.parametrize("failure", ["stopped", "frozen"])
async def test_each_process_counts_for_itself_while_redis_is_away(valkey: Valkey, failure: str) -> None:
    """No error and no wait but the first: the burst passes and the rate holds. Once Redis is back it counts again."""
    rates = make_rates(valkey.url)
    assert await spend(rates, 1) == 1
    if failure == "stopped":
        valkey.kill()
    else:
        valkey.suspend()
    began_at = time.monotonic()
    passed = await spend(rates, 300)
    seconds = time.monotonic() - began_at
    assert seconds < 3
    fresh, began_at = make_rates(valkey.url), time.monotonic()
    await asyncio.gather(*(fresh.take(str(number)) for number in range(100)))
    assert time.monotonic() - began_at < 3, "each waited for the one before it"
    fresh.close()
    assert 50 <= passed <= at_most(seconds, processes=1)
    if failure == "stopped":
        valkey.start()
    else:
        valkey.resume()
    connection = Connection(valkey.url, timeout_seconds=1)

    async def counts_again() -> bool:
        await spend(rates, 5)
        return bool(await connection.ask("EXISTS", "safelight:s3-rate:a"))

    await until(counts_again, seconds=5, what="the bucket is in Redis")
    connection.close()
    rates.close()


async def test_requests_in_flight_are_bounded_for_each_key(redis_url: str) -> None:
    """A key that holds too many requests open gets SlowDown; as one ends, the next may come; other keys go on."""
    rates = make_rates(redis_url, s3_max_requests_per_key=3)
    for _ in range(3):
        await rates.enter("a")
    with pytest.raises(S3Error) as caught:
        await rates.enter("a")
    assert (caught.value.code, caught.value.retry_after_seconds) == ("SlowDown", 1)
    await rates.enter("b")
    rates.leave("a")
    await rates.enter("a")
    rates.close()


async def test_no_rate_asks_nobody() -> None:
    """0 means any: no server is asked, none need be there."""
    rates = make_rates("redis://127.0.0.1:9/0", s3_requests_per_second=0.0)
    assert await spend(rates, 1000) == 1000


async def test_a_request_costs_next_to_nothing(redis_url: str) -> None:
    """The door spends less than 20 microseconds of CPU on a request's rate (measured: 2 to 3)."""
    rates = make_rates(redis_url, s3_requests_per_second=1e6, s3_requests_burst=1_000_000)
    await rates.enter("a")
    began = time.process_time()
    for _ in range(20_000):
        await rates.enter("a")
        rates.leave("a")
    assert (time.process_time() - began) / 20_000 < 20e-6
    rates.close()


async def test_the_connection_speaks_all_that_a_url_says(valkey: Valkey) -> None:
    """Password, user and number of the database are used; a wrong password is unavailability, not a crash."""
    admin = Connection(valkey.url, timeout_seconds=1)
    await admin.ask("ACL", "SETUSER", "door", "on", ">p@ss", "~*", "+@all")
    host = valkey.url.rpartition("@")[2].partition("://")[2] or valkey.url.rpartition("@")[2]
    host = host.partition("/")[0]
    named = Connection(f"redis://door:p%40ss@{host}/3", timeout_seconds=1)
    assert await named.ask("SET", "where", "ü") == b"OK"
    assert await named.ask("GET", "where") == "ü".encode()
    assert await named.ask("ACL", "WHOAMI") == b"door"
    assert await admin.ask("GET", "where") is None
    wrong = Connection(f"redis://door:wrong@{host}/3", timeout_seconds=1)
    with pytest.raises(ValkeyUnavailable):
        await wrong.ask("GET", "where")
    for connection in (admin, named, wrong):
        connection.close()


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    """A door without Redis, that lets a key ask twenty times at once and then once in a hundred seconds."""
    more = {"s3_requests_per_second": 0.01, "s3_requests_burst": 20}
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix, **more) as opened:
        yield opened


async def test_a_client_is_told_to_slow_down(site: Site) -> None:
    """S3's SlowDown with Retry-After; wrong signatures cost their key nothing, and other keys are answered."""
    stranger = await site.key_for()
    stranger.key = type(stranger.key)(access_key=site.client.key.access_key, secret_key="x" * 40)
    for _ in range(40):
        assert (await stranger.send("GET", f"/{site.bucket}")).code == "SignatureDoesNotMatch"
    replies = [await site.client.send("GET", f"/{site.bucket}") for _ in range(25)]
    assert [reply.status for reply in replies[:20]] == [200] * 20
    last = replies[-1]
    assert (last.status, last.code) == (503, "SlowDown")
    assert 1 <= int(last.headers["Retry-After"]) <= 100
    other = await site.key_for()
    assert (await other.send("GET", f"/{site.bucket}")).status == 200
