"""The S3 door killed at each step of an upload, and a storage behind it that falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from safelight.embedded.folder import choose_port
from storage import sealing
from storage.blobs import NoSuchBlob
from storage.sealing import MasterKeys
from tests import photos
from tests.access_keys import make_key
from tests.faults.harness.programs import Program
from tests.faults.harness.proxy import Fault
from tests.faults.harness.rates import Rate
from tests.faults.harness.stack import Stack
from tests.faults.harness.waiting import until
from tests.integration.door_site import Client

NOTICED_SECONDS = 12  # overdue after 2 s, then asked three times in vain
HEALED_SECONDS = 5

# Where it dies -> (whether the storage has the object then, whether Postgres does).
STEPS = {
    "door.before_last_piece": (False, 0),
    "door.after_put": (True, 0),
    "tx.before_commit": (True, 0),
    "tx.after_commit": (True, 1),
}


@contextlib.asynccontextmanager
async def open_door(stack: Stack, **settings: str) -> AsyncIterator[tuple[Program, Client]]:
    """A door that runs, and a client of it with a key of its own."""
    master_key = sealing.generate()
    async with stack.database.transaction() as conn:
        key = await make_key(conn, MasterKeys.parse(master_key), scopes=["read", "write"])
    port = choose_port()
    door = stack.launch("door", s3_port=str(port), master_key=master_key, **settings)
    await door.ready()
    async with aiohttp.ClientSession() as session:
        yield door, Client(url=f"http://127.0.0.1:{port}", key=key, session=session)


@pytest.mark.parametrize("step", STEPS)
async def test_row_05_door_killed(stack: Stack, step: str) -> None:
    """kill -9 of the S3 door in the midst of a PUT: nothing half-stored, no success told; the same PUT again makes it
    one photo with one set of jobs."""
    stored, recorded = STEPS[step]
    data = photos.padded(photos.make_jpeg(64, 48, noise=20), 600_000)
    async with open_door(stack, failpoint=f"{step}:kill:1") as (door, client):
        with pytest.raises(aiohttp.ClientError):
            await client.put(f"/{stack.bucket}/a.jpg", data)
        await door.ended(seconds=10)
        assert door.hits(step) == 1
        assert await _has(stack, "a.jpg") == stored
        assert await stack.value("select count(*) from object") == recorded
        door.restart()
        await door.ready()
        assert (await client.put(f"/{stack.bucket}/a.jpg", data)).status == 200
    assert await stack.value("select count(*) from object") == 1
    assert await stack.value("select count(*) from job") == 2


async def test_row_05_door_killed_again_and_again(stack: Stack, rate: Rate) -> None:
    """kill -9 of the S3 door three times, each in the midst of ten PUTs: started again, it takes the same PUTs, and
    jobs are completed at the rate of before."""
    await stack.start(gateways=0, workers=1)
    async with open_door(stack) as (door, client):

        async def put(key: str) -> None:
            answer = await client.put(f"/{stack.bucket}/{key}", photos.make_jpeg(64, 48, noise=20))
            assert answer.status == 200, answer.body

        await rate.measure(put)
        for number in range(3):
            sending = [asyncio.create_task(put(f"{number}/{each}.jpg")) for each in range(10)]
            done, _ = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
            door.kill()
            answers = await asyncio.gather(*sending, return_exceptions=True)
            assert len(done) < 10
            assert all(answer is None or isinstance(answer, aiohttp.ClientError) for answer in answers)
            door.restart()
            await door.ready()
            await asyncio.gather(*(put(f"{number}/{each}.jpg") for each in range(10)))
        await stack.drain(seconds=20)
        await rate.assert_kept(put)
    states = await stack.fetch("select state, outcome from job where outcome is distinct from 'ok'")
    assert states == []
    assert await stack.value("select count(distinct key) from object where key not like 'rate/%'") == 30


async def test_row_18_storage_silent_behind_the_door(stack: Stack) -> None:
    """S3 is cut off behind open connections, with the times that are set by default: what is asked at the S3 door gets
    503 and Retry-After within 12 s, what comes after it at once; 5 s after the heal the same door serves again."""
    async with open_door(stack) as (door, client):
        assert (await client.put(f"/{stack.bucket}/a.jpg", photos.make_jpeg(64, 48))).status == 200
        stack.ground.s3_proxy.set(Fault(mode="blackhole"))
        began = time.monotonic()
        asked = [client.send("GET", f"/{stack.bucket}/a.jpg"), client.put(f"/{stack.bucket}/b.jpg", bytes(600_000))]
        for answer in await asyncio.gather(*asked):
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)
        assert time.monotonic() - began <= NOTICED_SECONDS
        assert door.logged("storage.silent") == 1
        began = time.monotonic()
        assert (await client.send("GET", f"/{stack.bucket}/a.jpg")).status == 503
        assert time.monotonic() - began < 1
        await stack.ground.s3_proxy.heal()

        async def serves() -> bool:
            return (await client.send("GET", f"/{stack.bucket}/a.jpg")).status == 200

        await until(serves, "the door serves again", seconds=HEALED_SECONDS)
        assert (await client.put(f"/{stack.bucket}/c.jpg", photos.make_jpeg(64, 48))).status == 200


async def _has(stack: Stack, key: str) -> bool:
    try:
        await stack.blobs.head(stack.bucket, key)
    except NoSuchBlob:
        return False
    return True
