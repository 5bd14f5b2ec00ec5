"""The S3 client on two S3 servers, SeaweedFS and moto: whole writes or none, in bounded memory."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator

import pytest
from moto.server import ThreadedMotoServer

from storage.blobs import (
    PART_BYTES,
    PARTS_IN_FLIGHT,
    SINGLE_PUT_BYTES,
    BlobChanged,
    BlobRefused,
    Blobs,
    BlobsUnavailable,
    NoSuchBlob,
    NoSuchBucket,
)
from storage.memory import MemoryBudget
from tests.integration.stage import storage_settings, until
from tests.servers import S3Backend, Servers

BUDGET_BYTES = 64 << 20
MIB = 1 << 20


class WatchedBudget(MemoryBudget):
    """Remembers the most that was ever taken."""

    most_bytes = 0

    def _note(self) -> None:
        self.most_bytes = max(self.most_bytes, self.used_bytes)

    async def reserve(self, size_bytes: int) -> None:
        await super().reserve(size_bytes)
        self._note()


@pytest.fixture
def memory() -> WatchedBudget:
    return WatchedBudget(BUDGET_BYTES, wait_seconds=10)


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Backend]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Backend(endpoint=f"http://{host}:{port}", access_key="key", secret_key="secret")
    server.stop()


@pytest.fixture(params=["seaweedfs", "moto"])
async def s3(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Blobs, str]]:
    """A client, and a fresh bucket on its server."""
    if request.param == "moto":
        backend, prefix = request.getfixturevalue("moto"), f"t{random.SystemRandom().randrange(1 << 40):x}"
    else:
        backend, prefix = request.getfixturevalue("s3_backend"), request.getfixturevalue("bucket_prefix")
    async with Blobs(storage_settings("unused", backend, s3_read_timeout_seconds=10)) as blobs:
        await blobs.ensure_bucket(f"{prefix}-photos")
        yield blobs, f"{prefix}-photos"


async def pieces_of(data: bytes, *, piece_bytes: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece_bytes):
        yield data[start : start + piece_bytes]


async def uploads_under_way(blobs: Blobs, bucket: str) -> list[str]:
    answer = await blobs._client.list_multipart_uploads(Bucket=bucket)
    return [item["Key"] for item in answer.get("Uploads", ())]


async def assert_nothing_left(blobs: Blobs, bucket: str, key: str, memory: MemoryBudget) -> None:
    with pytest.raises(NoSuchBlob):
        await blobs.head(bucket, key)
    assert await uploads_under_way(blobs, bucket) == []
    assert (memory.used_bytes, memory.waiting) == (0, 0)


async def test_what_is_put_is_read_back(s3: tuple[Blobs, str]) -> None:
    """Bytes, type and metadata come back as they were put; a second put replaces them."""
    blobs, bucket = s3
    first = await blobs.put(bucket, "a b/ü.jpg", b"one", content_type="image/jpeg", metadata={"preset": "thumb"})
    head = await blobs.head(bucket, "a b/ü.jpg")
    assert (head.etag, head.size_bytes, head.content_type) == (first.etag, 3, "image/jpeg")
    assert head.metadata == {"preset": "thumb"}
    assert first.sha256 == hashlib.sha256(b"one").digest()
    assert await blobs.read(bucket, "a b/ü.jpg", etag=first.etag) == b"one"
    second = await blobs.put(bucket, "a b/ü.jpg", b"two!", content_type="image/png")
    assert await blobs.read(bucket, "a b/ü.jpg", etag=second.etag, first_bytes=3) == b"two"
    with pytest.raises(BlobChanged):
        await blobs.read(bucket, "a b/ü.jpg", etag=first.etag)
    await blobs.delete(bucket, "a b/ü.jpg")
    await blobs.delete(bucket, "a b/ü.jpg")
    with pytest.raises(NoSuchBlob):
        await blobs.read(bucket, "a b/ü.jpg", etag=second.etag)


async def test_ranges_are_read_in_pieces(s3: tuple[Blobs, str]) -> None:
    """A range names itself and the whole, comes in bounded pieces, and an impossible one is refused."""
    blobs, bucket = s3
    data = random.Random(1).randbytes(1_000_000)
    written = await blobs.put(bucket, "a.jpg", data, content_type="image/jpeg")
    async with blobs.open(bucket, "a.jpg", etag=written.etag, byte_range="bytes=100-799999") as reading:
        found = [piece async for piece in reading.pieces]
        assert (reading.size_bytes, reading.total_bytes) == (799_900, 1_000_000)
        assert reading.content_range == "bytes 100-799999/1000000"
    assert b"".join(found) == data[100:800_000]
    assert max(map(len, found)) <= 256 << 10
    with pytest.raises(BlobRefused, match="InvalidRange"):
        async with blobs.open(bucket, "a.jpg", byte_range="bytes=2000000-"):
            pass


@pytest.mark.parametrize("stated", [True, False], ids=["length stated", "length unknown"])
@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, 100_000, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, SINGLE_PUT_BYTES, SINGLE_PUT_BYTES + 1, 40 * MIB],
)
async def test_streams_of_any_length_are_stored_whole(
    s3: tuple[Blobs, str], memory: WatchedBudget, size_bytes: int, stated: bool
) -> None:
    """At each size around a part's, the object has the stream's bytes, hash and size, and memory stays within the
    parts in flight."""
    blobs, bucket = s3
    data = random.Random(size_bytes).randbytes(size_bytes)
    written = await blobs.store(
        bucket,
        "a.jpg",
        pieces_of(data),
        content_type="image/jpeg",
        memory=memory,
        size_bytes=size_bytes if stated else None,
    )
    assert (written.size_bytes, written.sha256) == (size_bytes, hashlib.sha256(data).digest())
    head = await blobs.head(bucket, "a.jpg")
    assert (head.etag, head.size_bytes, head.content_type) == (written.etag, size_bytes, "image/jpeg")
    async with blobs.open(bucket, "a.jpg", etag=written.etag) as reading:
        digest = hashlib.sha256()
        async for piece in reading.pieces:
            digest.update(piece)
    assert digest.digest() == written.sha256
    assert memory.used_bytes == 0
    assert 0 < memory.most_bytes <= max(SINGLE_PUT_BYTES, (PARTS_IN_FLIGHT + 1) * PART_BYTES)
    assert await uploads_under_way(blobs, bucket) == []


@pytest.mark.parametrize("after_bytes", [0, 100_000, PART_BYTES + 1, 4 * PART_BYTES + 1])
async def test_a_source_that_fails_leaves_nothing(
    s3: tuple[Blobs, str], memory: WatchedBudget, after_bytes: int
) -> None:
    """Wherever a stream breaks, its own error comes through, and neither object, upload nor memory remains."""
    blobs, bucket = s3

    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces_of(bytes(after_bytes)):
            yield piece
        raise ZeroDivisionError("the client's fault")

    with pytest.raises(ZeroDivisionError, match="the client's fault"):
        await blobs.store(bucket, "a.jpg", broken(), content_type="image/jpeg", memory=memory)
    await assert_nothing_left(blobs, bucket, "a.jpg", memory)


@pytest.mark.parametrize("after_bytes", [0, PART_BYTES + 1, 4 * PART_BYTES + 1])
async def test_a_cancelled_write_leaves_nothing(s3: tuple[Blobs, str], memory: WatchedBudget, after_bytes: int) -> None:
    """A write that is cancelled while it waits for the client leaves neither object, upload nor memory."""
    blobs, bucket = s3
    waiting = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        async for piece in pieces_of(bytes(after_bytes)):
            yield piece
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(blobs.store(bucket, "a.jpg", stalled(), content_type="image/jpeg", memory=memory))
    await asyncio.wait_for(waiting.wait(), 20)
    if after_bytes:
        assert await uploads_under_way(blobs, bucket) == ["a.jpg"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await assert_nothing_left(blobs, bucket, "a.jpg", memory)


async def test_a_write_cancelled_while_its_upload_is_begun_leaves_nothing(
    s3: tuple[Blobs, str], memory: WatchedBudget
) -> None:
    """Cancelled at any moment of the request that begins a multipart upload, a write still aborts what it began."""
    blobs, bucket = s3
    for number in range(15):

        async def source() -> AsyncIterator[bytes]:
            yield bytes(PART_BYTES + 1)
            await asyncio.Event().wait()

        upload = blobs.store(bucket, "a.jpg", source(), content_type="image/jpeg", memory=memory)
        task = asyncio.create_task(upload)
        hashed = asyncio.create_task(asyncio.to_thread(hashlib.sha256, bytes(PART_BYTES)))  # as long as its own hash
        await asyncio.wait({task, hashed}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({task}, timeout=number / 1000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_nothing_left(blobs, bucket, "a.jpg", memory)


async def test_writes_cancelled_anywhere_leave_nothing(s3: tuple[Blobs, str], memory: WatchedBudget) -> None:
    """Twelve writes cancelled at random moments, during parts and completion too: each is whole or gone, and the budget
    is whole again."""
    blobs, bucket = s3
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    data = bytes(3 * PART_BYTES)
    for number in range(12):
        key = f"{number}.jpg"
        task = asyncio.create_task(blobs.store(bucket, key, pieces_of(data), content_type="image/jpeg", memory=memory))
        await asyncio.wait({task}, timeout=chance.uniform(0, 0.5))
        task.cancel()
        (found,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(found, asyncio.CancelledError):
            assert await uploads_under_way(blobs, bucket) == []
        else:
            assert (await blobs.head(bucket, key)).size_bytes == len(data)
        assert memory.used_bytes == 0


async def test_many_writes_share_one_budget(s3: tuple[Blobs, str]) -> None:
    """Six writes of 20 MB at once in a budget of 24 MiB all succeed, and never take more than it."""
    blobs, bucket = s3
    memory = WatchedBudget(24 * MIB, wait_seconds=60)
    data = random.Random(2).randbytes(20_000_000)
    written = await asyncio.gather(
        *(blobs.store(bucket, f"{n}.jpg", pieces_of(data), content_type="image/jpeg", memory=memory) for n in range(6))
    )
    assert {item.sha256 for item in written} == {hashlib.sha256(data).digest()}
    assert memory.most_bytes <= 24 * MIB
    assert memory.used_bytes == 0


async def test_a_bucket_is_there_once_it_was_made(s3: tuple[Blobs, str]) -> None:
    """Asking for a bucket that does not exist says no; making it, twice too, cures that."""
    blobs, bucket = s3
    assert await blobs.has_bucket(bucket)
    assert not await blobs.has_bucket(f"{bucket}-2")
    await blobs.ensure_bucket(f"{bucket}-2")
    await blobs.ensure_bucket(f"{bucket}-2")
    assert await blobs.has_bucket(f"{bucket}-2")


@pytest.mark.parametrize("size_bytes", [10, PART_BYTES + 1])
async def test_a_missing_bucket_is_named_as_such(moto: S3Backend, memory: WatchedBudget, size_bytes: int) -> None:
    """Where the server refuses to write into a missing bucket, NoSuchBucket is raised (SeaweedFS makes one)."""
    async with Blobs(storage_settings("unused", moto)) as blobs:
        source = pieces_of(bytes(size_bytes))
        with pytest.raises(NoSuchBucket):
            await blobs.store("missing", "a", source, content_type="image/jpeg", memory=memory)
    assert memory.used_bytes == 0


async def test_wrong_credentials_are_an_outage_of_ours(s3_backend: S3Backend, bucket: str) -> None:
    """Where the storage refuses our key the caller is told that it is unavailable, not that the client did wrong."""
    wrong = S3Backend(endpoint=s3_backend.endpoint, access_key=s3_backend.access_key, secret_key="wrong")
    async with Blobs(storage_settings("unused", wrong)) as blobs:
        with pytest.raises(BlobsUnavailable):
            await blobs.put(bucket, "a", b"x", content_type="image/jpeg")


async def test_a_storage_that_dies_and_comes_back(servers: Servers, bucket: str, memory: WatchedBudget) -> None:
    """With the server gone everything raises BlobsUnavailable, a write under way included; the same client works again
    when it is back."""
    backend = servers.s3_backend
    async with Blobs(storage_settings("unused", backend, s3_connect_timeout_seconds=1)) as blobs:
        written = await blobs.put(bucket, "before", b"kept", content_type="image/jpeg")

        async def dying() -> AsyncIterator[bytes]:
            yield bytes(2 * PART_BYTES)
            servers.seaweedfs.kill()
            yield bytes(2 * PART_BYTES)

        with pytest.raises(BlobsUnavailable):
            await blobs.store(bucket, "a.jpg", dying(), content_type="image/jpeg", memory=memory)
        for call in (
            blobs.head(bucket, "before"),
            blobs.read(bucket, "before", etag=written.etag),
            blobs.put(bucket, "b", b"x", content_type="image/jpeg"),
            blobs.delete(bucket, "before"),
            blobs.has_bucket(f"{bucket}-x"),
            blobs.ping(),
        ):
            with pytest.raises(BlobsUnavailable):
                await call
        assert blobs.down_since is not None
        assert memory.used_bytes == 0
        servers.seaweedfs.start()

        async def back() -> bool:
            try:
                return await blobs.read(bucket, "before", etag=written.etag) == b"kept"
            except (BlobsUnavailable, NoSuchBlob):
                return False

        await until(back, seconds=20, what="reading works again")
        assert blobs.down_since is None
        with pytest.raises(NoSuchBlob):
            await blobs.head(bucket, "a.jpg")
