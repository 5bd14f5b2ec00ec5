"""aioboto3, in the environment of Safelight itself, whose boto3 is older than the clients' one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import aioboto3
from botocore.config import Config
from serving import PARALLEL, open_pipe, serve, write

T = TypeVar("T")


class Aioboto3:
    """Calls come one after another; each runs on one event loop that is kept."""

    def __init__(self, endpoint: Mapping[str, str]) -> None:
        self._loop = asyncio.new_event_loop()
        config = Config(s3={"addressing_style": "path"}, max_pool_connections=PARALLEL)
        made = aioboto3.Session().client("s3", endpoint_url=endpoint["url"], config=config)
        self._client: Any = self._run(made.__aenter__())

    def put(self, bucket: str, key: str, path: str, content_type: str = "", metadata: Any = None) -> None:
        extra: dict[str, Any] = {"Metadata": metadata or {}}
        if content_type:
            extra["ContentType"] = content_type
        self._run(self._client.upload_file(path, bucket, key, ExtraArgs=extra))

    def put_stream(self, bucket: str, key: str, path: str) -> None:
        with open_pipe(path) as pipe:
            self._run(self._client.upload_fileobj(pipe, bucket, key))

    def get(self, bucket: str, key: str, path: str) -> None:
        self._run(self._client.download_file(bucket, key, path))

    def get_range(self, bucket: str, key: str, path: str, first: int, last: int) -> None:
        async def read() -> bytes:
            answer = await self._client.get_object(Bucket=bucket, Key=key, Range=f"bytes={first}-{last}")
            return bytes(await answer["Body"].read())

        write(path, self._run(read()))

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        async def read() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [item["Key"] async for page in pages for item in page.get("Contents", [])]

        return self._run(read())

    def delete(self, bucket: str, key: str) -> None:
        self._run(self._client.delete_object(Bucket=bucket, Key=key))

    def describe(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        answer = self._run(self._client.head_object(Bucket=bucket, Key=key))
        return answer["ContentType"], answer["Metadata"]

    def copy(self, bucket: str, source: str, target: str) -> None:
        found = {"Bucket": bucket, "Key": source}
        self._run(self._client.copy_object(Bucket=bucket, Key=target, CopySource=found))

    def presign_get(self, bucket: str, key: str) -> str:
        return self._run(self._client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}))

    def presign_put(self, bucket: str, key: str) -> str:
        return self._run(self._client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": key}))

    def put_many(self, bucket: str, files: Mapping[str, str]) -> None:
        async def put(key: str, path: str) -> None:
            with open(path, "rb") as file:  # noqa: ASYNC230 - a driver serves nobody else meanwhile
                await self._client.put_object(Bucket=bucket, Key=key, Body=file)

        self._run(_all(put(key, path) for key, path in files.items()))

    def get_many(self, bucket: str, files: Mapping[str, str]) -> None:
        self._run(_all(self._client.download_file(bucket, key, path) for key, path in files.items()))

    def delete_tree(self, bucket: str, prefix: str, keys: list[str]) -> None:
        wanted = {"Objects": [{"Key": key} for key in keys]}
        answer = self._run(self._client.delete_objects(Bucket=bucket, Delete=wanted))
        if answer.get("Errors"):
            raise RuntimeError(f"not deleted: {answer['Errors']}")

    def _run(self, work: Awaitable[T]) -> T:
        return self._loop.run_until_complete(work)


async def _all(work: Any) -> None:
    await asyncio.gather(*work)


serve(Aioboto3)
