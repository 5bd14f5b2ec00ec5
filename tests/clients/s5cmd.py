"""s5cmd. Keys with stars or question marks would be patterns to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.clients.client import Description
from tests.clients.endpoints import Endpoint
from tests.clients.program import Program


class S5cmd(Program):
    def __init__(self, program: Path, endpoint: Endpoint, environment: Mapping[str, str]) -> None:
        options = ("--endpoint-url", endpoint.url, "--numworkers=20", "--retry-count=2", "--json")
        super().__init__(str(program), *options, environment=environment)

    def put(
        self, bucket: str, key: str, path: Path, *, content_type: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        options = [f"--content-type={content_type}"] if content_type else []
        options += [f"--metadata={name}={value}" for name, value in (metadata or {}).items()]
        self.run("cp", "--part-size=8", *options, str(path), f"s3://{bucket}/{key}")

    def put_stream(self, bucket: str, key: str, path: Path) -> None:
        self.run("pipe", "--part-size=5", f"s3://{bucket}/{key}", pipe=path)

    def get(self, bucket: str, key: str, path: Path) -> None:
        self.run("cp", "--part-size=8", f"s3://{bucket}/{key}", str(path))

    def list(self, bucket: str, prefix: str) -> list[str]:
        lines = self.read("ls", f"s3://{bucket}/{prefix}*").splitlines()
        return [json.loads(line)["key"].removeprefix(f"s3://{bucket}/") for line in lines]

    def delete(self, bucket: str, key: str) -> None:
        self.run("rm", "--raw", f"s3://{bucket}/{key}")

    def describe(self, bucket: str, key: str) -> Description:
        answer = json.loads(self.read("head", f"s3://{bucket}/{key}"))
        metadata = {name.lower(): value for name, value in answer["metadata"].items()}
        return Description(content_type=answer["content_type"], metadata=metadata)

    def copy(self, bucket: str, source: str, target: str) -> None:
        self.run("cp", f"s3://{bucket}/{source}", f"s3://{bucket}/{target}")

    def presign_get(self, bucket: str, key: str) -> str:
        return self.read("presign", "--expire=1h", f"s3://{bucket}/{key}").strip()

    def put_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        self.run("cp", f"{folder}/", f"s3://{bucket}/{prefix}")

    def get_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        self.run("cp", f"s3://{bucket}/{prefix}*", f"{folder}/")

    def delete_tree(self, bucket: str, prefix: str) -> None:
        self.run("rm", f"s3://{bucket}/{prefix}*")
