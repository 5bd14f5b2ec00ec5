"""Where a client is pointed at, and the surroundings that it runs in.

A client sees nothing of the machine's own settings: no profile, no proxy, no certificates but those it is given.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An S3 endpoint with a key that may do everything. `ca_file`: PEM of the CA that its certificate is from."""

    url: str
    access_key: str
    secret_key: str
    ca_file: str | None = None
    region: str = REGION

    @property
    def host(self) -> str:
        return self.url.partition("://")[2].rstrip("/")

    @property
    def is_tls(self) -> bool:
        return self.url.startswith("https://")

    def as_message(self) -> dict[str, str | None]:
        return asdict(self)


def surroundings(home: Path, endpoint: Endpoint) -> dict[str, str]:
    """Environment of a client's process: an empty home, the endpoint's credentials and CA, and nothing else."""
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": os.defpath,
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "NO_PROXY": "*",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": endpoint.access_key,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        "AWS_DEFAULT_REGION": endpoint.region,
        "AWS_REGION": endpoint.region,
    }
    if endpoint.ca_file is not None:
        environment["AWS_CA_BUNDLE"] = endpoint.ca_file  # boto3's, aws-cli's and s5cmd's
        environment["NODE_EXTRA_CA_CERTS"] = endpoint.ca_file
    return environment
