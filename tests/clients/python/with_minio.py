"""minio-py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import urllib3
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from serving import PARALLEL, open_pipe, run_all, serve, write

from minio import Minio

PART_BYTES = 5 << 20


class MinioPy:
    def __init__(self, endpoint: Mapping[str, str]) -> None:
        scheme, _, host = endpoint["url"].partition("://")
        pool = urllib3.PoolManager(maxsize=PARALLEL, ca_certs=endpoint["ca_file"])
        self._client = Minio(
            endpoint=host,
            access_key=endpoint["access_key"],
            secret_key=endpoint["secret_key"],
            secure=scheme == "https",
            http_client=pool,
        )

    def put(self, bucket: str, key: str, path: str, content_type: str = "", metadata: Any = None) -> None:
        kind = {"content_type": content_type} if content_type else {}
        self._client.fput_object(bucket_name=bucket, object_name=key, file_path=path, **kind, metadata=metadata or None)

    def put_stream(self, bucket: str, key: str, path: str) -> None:
        with open_pipe(path) as pipe:
            self._client.put_object(bucket_name=bucket, object_name=key, data=pipe, length=-1, part_size=PART_BYTES)

    def get(self, bucket: str, key: str, path: str) -> None:
        self._client.fget_object(bucket_name=bucket, object_name=key, file_path=path)

    def get_range(self, bucket: str, key: str, path: str, first: int, last: int) -> None:
        length = last - first + 1
        answer = self._client.get_object(bucket_name=bucket, object_name=key, offset=first, length=length)
        with answer:
            write(path, answer.read())

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        found = self._client.list_objects(bucket_name=bucket, prefix=prefix, recursive=True)
        return [str(item.object_name) for item in found]

    def delete(self, bucket: str, key: str) -> None:
        self._client.remove_object(bucket_name=bucket, object_name=key)

    def describe(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        found = self._client.stat_object(bucket_name=bucket, object_name=key)
        names = {name.lower(): value for name, value in (found.metadata or {}).items()}
        prefix = "x-amz-meta-"
        metadata = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
        return str(found.content_type), metadata

    def copy(self, bucket: str, source: str, target: str) -> None:
        found = CopySource(bucket_name=bucket, object_name=source)
        self._client.copy_object(bucket_name=bucket, object_name=target, source=found)

    def presign_get(self, bucket: str, key: str) -> str:
        return self._client.presigned_get_object(bucket_name=bucket, object_name=key, expires=timedelta(hours=1))

    def presign_put(self, bucket: str, key: str) -> str:
        return self._client.presigned_put_object(bucket_name=bucket, object_name=key, expires=timedelta(hours=1))

    def put_many(self, bucket: str, files: Mapping[str, str]) -> None:
        run_all(lambda key, path: self.put(bucket, key, path), files)

    def get_many(self, bucket: str, files: Mapping[str, str]) -> None:
        run_all(lambda key, path: self.get(bucket, key, path), files)

    def delete_tree(self, bucket: str, prefix: str, keys: list[str]) -> None:
        wanted = [DeleteObject(name=key) for key in keys]
        errors = list(self._client.remove_objects(bucket_name=bucket, delete_object_list=wanted))
        if errors:
            raise RuntimeError(f"not deleted: {errors}")


serve(MinioPy)
