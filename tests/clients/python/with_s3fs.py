"""s3fs, the file system of fsspec that pandas and dask use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import s3fs
from serving import PARALLEL, read_pieces, serve, write

PART_BYTES = 5 << 20


class S3fs:
    def __init__(self, endpoint: Mapping[str, str]) -> None:
        self._files = s3fs.S3FileSystem(
            key=endpoint["access_key"],
            secret=endpoint["secret_key"],
            endpoint_url=endpoint["url"],
            client_kwargs={"region_name": endpoint["region"], "verify": endpoint["ca_file"]},
            config_kwargs={"s3": {"addressing_style": "path"}, "max_pool_connections": PARALLEL},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def put(self, bucket: str, key: str, path: str, content_type: str = "", metadata: Any = None) -> None:
        extra: dict[str, Any] = {"Metadata": metadata} if metadata else {}
        if content_type:
            extra["ContentType"] = content_type
        self._files.put_file(path, f"{bucket}/{key}", **extra)

    def put_stream(self, bucket: str, key: str, path: str) -> None:
        with self._files.open(f"{bucket}/{key}", "wb", block_size=PART_BYTES) as sink:
            for piece in read_pieces(path):
                sink.write(piece)

    def get(self, bucket: str, key: str, path: str) -> None:
        self._files.get_file(f"{bucket}/{key}", path)

    def get_range(self, bucket: str, key: str, path: str, first: int, last: int) -> None:
        write(path, self._files.cat_file(f"{bucket}/{key}", start=first, end=last + 1))

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        return [name.removeprefix(f"{bucket}/") for name in self._files.find(f"{bucket}/{prefix}")]

    def delete(self, bucket: str, key: str) -> None:
        self._files.rm_file(f"{bucket}/{key}")

    def describe(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        name = f"{bucket}/{key}"
        return self._files.info(name)["ContentType"], self._files.metadata(name)

    def copy(self, bucket: str, source: str, target: str) -> None:
        self._files.cp_file(f"{bucket}/{source}", f"{bucket}/{target}")

    def presign_get(self, bucket: str, key: str) -> str:
        return self._files.url(f"{bucket}/{key}")

    def presign_put(self, bucket: str, key: str) -> str:
        return self._files.url(f"{bucket}/{key}", client_method="put_object")

    def put_many(self, bucket: str, files: Mapping[str, str]) -> None:
        self._files.put(list(files.values()), [f"{bucket}/{key}" for key in files], batch_size=PARALLEL)

    def get_many(self, bucket: str, files: Mapping[str, str]) -> None:
        self._files.get([f"{bucket}/{key}" for key in files], list(files.values()), batch_size=PARALLEL)

    def delete_tree(self, bucket: str, prefix: str, keys: list[str]) -> None:
        self._files.rm(f"{bucket}/{prefix}", recursive=True)


serve(S3fs)
