"""The S3 client: bounded streaming writes, ranged and conditional reads. One client per process.

Promises that nothing becomes a finished object unless every byte arrived as it was hashed here (each request's SHA-256
is signed, and every S3 server checks it), that memory per write is bounded, and that a failed write leaves neither
object nor multipart upload. Knows nothing of photos.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import aioboto3
import aiohttp
import botocore.auth
import structlog
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from storage import failpoints
from storage.memory import MemoryBudget, MemoryBusy
from storage.pulse import ASK_SECONDS, Pulse
from storage.settings import StorageSettings

log = structlog.get_logger(__name__)

PART_BYTES = 5 << 20  # the least that S3 takes; its 10,000 parts make 48 GiB
SINGLE_PUT_BYTES = 8 << 20  # a body known to be no longer is sent in one request
PARTS_IN_FLIGHT = 2
READ_BYTES = 256 << 10
LOCKED_SECONDS = 3.0  # the longest that a call may take while a transaction holds a key's lock
_BUCKET_KNOWN_SECONDS = 60.0

_PASSING_CODES = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch",
    "RequestTimeTooSkewed", "IncompleteBody", "OperationAborted", "Throttling", "TooManyRequests",
}  # fmt: skip
_DENIED_CODES = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "InvalidToken"}


class BlobsUnavailable(Exception):
    """The storage is down, out of reach, refuses our credentials or asks to slow down."""


class BlobsDenied(BlobsUnavailable):
    """The storage refuses our credentials: for this request, or altogether (storage.denials)."""


class NoSuchBucket(Exception):
    """The storage has no such bucket."""


class NoSuchBlob(Exception):
    """The storage has no such object."""


class BlobChanged(Exception):
    """The object under this key is not the one that was asked for."""


class BlobRefused(Exception):
    """The storage will not take this request, however often it is sent. `code` is S3's."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Journal(Protocol):
    """Keeps account of one multipart upload, so that it can be found where this process dies, or gives it up because it
    could not be aborted. `end` and `give_up` raise nothing."""

    async def begin(self) -> None: ...

    async def end(self) -> None: ...

    async def give_up(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Written:
    etag: str
    version_id: str | None
    sha256: bytes
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Head:
    etag: str
    version_id: str | None
    size_bytes: int
    content_type: str
    metadata: Mapping[str, str]
    modified_at: datetime


@dataclass(frozen=True, kw_only=True)
class Listed:
    key: str
    etag: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, kw_only=True)
class OpenUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    begun_at: datetime


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of an open multipart upload. `etag`: without quotes."""

    number: int
    size_bytes: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """An open answer: its size and range, and its bytes in pieces of at most READ_BYTES."""

    etag: str
    size_bytes: int  # of this answer
    total_bytes: int  # of the object
    content_range: str | None
    pieces: AsyncIterator[bytes]


class _HashedBody(io.BytesIO):
    """Bytes that know their SHA-256, so that signing them does not hash them again on the event loop."""

    sha256_hex: str = ""


class _HashedAuth(botocore.auth.S3SigV4Auth):
    """Signature V4 that takes the hash that was computed off the event loop."""

    def payload(self, request: Any) -> str:
        return getattr(request.body, "sha256_hex", "") or str(super().payload(request))


_SIGNATURE = "s3v4-safelight"
botocore.auth.AUTH_TYPE_MAPS[_SIGNATURE] = _HashedAuth
botocore.auth.AUTH_TYPE_MAPS[f"{_SIGNATURE}-query"] = botocore.auth.S3SigV4QueryAuth


class Blobs:
    """The S3 client of one process. Opened once; survives any outage of the storage."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._session = aioboto3.Session(
            aws_access_key_id=settings.s3_access_key,
            aws_secret_access_key=settings.s3_secret_key,
            region_name=settings.s3_region,
        )
        self._stack = contextlib.AsyncExitStack()
        self._buckets: dict[str, float] = {}  # name -> time.monotonic() until which it is known to exist
        self._client: Any = None
        self._asking: Any = None  # a client with connections of its own
        self._pulse = Pulse(self._answers)
        self._watching: asyncio.Task[None] | None = None
        self.down_since: float | None = None

    async def __aenter__(self) -> Blobs:
        settings = self._settings
        self._client = await self._open_client(
            connect_timeout=settings.s3_connect_timeout_seconds,
            read_timeout=settings.s3_read_timeout_seconds,
            retries={"mode": "standard", "max_attempts": 2},
            max_pool_connections=settings.s3_max_connections,
        )
        self._watching = asyncio.create_task(self._pulse.watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        await self._stack.aclose()

    async def _open_client(self, **limits: Any) -> Any:
        config = AioConfig(
            signature_version=_SIGNATURE,
            s3={"addressing_style": "path", "payload_signing_enabled": True},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **limits,
        )
        client = self._session.client("s3", endpoint_url=self._settings.s3_endpoint, config=config)
        return await self._stack.enter_async_context(client)

    async def _answers(self) -> bool:
        """Whether the storage answers anything at all, an error included. Asked on a connection of its own, because
        those of the client may all wait."""
        self._asking = self._asking or await self._open_client(
            connect_timeout=ASK_SECONDS,
            read_timeout=ASK_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=1,
        )
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await self._asking.head_bucket(Bucket=self._settings.default_bucket)
        except ClientError:
            return True
        except (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError):
            return False
        return True

    async def ping(self) -> None:
        """Raises BlobsUnavailable where the storage does not answer within three seconds, or has lost our bucket."""
        try:
            async with asyncio.timeout(3), self._translated():
                await self._client.head_bucket(Bucket=self._settings.default_bucket)
        except NoSuchBucket:
            raise BlobsUnavailable("the default bucket is gone") from None
        except TimeoutError as error:
            raise self._unavailable(error) from error

    async def ensure_bucket(self, bucket: str) -> None:
        """Make the bucket unless it is there."""
        if await self.has_bucket(bucket, fresh=True):
            return
        where = {} if self._settings.s3_region == "us-east-1" else {"LocationConstraint": self._settings.s3_region}
        try:
            async with self._translated():
                await self._client.create_bucket(
                    Bucket=bucket, **({"CreateBucketConfiguration": where} if where else {})
                )
        except BlobRefused as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    async def has_bucket(self, bucket: str, *, fresh: bool = False) -> bool:
        """Whether the storage has the bucket. A yes is remembered for a minute, unless the storage is silent; `fresh`
        asks again."""
        if not fresh and not self._pulse.silent and self._buckets.get(bucket, 0) > time.monotonic():
            return True
        try:
            async with self._translated():
                await self._client.head_bucket(Bucket=bucket)
        except NoSuchBucket:
            return False
        if len(self._buckets) > 10_000:
            self._buckets.clear()
        self._buckets[bucket] = time.monotonic() + _BUCKET_KNOWN_SECONDS
        return True

    async def list_buckets(self) -> list[str]:
        """Every bucket that our key may see in the storage's own list; none where it may not see the list."""
        try:
            async with self._translated():
                answer = await self._client.list_buckets()
        except (BlobsDenied, BlobRefused):
            return []
        return [item["Name"] for item in answer.get("Buckets") or []]

    async def head(self, bucket: str, key: str, *, within_seconds: float | None = None) -> Head:
        """What lies under the key now. `within_seconds`: for whoever holds locks meanwhile. Raises NoSuchBlob,
        NoSuchBucket."""
        async with self._translated(), asyncio.timeout(within_seconds):
            answer = await self._client.head_object(Bucket=bucket, Key=key)
        return Head(
            etag=answer["ETag"].strip('"'),
            version_id=_version(answer),
            size_bytes=answer["ContentLength"],
            content_type=answer.get("ContentType", "application/octet-stream"),
            metadata=answer.get("Metadata", {}),
            modified_at=answer["LastModified"],
        )

    async def list_page(
        self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> tuple[list[Listed], bool]:
        """A page of at most 1,000 objects after a key, in the storage's own order (SeaweedFS' is not that of the keys'
        bytes), and whether there are more. Raises NoSuchBucket."""
        async with self._translated():
            answer = await self._client.list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=after, MaxKeys=limit)
        found = [
            Listed(
                key=item["Key"],
                etag=item["ETag"].strip('"'),
                size_bytes=item["Size"],
                modified_at=item["LastModified"],
            )
            for item in answer.get("Contents", [])
        ]
        return found, bool(answer.get("IsTruncated")) and bool(found)

    async def list_uploads(
        self, bucket: str, *, prefix: str = "", after: tuple[str, str] = ("", ""), limit: int = 1000
    ) -> tuple[list[OpenUpload], bool]:
        """A page of open multipart uploads after (key, upload id), and whether there are more. Raises NoSuchBucket."""
        markers = {"KeyMarker": after[0], "UploadIdMarker": after[1]} if after[0] else {}
        async with self._translated():
            answer = await self._client.list_multipart_uploads(
                Bucket=bucket, Prefix=prefix, MaxUploads=limit, **markers
            )
        found = [
            OpenUpload(key=item["Key"], upload_id=item["UploadId"], begun_at=item["Initiated"])
            for item in answer.get("Uploads", [])
        ]
        return found, bool(answer.get("IsTruncated")) and bool(found)

    async def abort_upload(self, bucket: str, upload: OpenUpload) -> None:
        """Abort a multipart upload; one that is gone already is no error."""
        with contextlib.suppress(NoSuchBlob):
            async with self._translated():
                await self._client.abort_multipart_upload(Bucket=bucket, Key=upload.key, UploadId=upload.upload_id)

    async def begin_upload(self, bucket: str, key: str, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """Begin a multipart upload whose parts others send; its id. Raises NoSuchBucket."""
        async with self._translated():
            answer = await self._client.create_multipart_upload(
                Bucket=bucket, Key=key, ContentType=content_type, Metadata=dict(metadata)
            )
        return str(answer["UploadId"])

    async def list_parts(self, bucket: str, key: str, upload_id: str) -> list[Part]:
        """Every part that arrived, by number: at most S3's 10,000. Raises NoSuchBlob where the upload is over."""
        found: list[Part] = []
        while True:
            async with self._translated():
                answer = await self._client.list_parts(
                    Bucket=bucket, Key=key, UploadId=upload_id, PartNumberMarker=found[-1].number if found else 0
                )
            page = [
                Part(number=item["PartNumber"], size_bytes=item["Size"], etag=item["ETag"].strip('"'))
                for item in answer.get("Parts", [])
            ]
            found += page
            if not page or not answer.get("IsTruncated"):
                return found

    async def complete_upload(self, bucket: str, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Make an object of the parts, unless there is one. Raises NoSuchBlob where the upload is over (completed,
        maybe), BlobChanged where an object is there."""
        stated = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        async with self._translated():
            await self._client.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": stated}, IfNoneMatch="*"
            )

    async def copy(self, source: tuple[str, str], target: tuple[str, str], *, etag: str) -> str:
        """Copy that very generation within the storage, from and to (bucket, key); the copy's etag. At most 5 GiB.
        Raises NoSuchBlob, BlobChanged."""
        async with self._translated():
            answer = await self._client.copy_object(
                Bucket=target[0],
                Key=target[1],
                CopySource={"Bucket": source[0], "Key": source[1]},
                CopySourceIfMatch=f'"{etag}"',
            )
        return str(answer["CopyObjectResult"]["ETag"]).strip('"')

    async def read(self, bucket: str, key: str, *, etag: str, first_bytes: int | None = None) -> bytes:
        """The bytes of that very generation, or only its first ones. Raises NoSuchBlob, BlobChanged."""
        byte_range = f"bytes=0-{first_bytes - 1}" if first_bytes else None
        async with self.open(bucket, key, etag=etag, byte_range=byte_range) as reading:
            data = b"".join([piece async for piece in reading.pieces])
        if len(data) != reading.size_bytes:
            raise BlobsUnavailable("the storage's answer was cut short")
        return data

    @contextlib.asynccontextmanager
    async def open(
        self, bucket: str, key: str, *, etag: str | None = None, byte_range: str | None = None
    ) -> AsyncIterator[Reading]:
        """Read in pieces. Raises NoSuchBlob, BlobChanged (etag), BlobRefused('InvalidRange')."""
        wanted = {"Bucket": bucket, "Key": key}
        if etag:
            wanted["IfMatch"] = f'"{etag}"'
        if byte_range:
            wanted["Range"] = byte_range
        async with self._translated():
            answer = await self._client.get_object(**wanted)
        body = answer["Body"]
        async with body:
            content_range = answer.get("ContentRange")
            size_bytes = answer["ContentLength"]
            yield Reading(
                etag=answer["ETag"].strip('"'),
                size_bytes=size_bytes,
                total_bytes=int(content_range.rsplit("/", 1)[1]) if content_range else size_bytes,
                content_range=content_range,
                pieces=self._pieces(body),
            )

    async def put(
        self, bucket: str, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> Written:
        """Store bytes that are at hand."""
        body = _HashedBody(data)
        digest = await asyncio.to_thread(hashlib.sha256, data)
        body.sha256_hex = digest.hexdigest()
        async with self._translated():
            answer = await self._client.put_object(
                Bucket=bucket, Key=key, Body=body, ContentType=content_type, Metadata=dict(metadata or {})
            )
        return Written(
            etag=answer["ETag"].strip('"'),
            version_id=_version(answer),
            sha256=digest.digest(),
            size_bytes=len(data),
        )

    async def store(
        self,
        bucket: str,
        key: str,
        pieces: AsyncIterator[bytes],
        *,
        content_type: str,
        memory: MemoryBudget,
        size_bytes: int | None = None,
        journal: Journal | None = None,
    ) -> Written:
        """Store a stream of unknown or stated length, holding at most PARTS_IN_FLIGHT + 1 parts of it in memory.
        `journal` is told of a multipart upload before it is created, and when nothing of it is left. On any
        error, cancellation included, nothing is left behind. Errors of `pieces` pass through."""
        upload = _Upload(
            self, bucket, key, content_type=content_type, memory=memory, size_bytes=size_bytes, journal=journal
        )
        try:
            return await upload.run(pieces)
        except BaseException:
            await asyncio.shield(upload.abort())
            raise

    async def delete(self, bucket: str, key: str, *, etag: str | None = None) -> None:
        """Delete an object; one that is gone already is no error. `etag`: only that generation, as far as the storage
        knows conditional deletion. Raises BlobChanged where it finds another one."""
        only = {"IfMatch": f'"{etag}"'} if etag else {}
        with contextlib.suppress(NoSuchBlob):
            async with self._translated():
                await self._client.delete_object(Bucket=bucket, Key=key, **only)

    async def _pieces(self, body: Any) -> AsyncIterator[bytes]:
        while True:
            async with self._translated():
                piece = await body.read(READ_BYTES)
            if not piece:
                return
            yield piece

    @contextlib.asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            async with self._pulse.calling():
                yield
        except ClientError as error:
            raise self._translate(error) from error
        except (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise self._unavailable(error) from error
        if self.down_since is not None:
            log.info("dependency.up", message="The storage is back.", dependency="s3")
            self.down_since = None

    def _translate(self, error: ClientError) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        operation = error.operation_name
        if code == "NoSuchBucket" or (
            status == 404 and operation in ("HeadBucket", "PutObject", "CreateMultipartUpload")
        ):
            return NoSuchBucket(code)
        if status == 404:
            return NoSuchBlob(code)
        if status == 412:
            return BlobChanged(code)
        if status >= 500 or status == 429 or code in _PASSING_CODES:
            return self._unavailable(error)
        if code == "InvalidObjectState":  # archived: it comes back only when somebody restores it
            return BlobRefused(code)
        if status in (401, 403) or code in _DENIED_CODES:
            log.error(
                "storage.denied",
                message="The storage refuses our credentials.",
                operation=operation,
                code=code or status,
            )
            self._unavailable(error)
            return BlobsDenied(code or str(status))
        return BlobRefused(code or str(status))

    def _unavailable(self, error: BaseException) -> BlobsUnavailable:
        if self.down_since is None:
            self.down_since = time.time()
            log.warning("dependency.down", message="The storage cannot be used.", dependency="s3", error=repr(error))
        return BlobsUnavailable(type(error).__name__)


class _Upload:
    """One write: a single request where the body is short, a multipart upload otherwise."""

    def __init__(
        self,
        blobs: Blobs,
        bucket: str,
        key: str,
        *,
        content_type: str,
        memory: MemoryBudget,
        size_bytes: int | None,
        journal: Journal | None,
    ) -> None:
        self._blobs = blobs
        self._journal = journal
        self._where = {"Bucket": bucket, "Key": key}
        self._content_type = content_type
        self._memory = memory
        known_short = size_bytes is not None and size_bytes <= SINGLE_PUT_BYTES
        self._part_bytes = max(1, size_bytes or 0) if known_short else PART_BYTES
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._upload_id: str | None = None
        self._creating: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[dict[str, Any]]] = []
        self._slots = asyncio.Semaphore(PARTS_IN_FLIGHT)

    async def run(self, pieces: AsyncIterator[bytes]) -> Written:
        rest = b""
        ended = False
        while not ended:
            await self._reserve()
            try:
                body, rest, ended = await self._fill(pieces, rest)
                if ended and self._upload_id is None:
                    return await self._put_single(body)
                await self._start_part(body)
            except BaseException:
                self._memory.release(self._part_bytes)
                raise
        return await self._complete()

    async def _reserve(self) -> None:
        """Memory for a part. It is the storage that is at fault where uploads to one that is down hold all of it."""
        try:
            await self._memory.reserve(self._part_bytes)
        except MemoryBusy as error:
            if self._blobs.down_since is not None:
                raise BlobsUnavailable("others wait for the storage") from error
            raise

    async def abort(self) -> None:
        """Leave nothing behind. Errors are logged: the sweep of dangling uploads comes by later."""
        for task in self._tasks:
            task.cancel()
        begun = [self._creating] if self._creating else []
        await asyncio.gather(*begun, *self._tasks, return_exceptions=True)
        if self._upload_id is None:
            return
        await failpoints.reach("abort.before")
        try:
            async with asyncio.timeout(10), self._blobs._translated():
                await self._blobs._client.abort_multipart_upload(**self._where, UploadId=self._upload_id)
            if self._journal is not None:
                await self._journal.end()
        except (BlobsUnavailable, NoSuchBlob, NoSuchBucket, BlobRefused, TimeoutError) as error:
            log.warning(
                "upload.abort_failed", message="A multipart upload is left dangling.", **self._where, error=repr(error)
            )
            if self._journal is not None:
                await self._journal.give_up()

    async def _fill(self, pieces: AsyncIterator[bytes], rest: bytes) -> tuple[_HashedBody, bytes, bool]:
        """Read one part, hash it off the loop. Returns it, what belongs to the next one, and whether this is the
        last."""
        body = _HashedBody()
        body.write(rest)
        rest, ended = b"", False
        while body.tell() <= self._part_bytes:
            piece = await anext(pieces, None)
            if piece is None:
                ended = True
                break
            body.write(piece)
        if body.tell() > self._part_bytes:
            with body.getbuffer() as view:
                rest = bytes(view[self._part_bytes :])
            body.truncate(self._part_bytes)
        body.seek(0)
        await asyncio.to_thread(self._hash, body)
        return body, rest, ended

    def _hash(self, body: _HashedBody) -> None:
        with body.getbuffer() as view:
            body.sha256_hex = hashlib.sha256(view).hexdigest()
            self._digest.update(view)
            self._size_bytes += len(view)

    async def _put_single(self, body: _HashedBody) -> Written:
        async with self._blobs._translated():
            answer = await self._blobs._client.put_object(**self._where, Body=body, ContentType=self._content_type)
        await failpoints.reach("s3.completed")
        self._memory.release(self._part_bytes)
        return self._written(answer)

    async def _start_part(self, body: _HashedBody) -> None:
        """Send a part beside the reading of the next one. The task owns the part's memory."""
        if self._creating is None:
            # Shielded, so that a write cancelled meanwhile still learns the id of the upload that it must abort.
            self._creating = asyncio.create_task(self._create())
            await asyncio.shield(self._creating)
        await self._slots.acquire()
        for task in self._tasks:
            if task.done():
                task.result()  # a part that failed ends the upload before more is read
        task = asyncio.create_task(self._send_part(len(self._tasks) + 1, body))
        task.add_done_callback(self._part_sent)
        self._tasks.append(task)

    async def _create(self) -> None:
        if self._journal is not None:
            await self._journal.begin()
        async with self._blobs._translated():
            answer = await self._blobs._client.create_multipart_upload(**self._where, ContentType=self._content_type)
        self._upload_id = str(answer["UploadId"])

    async def _send_part(self, number: int, body: _HashedBody) -> dict[str, Any]:
        async with self._blobs._translated():
            answer = await self._blobs._client.upload_part(
                **self._where, UploadId=self._upload_id, PartNumber=number, Body=body
            )
        await failpoints.reach("s3.part_sent")
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _part_sent(self, _task: asyncio.Task[dict[str, Any]]) -> None:
        self._slots.release()
        self._memory.release(self._part_bytes)

    async def _complete(self) -> Written:
        parts = await asyncio.gather(*self._tasks)
        call = {**self._where, "UploadId": self._upload_id, "MultipartUpload": {"Parts": parts}}
        try:
            async with self._blobs._translated():
                answer = await self._blobs._client.complete_multipart_upload(**call)
        except NoSuchBlob:  # an earlier try of the client succeeded and its answer was lost
            answer = await self._find_completed(parts)
        await failpoints.reach("s3.completed")
        self._upload_id = None
        if self._journal is not None:
            await self._journal.end()
        return self._written(answer)

    async def _find_completed(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        whole = hashlib.md5(
            b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts), usedforsecurity=False
        ).hexdigest()
        head = await self._blobs.head(self._where["Bucket"], self._where["Key"])
        if head.etag != f"{whole}-{len(parts)}" or head.size_bytes != self._size_bytes:
            raise BlobsUnavailable("the multipart upload vanished")
        return {"ETag": head.etag, "VersionId": head.version_id}

    def _written(self, answer: Mapping[str, Any]) -> Written:
        return Written(
            etag=answer["ETag"].strip('"'),
            version_id=_version(answer),
            sha256=self._digest.digest(),
            size_bytes=self._size_bytes,
        )


def _version(answer: Mapping[str, Any]) -> str | None:
    version = answer.get("VersionId")
    return None if version in (None, "", "null") else str(version)
