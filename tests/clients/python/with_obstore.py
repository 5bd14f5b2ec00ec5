"""obstore, Python's door to Rust's object_store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store
from serving import read_pieces, run_all, serve, write


class Obstore:
    """It knows a store by its bucket."""

    def __init__(self, endpoint: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._stores: dict[str, S3Store] = {}

    def put(self, bucket: str, key: str, path: str, content_type: str = "", metadata: Any = None) -> None:
        attributes = {**(metadata or {}), **({"Content-Type": content_type} if content_type else {})}
        obstore.put(self._store(bucket), key, Path(path), attributes=attributes or None)

    def put_stream(self, bucket: str, key: str, path: str) -> None:
        obstore.put(self._store(bucket), key, read_pieces(path))

    def get(self, bucket: str, key: str, path: str) -> None:
        with open(path, "wb") as file:
            file.writelines(obstore.get(self._store(bucket), key))

    def get_range(self, bucket: str, key: str, path: str, first: int, last: int) -> None:
        write(path, bytes(obstore.get_range(self._store(bucket), key, start=first, end=last + 1)))

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        return [item["path"] for page in obstore.list(self._store(bucket), prefix) for item in page]

    def delete(self, bucket: str, key: str) -> None:
        obstore.delete(self._store(bucket), key)

    def describe(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        attributes = {str(name): str(value) for name, value in obstore.get(self._store(bucket), key).attributes.items()}
        return attributes.pop("Content-Type", ""), attributes

    def copy(self, bucket: str, source: str, target: str) -> None:
        obstore.copy(self._store(bucket), source, target)

    def presign_get(self, bucket: str, key: str) -> str:
        return obstore.sign(self._store(bucket), "GET", key, timedelta(hours=1))

    def presign_put(self, bucket: str, key: str) -> str:
        return obstore.sign(self._store(bucket), "PUT", key, timedelta(hours=1))

    def put_many(self, bucket: str, files: Mapping[str, str]) -> None:
        run_all(lambda key, path: self.put(bucket, key, path), files)

    def get_many(self, bucket: str, files: Mapping[str, str]) -> None:
        run_all(lambda key, path: self.get(bucket, key, path), files)

    def delete_tree(self, bucket: str, prefix: str, keys: list[str]) -> None:
        obstore.delete(self._store(bucket), keys)

    def _store(self, bucket: str) -> S3Store:
        if bucket not in self._stores:
            end = self._endpoint
            options: dict[str, Any] = {"allow_http": True}
            if end["ca_file"]:
                options["root_certificate"] = Path(end["ca_file"]).read_text("utf-8")
            self._stores[bucket] = S3Store(
                bucket,
                endpoint=end["url"],
                access_key_id=end["access_key"],
                secret_access_key=end["secret_key"],
                region=end["region"],
                virtual_hosted_style_request=False,
                client_options=options,
            )
        return self._stores[bucket]


serve(Obstore)
