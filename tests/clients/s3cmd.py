"""s3cmd, with a configuration file in its home."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.clients.client import Description
from tests.clients.endpoints import Endpoint
from tests.clients.program import Program


class S3cmd(Program):
    def __init__(self, program: Path, endpoint: Endpoint, environment: Mapping[str, str]) -> None:
        settings = {
            "access_key": endpoint.access_key,
            "secret_key": endpoint.secret_key,
            "bucket_location": endpoint.region,
            "host_base": endpoint.host,
            "host_bucket": endpoint.host,
            "use_https": str(endpoint.is_tls),
            "signurl_use_https": str(endpoint.is_tls),
            "ca_certs_file": endpoint.ca_file or "",
        }
        config = Path(environment["HOME"]) / ".s3cfg"
        lines = [f"{name} = {value}" for name, value in settings.items() if value]
        config.write_text("\n".join(["[default]", *lines, ""]), "utf-8")
        super().__init__(str(program), "--no-progress", environment=environment)

    def put(
        self, bucket: str, key: str, path: Path, *, content_type: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        options = [f"--mime-type={content_type}"] if content_type else []
        options += [f"--add-header=x-amz-meta-{name}:{value}" for name, value in (metadata or {}).items()]
        self.run("put", *options, str(path), f"s3://{bucket}/{key}")

    def put_stream(self, bucket: str, key: str, path: Path) -> None:
        self.run("put", "--multipart-chunk-size-mb=5", "-", f"s3://{bucket}/{key}", pipe=path)

    def get(self, bucket: str, key: str, path: Path) -> None:
        self.run("get", "--force", f"s3://{bucket}/{key}", str(path))

    def list(self, bucket: str, prefix: str) -> list[str]:
        listing = self.read("ls", "--recursive", f"s3://{bucket}/{prefix}")
        return [line.split(f"s3://{bucket}/", 1)[1] for line in listing.split("\n") if line]

    def delete(self, bucket: str, key: str) -> None:
        self.run("del", f"s3://{bucket}/{key}")

    def describe(self, bucket: str, key: str) -> Description:
        info = self.read("info", f"s3://{bucket}/{key}")
        kind = re.search(r"^ *MIME type: *(.*)$", info, re.MULTILINE)
        metadata = dict(re.findall(r"^ *x-amz-meta-([^:]+): *(.*)$", info, re.MULTILINE))
        return Description(content_type=kind[1] if kind else "", metadata=metadata)

    def copy(self, bucket: str, source: str, target: str) -> None:
        self.run("cp", f"s3://{bucket}/{source}", f"s3://{bucket}/{target}")

    def presign_get(self, bucket: str, key: str) -> str:
        return self.read("signurl", f"s3://{bucket}/{key}", "+3600").strip()

    def put_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        self.run("put", "--recursive", f"{folder}/", f"s3://{bucket}/{prefix}")

    def get_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        self.run("get", "--recursive", f"s3://{bucket}/{prefix}", f"{folder}/")

    def delete_tree(self, bucket: str, prefix: str) -> None:
        self.run("del", "--recursive", f"s3://{bucket}/{prefix}")
