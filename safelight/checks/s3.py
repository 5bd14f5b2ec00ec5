"""The storage: its buckets, its clock, each permission by a call that needs it, and its address as clients see it.

What is written lies under `.safelight-doctor/` and is deleted again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from gateway.s3.presigning import presign_url
from gateway.s3.scope import Signer
from safelight.checks.finding import Finding, fail, judge_clock, ok, warn
from safelight.settings import Settings
from storage.blobs import BlobChanged, BlobRefused, Blobs, BlobsUnavailable, NoSuchBlob, NoSuchBucket
from storage.settings import StorageSettings

_BODY = b"safelight doctor was here"
_TROUBLE = (BlobRefused, BlobsUnavailable, BlobChanged, NoSuchBlob, NoSuchBucket)
_HTTP_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)


async def check(settings: Settings) -> AsyncIterator[Finding]:
    storage = settings.storage
    yield await _clock(storage)
    async with Blobs(storage) as blobs:
        watched = [hook.bucket for hook in settings.jobs.hooks if hook.bucket and hook.processors != ()]
        for bucket in dict.fromkeys((storage.default_bucket, *watched, *storage.closed_buckets)):
            yield await _bucket(blobs, bucket)
        yield await _public(blobs, storage)


async def _clock(storage: StorageSettings) -> Finding:
    """By the Date of any answer, be it a refusal."""
    endpoint = storage.s3_endpoint or f"https://s3.{storage.s3_region}.amazonaws.com"
    asked_at = time.time()
    try:
        async with _session() as session, session.head(endpoint) as answer:
            date = answer.headers.get("Date")
    except _HTTP_TROUBLE as error:
        return fail(
            "storage",
            f"The storage at {endpoint} does not answer: {type(error).__name__}: {error}",
            "Check SAFELIGHT_S3_ENDPOINT, that the storage is up, and that this machine reaches it.",
        )
    if not date:
        return warn("storage clock", "The storage's answers have no Date.", "Check by hand that its clock is right.")
    middle = asked_at + (time.time() - asked_at) / 2
    # A Date has whole seconds, rounded down.
    return judge_clock("storage clock", "The storage's", parsedate_to_datetime(date).timestamp() + 0.5 - middle)


async def _bucket(blobs: Blobs, bucket: str) -> Finding:
    """Every call that Safelight makes there, one after the other, up to the first that fails."""
    name, key = f"bucket {bucket}", f".safelight-doctor/{uuid.uuid4().hex}"
    done: list[str] = []
    try:
        async for step in _steps(blobs, bucket, key):
            done.append(step)  # noqa: PERF401 - those before an error are told
    except NoSuchBucket:
        return fail(name, "The bucket is not there.", "A gateway makes it when it starts and may; or make it by hand.")
    except _TROUBLE as error:
        code = error.code if isinstance(error, BlobRefused) else f"{type(error).__name__}: {error}"
        step = _STEPS[len(done)]
        return fail(
            name,
            f"Safelight's key cannot {step}: {code}. It can {', '.join(done) or 'nothing'}.",
            "Give the key of SAFELIGHT_S3_ACCESS_KEY that right: minio/policy.json names all that are needed.",
        )
    return ok(name, f"Safelight's key can {', '.join(done)}.")


_STEPS = ("find it", "list", "write", "read", "tell a wrong ETag", "hold multipart uploads", "delete")


async def _steps(blobs: Blobs, bucket: str, key: str) -> AsyncIterator[str]:
    if not await blobs.has_bucket(bucket, fresh=True):
        raise NoSuchBucket(bucket)
    yield _STEPS[0]
    await blobs.list_page(bucket, limit=1)
    yield _STEPS[1]
    written = await blobs.put(bucket, key, _BODY, content_type="text/plain")
    yield _STEPS[2]
    try:
        await blobs.head(bucket, key)
        if await blobs.read(bucket, key, etag=written.etag, first_bytes=9) != _BODY[:9]:
            raise BlobRefused("WrongRange")
        yield _STEPS[3]
        await _expect_change(blobs, bucket, key)
        yield _STEPS[4]
        await _multipart(blobs, bucket, key)
        yield _STEPS[5]
    finally:
        await blobs.delete(bucket, key)
    yield _STEPS[6]


async def _expect_change(blobs: Blobs, bucket: str, key: str) -> None:
    try:
        await blobs.read(bucket, key, etag="0" * 32)
    except BlobChanged:
        return
    raise BlobRefused("IgnoresIfMatch")


async def _multipart(blobs: Blobs, bucket: str, key: str) -> None:
    upload_id = await blobs.begin_upload(bucket, key, content_type="text/plain", metadata={})
    found, _ = await blobs.list_uploads(bucket, prefix=key)
    for upload in found:
        if upload.upload_id == upload_id:
            await blobs.abort_upload(bucket, upload)
            return
    raise BlobRefused("UploadNotListed")


async def _public(blobs: Blobs, storage: StorageSettings) -> Finding:
    """A signed address, as clients get one for a direct upload, fetched from here."""
    name, key = "public address", f".safelight-doctor/{uuid.uuid4().hex}"
    signer = Signer(access_key=storage.s3_access_key, secret_key=storage.s3_secret_key, region=storage.s3_region)

    async def fetch() -> int:
        url = presign_url(
            "GET",
            (storage.default_bucket, key),
            endpoint=storage.public_endpoint,
            headers={},
            query={},
            signer=signer,
            now=datetime.now(UTC),
            expires_seconds=60,
        )
        async with _session() as session, session.get(URL(url, encoded=True)) as answer:
            return answer.status

    do = "Set SAFELIGHT_S3_PUBLIC_ENDPOINT to the address by which clients reach the storage, as they must sign for it."
    try:
        status = await _with_object(blobs, storage.default_bucket, key, fetch)
    except _TROUBLE:
        return warn(name, "It cannot be tried, because the bucket cannot be written.", "Mend that first.")
    except _HTTP_TROUBLE as error:
        return fail(name, f"{storage.public_endpoint} does not answer from here: {type(error).__name__}: {error}", do)
    if status != 200:
        return fail(name, f"{storage.public_endpoint} answers {status} to a signed address.", do)
    return ok(name, f"A signed address at {storage.public_endpoint} works from here.")


async def _with_object(blobs: Blobs, bucket: str, key: str, action: Callable[[], Awaitable[int]]) -> int:
    await blobs.put(bucket, key, _BODY, content_type="text/plain")
    try:
        return await action()
    finally:
        await blobs.delete(bucket, key)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
