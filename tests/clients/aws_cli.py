"""aws-cli, called as one types it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.clients.client import Description
from tests.clients.endpoints import Endpoint
from tests.clients.program import Program


class AwsCli(Program):
    def __init__(self, program: Path, endpoint: Endpoint, environment: Mapping[str, str]) -> None:
        folder = Path(environment["HOME"]) / ".aws"
        folder.mkdir(exist_ok=True)
        folder.joinpath("config").write_text("[default]\ns3 =\n  max_concurrent_requests = 20\n", "utf-8")
        super().__init__(str(program), "--endpoint-url", endpoint.url, "--output", "json", environment=environment)

    def put(
        self, bucket: str, key: str, path: Path, *, content_type: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        options = ["--content-type", content_type] if content_type else []
        if metadata:
            options += ["--metadata", ",".join(f"{name}={value}" for name, value in metadata.items())]
        self.run("s3", "cp", str(path), f"s3://{bucket}/{key}", *options)

    def put_stream(self, bucket: str, key: str, path: Path) -> None:
        self.run("s3", "cp", "-", f"s3://{bucket}/{key}", pipe=path)

    def get(self, bucket: str, key: str, path: Path) -> None:
        self.run("s3", "cp", f"s3://{bucket}/{key}", str(path))

    def get_range(self, bucket: str, key: str, path: Path, *, first: int, last: int) -> None:
        wanted = ("--bucket", bucket, "--key", key, "--range", f"bytes={first}-{last}")
        self.run("s3api", "get-object", *wanted, str(path))

    def list(self, bucket: str, prefix: str) -> list[str]:
        listing = self.read("s3api", "list-objects-v2", "--bucket", bucket, "--prefix", prefix, "--page-size", "7")
        return [item["Key"] for item in json.loads(listing or "{}").get("Contents", [])]

    def delete(self, bucket: str, key: str) -> None:
        self.run("s3", "rm", f"s3://{bucket}/{key}")

    def describe(self, bucket: str, key: str) -> Description:
        answer = json.loads(self.read("s3api", "head-object", "--bucket", bucket, "--key", key))
        return Description(content_type=answer["ContentType"], metadata=answer["Metadata"])

    def copy(self, bucket: str, source: str, target: str) -> None:
        self.run("s3", "cp", f"s3://{bucket}/{source}", f"s3://{bucket}/{target}")

    def presign_get(self, bucket: str, key: str) -> str:
        return self.read("s3", "presign", f"s3://{bucket}/{key}").strip()

    def put_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        self.run("s3", "cp", "--recursive", str(folder), f"s3://{bucket}/{prefix}")

    def get_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        self.run("s3", "cp", "--recursive", f"s3://{bucket}/{prefix}", str(folder))

    def delete_tree(self, bucket: str, prefix: str) -> None:
        self.run("s3", "rm", "--recursive", f"s3://{bucket}/{prefix}")
