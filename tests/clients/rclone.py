"""rclone, set up by its environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.clients.client import Description
from tests.clients.endpoints import Endpoint
from tests.clients.program import Program


class Rclone(Program):
    def __init__(self, program: Path, endpoint: Endpoint, environment: Mapping[str, str]) -> None:
        remote = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": endpoint.url,
            "ACCESS_KEY_ID": endpoint.access_key,
            "SECRET_ACCESS_KEY": endpoint.secret_key,
            "REGION": endpoint.region,
            "UPLOAD_CUTOFF": "16Mi",
            "CHUNK_SIZE": "8Mi",
        }
        options = ["--config=", "--retries=1", "--no-unicode-normalization", "--transfers=20", "--checkers=20"]
        if endpoint.ca_file:
            options.append(f"--ca-cert={endpoint.ca_file}")
        named = {f"RCLONE_CONFIG_S_{name}": value for name, value in remote.items()}
        super().__init__(str(program), *options, environment={**environment, **named})

    def put(
        self, bucket: str, key: str, path: Path, *, content_type: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        wanted = {**(metadata or {}), **({"content-type": content_type} if content_type else {})}
        options = [f"--metadata-set={name}={value}" for name, value in wanted.items()]
        self.run("copyto", str(path), f"s:{bucket}/{key}", *(["--metadata", *options] if options else []))

    def put_stream(self, bucket: str, key: str, path: Path) -> None:
        self.run("rcat", f"s:{bucket}/{key}", pipe=path)

    def get(self, bucket: str, key: str, path: Path) -> None:
        self.run("copyto", f"s:{bucket}/{key}", str(path))

    def get_range(self, bucket: str, key: str, path: Path, *, first: int, last: int) -> None:
        path.write_bytes(self.run("cat", f"--offset={first}", f"--count={last - first + 1}", f"s:{bucket}/{key}"))

    def list(self, bucket: str, prefix: str) -> list[str]:
        listing = json.loads(self.read("lsjson", "-R", "--files-only", "--no-modtime", f"s:{bucket}/{prefix}"))
        return [prefix + item["Path"] for item in listing]

    def delete(self, bucket: str, key: str) -> None:
        self.run("deletefile", f"s:{bucket}/{key}")

    def describe(self, bucket: str, key: str) -> Description:
        metadata = json.loads(self.read("lsjson", "--stat", "--metadata", f"s:{bucket}/{key}"))["Metadata"]
        return Description(content_type=metadata.pop("content-type"), metadata=metadata)

    def copy(self, bucket: str, source: str, target: str) -> None:
        self.run("copyto", f"s:{bucket}/{source}", f"s:{bucket}/{target}")

    def presign_get(self, bucket: str, key: str) -> str:
        return self.read("link", "--expire=1h", f"s:{bucket}/{key}").strip()

    def put_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        self.run("copy", str(folder), f"s:{bucket}/{prefix}")

    def get_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        self.run("copy", f"s:{bucket}/{prefix}", str(folder))

    def delete_tree(self, bucket: str, prefix: str) -> None:
        self.run("delete", f"s:{bucket}/{prefix}")
