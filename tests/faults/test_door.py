"""The S3 door killed at each step of an upload."""

from __future__ import annotations

import aiohttp
import pytest

from safelight.embedded.folder import choose_port
from storage import sealing
from storage.blobs import NoSuchBlob
from storage.sealing import MasterKeys
from tests import photos
from tests.access_keys import make_key
from tests.faults.harness.stack import Stack
from tests.integration.test_door import Client

# Where it dies -> (whether the storage has the object then, whether Postgres does).
STEPS = {
    "door.before_last_piece": (False, 0),
    "door.after_put": (True, 0),
    "tx.before_commit": (True, 0),
    "tx.after_commit": (True, 1),
}


@pytest.mark.parametrize("step", STEPS)
async def test_row_05_door_killed(stack: Stack, step: str) -> None:
    """kill -9 of the S3 door in the midst of a PUT: nothing half-stored, no success told; the same PUT again makes it
    one photo with one set of jobs."""
    stored, recorded = STEPS[step]
    master_key = sealing.generate()
    async with stack.database.transaction() as conn:
        key = await make_key(conn, MasterKeys.parse(master_key), scopes=["read", "write"])
    port = choose_port()
    door = stack.launch("door", s3_port=str(port), master_key=master_key, failpoint=f"{step}:kill:1")
    await door.ready()
    data = photos.padded(photos.make_jpeg(64, 48, noise=20), 600_000)
    async with aiohttp.ClientSession() as session:
        client = Client(url=f"http://127.0.0.1:{port}", key=key, session=session)
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


async def _has(stack: Stack, key: str) -> bool:
    try:
        await stack.blobs.head(stack.bucket, key)
    except NoSuchBlob:
        return False
    return True
