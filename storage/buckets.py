"""What an administrator sets on a bucket: that it exists, its notifications, its lifecycle and its CORS rules.

For commands, not for processes that serve. Rules are given and taken as S3's own documents; whose they are and how they
are merged is decided elsewhere. Knows no storage by name, but for the topics that Ceph's S3 server keeps.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from storage.blobs import BlobRefused, BlobsUnavailable
from storage.settings import StorageSettings

Rules = list[dict[str, Any]]

_ABSENT = ("NoSuchLifecycleConfiguration", "NoSuchCORSConfiguration", "NoSuchConfiguration", "404")


class Buckets:
    """A client of one command. Every method raises BlobsUnavailable, or BlobRefused with S3's code."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._session = aioboto3.Session(
            aws_access_key_id=settings.s3_access_key,
            aws_secret_access_key=settings.s3_secret_key,
            region_name=settings.s3_region,
        )
        self._stack = contextlib.AsyncExitStack()
        self._client: Any = None

    async def __aenter__(self) -> Buckets:
        config = AioConfig(
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "max_attempts": 2},
            request_checksum_calculation="when_required",
        )
        self._client = await self._stack.enter_async_context(
            self._session.client("s3", endpoint_url=self._settings.s3_endpoint, config=config)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def headers(self) -> Mapping[str, str]:
        """The headers of an answer of the storage, by lower-case name: they tell what it is."""
        async with _translated():
            answer = await self._client.list_buckets()
        return {name.lower(): str(value) for name, value in answer["ResponseMetadata"]["HTTPHeaders"].items()}

    async def exists(self, bucket: str) -> bool:
        try:
            async with _translated():
                await self._client.head_bucket(Bucket=bucket)
        except BlobRefused as error:
            if error.code in ("404", "NoSuchBucket"):
                return False
            raise
        return True

    async def make(self, bucket: str) -> None:
        region = self._settings.s3_region
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        async with _translated():
            await self._client.create_bucket(Bucket=bucket, **where)

    async def notification(self, bucket: str) -> dict[str, Any]:
        """The whole document; empty where there is none."""
        async with _translated():
            answer = await self._client.get_bucket_notification_configuration(Bucket=bucket)
        return {name: value for name, value in answer.items() if name != "ResponseMetadata"}

    async def set_notification(self, bucket: str, document: Mapping[str, Any]) -> None:
        async with _translated():
            await self._client.put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration=dict(document)
            )

    async def lifecycle(self, bucket: str) -> Rules:
        return await self._rules(self._client.get_bucket_lifecycle_configuration, "Rules", bucket)

    async def set_lifecycle(self, bucket: str, rules: Sequence[Mapping[str, Any]]) -> None:
        async with _translated():
            await self._client.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}
            )

    async def cors(self, bucket: str) -> Rules:
        return await self._rules(self._client.get_bucket_cors, "CORSRules", bucket)

    async def set_cors(self, bucket: str, rules: Sequence[Mapping[str, Any]]) -> None:
        async with _translated():
            await self._client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": list(rules)})

    async def make_topic(self, name: str, attributes: Mapping[str, str]) -> str:
        """Make a topic in Ceph's S3 server, or give it these attributes. Returns its ARN."""
        config = AioConfig(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 2})
        async with (
            _translated(),
            self._session.client(
                "sns", endpoint_url=self._settings.s3_endpoint, region_name="default", config=config
            ) as client,
        ):
            answer = await client.create_topic(Name=name, Attributes=dict(attributes))
        return str(answer["TopicArn"])

    async def _rules(self, get: Any, name: str, bucket: str) -> Rules:
        try:
            async with _translated():
                answer = await get(Bucket=bucket)
        except BlobRefused as error:
            if error.code in _ABSENT:
                return []
            raise
        found: Rules = answer.get(name, [])
        return found


@contextlib.asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise BlobRefused(code or "unknown") from error
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise BlobsUnavailable(type(error).__name__) from error
