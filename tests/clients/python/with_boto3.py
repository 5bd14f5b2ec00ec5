"""boto3 as most use it: transfers for files, the default signature version for presigned URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from serving import PARALLEL, open_pipe, run_all, serve, write


class Boto3:
    def __init__(self, endpoint: Mapping[str, str]) -> None:
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint["url"],
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=PARALLEL),
        )

    def put(self, bucket: str, key: str, path: str, content_type: str = "", metadata: Any = None) -> None:
        extra: dict[str, Any] = {"Metadata": metadata or {}}
        if content_type:
            extra["ContentType"] = content_type
        self._client.upload_file(path, bucket, key, ExtraArgs=extra)

    def put_stream(self, bucket: str, key: str, path: str) -> None:
        with open_pipe(path) as pipe:
            self._client.upload_fileobj(pipe, bucket, key)

    def get(self, bucket: str, key: str, path: str) -> None:
        self._client.download_file(bucket, key, path)

    def get_range(self, bucket: str, key: str, path: str, first: int, last: int) -> None:
        answer = self._client.get_object(Bucket=bucket, Key=key, Range=f"bytes={first}-{last}")
        write(path, answer["Body"].read())

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": 7}
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def describe(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        answer = self._client.head_object(Bucket=bucket, Key=key)
        return answer["ContentType"], answer["Metadata"]

    def copy(self, bucket: str, source: str, target: str) -> None:
        self._client.copy_object(Bucket=bucket, Key=target, CopySource={"Bucket": bucket, "Key": source})

    def presign_get(self, bucket: str, key: str) -> str:
        return self._client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})

    def presign_put(self, bucket: str, key: str) -> str:
        return self._client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": key})

    def put_many(self, bucket: str, files: Mapping[str, str]) -> None:
        def put(key: str, path: str) -> None:
            with open(path, "rb") as file:
                self._client.put_object(Bucket=bucket, Key=key, Body=file)

        run_all(put, files)

    def get_many(self, bucket: str, files: Mapping[str, str]) -> None:
        run_all(lambda key, path: self.get(bucket, key, path), files)

    def delete_tree(self, bucket: str, prefix: str, keys: list[str]) -> None:
        answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
        if answer.get("Errors"):
            raise RuntimeError(f"not deleted: {answer['Errors']}")


serve(Boto3)
