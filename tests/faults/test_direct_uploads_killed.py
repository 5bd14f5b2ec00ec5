"""Gateways killed while photos come past them: at each step of a direct upload, and of a move into quarantine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from storage.blobs import NoSuchBlob
from tests.faults.harness.invariants import check, list_bucket, list_multiparts
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.programs import Program
from tests.faults.harness.stack import Stack
from tests.faults.harness.waiting import until
from tests.photos import padded

OpenLedger = Callable[..., Ledger]
MIB = 1 << 20
TEXT = b"The only copy of somebody's wedding, in words. " * 99
COMPLETING = ("upload.assembled", "tx.before_commit", "tx.after_commit")
MOVING = ("quarantine.planned", "quarantine.copied", "quarantine.copy_committed", "quarantine.original_deleted")
FAST = {"reconcile_grace_seconds": "0", "reconcile_interval_seconds": "0"}


@dataclass(frozen=True, kw_only=True)
class Uploader:
    """A client of direct uploads: asks the gateway, sends to the storage."""

    ledger: Ledger

    async def open(self, **body: Any) -> dict[str, Any]:
        status, upload = await self.ledger.request("POST", "/v1/uploads", json=body)
        assert status == 201, upload
        assert isinstance(upload, dict)
        return upload

    async def send(self, url: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.put(URL(url, encoded=True), data=body, headers=headers or {}) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def put(self, body: bytes, key: str) -> dict[str, Any]:
        upload = await self.open(key=key, size_bytes=len(body))
        await self.send(upload["url"], body, upload["headers"])
        return upload

    async def complete(self, upload: dict[str, Any]) -> tuple[int, Any]:
        return await self.ledger.request("POST", f"/v1/uploads/{upload['id']}/complete")


async def die(gateway: Program, point: str) -> None:
    """Wait for the kill at that point, and start the gateway again."""
    await gateway.ended(seconds=30)
    assert (gateway.exit_code, gateway.hits(point)) == (-signal.SIGKILL, 1), point
    gateway.restart()
    await gateway.ready()


async def test_row_06_killed_while_it_completes(stack: Stack, open_ledger: OpenLedger) -> None:
    """A gateway that dies when the parts are put together, before the commit and after it: the next `complete` goes on
    from there, and in the end there is one photo with one set of jobs and the client's bytes."""
    armed = ",".join(f"{point}:kill:1" for point in COMPLETING)
    await stack.start(gateways=1, workers=1, failpoint=armed, s3_public_endpoint=stack.ground.seaweedfs.url, **FAST)
    (gateway,) = stack.gateways
    ledger = open_ledger()
    client = Uploader(ledger=ledger)
    body = padded(ledger.photo(), 6 * MIB)
    upload = await client.open(method="multipart", key="big.jpg", size_bytes=len(body), part_bytes=5 * MIB)
    assert all(part["url"].startswith(stack.ground.seaweedfs.url) for part in upload["parts"])
    for part, piece in zip(upload["parts"], (body[: 5 * MIB], body[5 * MIB :]), strict=True):
        await client.send(part["url"], piece)
    recorded = []
    for point in COMPLETING:
        try:
            await client.complete(upload)
        except (aiohttp.ClientError, OSError):
            await die(gateway, point)
        else:
            raise AssertionError(f"it survived {point}")
        recorded.append(await stack.value("select count(*) from object"))
    assert recorded == [0, 0, 1]
    status, photo = await client.complete(upload)
    assert (status, photo["size_bytes"]) == (200, len(body))
    assert await stack.blobs.read(stack.bucket, "big.jpg", etag=photo["etag"]) == body
    assert await check(stack, ledger) == []


async def test_row_06_killed_while_it_opens(stack: Stack, open_ledger: OpenLedger) -> None:
    """A gateway that dies between the storage's multipart upload and its own row leaves one that is aborted, and the
    retry with the same Idempotency-Key opens another."""
    fast = {**FAST, "reconcile_interval_seconds": "0.2"}
    await stack.start(gateways=1, workers=0, failpoint="upload.multipart_begun:kill:1", **fast)
    (gateway,) = stack.gateways
    ledger = open_ledger()
    ask = {"json": {"method": "multipart", "size_bytes": 20 * MIB}, "headers": {"Idempotency-Key": "one"}}
    try:
        await ledger.request("POST", "/v1/uploads", **ask)
    except (aiohttp.ClientError, OSError):
        await die(gateway, "upload.multipart_begun")
    (left,) = await list_multiparts(stack)
    await stack.value("update multipart set seen_at = seen_at - interval '1 h'")
    await stack.value("update idempotency set locked_until = null")
    status, upload = await ledger.request("POST", "/v1/uploads", **ask)
    assert status == 201

    async def aborted() -> bool:
        return await list_multiparts(stack) == [upload["key"]]

    assert left != upload["key"]
    await until(aborted, "what the dead gateway began is aborted, and nothing else", seconds=20)


async def test_row_06_never_completed(stack: Stack, open_ledger: OpenLedger) -> None:
    """A gateway that dies between the storage and the row, and a client that never comes back: once the addresses have
    ended, any gateway records what arrived, and closes what did not."""
    await stack.start(gateways=1, workers=1, failpoint="tx.before_commit:kill:1", **FAST)
    (gateway,) = stack.gateways
    ledger = open_ledger()
    client = Uploader(ledger=ledger)
    arrived, _ = await client.put(ledger.photo(), "arrived.jpg"), await client.open(key="never.jpg", size_bytes=9)
    try:
        await client.complete(arrived)
    except (aiohttp.ClientError, OSError):
        await gateway.ended(seconds=10)
    await stack.value("update upload set expires_at = now()")
    gateway.restart()
    await gateway.ready()

    async def settled() -> bool:
        rows = await stack.fetch("select key, status from object")
        return [(row["key"], row["status"]) for row in rows] == [("arrived.jpg", "ready")]

    await until(settled, "what arrived is a photo", seconds=20)
    assert await stack.value("select count(*) from upload where closed_at is null and key = 'never.jpg'") == 0
    assert await check(stack, ledger) == []


async def test_row_06_killed_while_it_quarantines(stack: Stack, open_ledger: OpenLedger) -> None:
    """A gateway that dies at each step of the move of a rejected photo in turn: at every moment the bytes are there,
    whole, and can be read through the photo; in the end once, in the bucket of rejected photos."""
    quarantine = f"{stack.name}-rejected"
    await stack.blobs.ensure_bucket(quarantine)
    before = await stack.start_gateway(**FAST)  # without a bucket for them: nothing is moved yet
    ledger = open_ledger()
    client = Uploader(ledger=ledger)
    upload = await client.put(TEXT, "odd.jpg")
    photo = (await client.complete(upload))[1]
    assert photo["status"] == "rejected"
    before.kill()
    moved = f"{stack.bucket}/{photo['id']}/odd.jpg"
    armed = ",".join(f"{point}:kill:1" for point in MOVING)
    gateway = stack.launch("gateway", quarantine_bucket=quarantine, failpoint=armed, **FAST)
    places = []
    for point in MOVING:
        await gateway.ended(seconds=30)
        assert (gateway.exit_code, gateway.hits(point)) == (-signal.SIGKILL, 1), point
        found = [await read(stack, bucket, key) for bucket, key in ((stack.bucket, "odd.jpg"), (quarantine, moved))]
        assert TEXT in found
        assert set(found) <= {TEXT, None}
        places.append([body is not None for body in found])
        gateway.restart()
    assert places == [[True, False], [True, True], [True, True], [False, True]]
    await gateway.ready()

    async def done() -> bool:
        return bool(await stack.value("select removed_at is not null from quarantine"))

    await until(done, "the photo is moved", seconds=20)
    assert await read(stack, stack.bucket, "odd.jpg") is None
    assert await list_bucket(stack, quarantine) == {moved: photo["etag"]}
    assert await read_original(ledger, gateway, photo["id"]) == TEXT
    assert await stack.value("select count(*) from upload where closed_at is null") == 0
    assert not stack.errors()


async def read(stack: Stack, bucket: str, key: str) -> bytes | None:
    try:
        return await stack.blobs.read(bucket, key, etag=(await stack.blobs.head(bucket, key)).etag)
    except NoSuchBlob:
        return None


async def read_original(ledger: Ledger, gateway: Program, photo_id: str) -> bytes:
    async with asyncio.timeout(20), ledger._session.get(f"{gateway.url}/v1/photos/{photo_id}/original") as answer:
        assert answer.status == 200
        return await answer.read()
