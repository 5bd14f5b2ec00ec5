"""The clients as `make test` installs them: beside the environment that runs the tests, each opened by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clients.aws_cli import AwsCli
from tests.clients.client import Client
from tests.clients.driver import Driver
from tests.clients.endpoints import Endpoint, surroundings
from tests.clients.rclone import Rclone
from tests.clients.s3cmd import S3cmd
from tests.clients.s5cmd import S5cmd
from tests.conftest import find_tool

HERE = Path(__file__).parent
# Each lacks the methods of the claims that it cannot fulfil: see CANNOT.
PROGRAMS: dict[str, tuple[Callable[..., Any], str]] = {
    "aws-cli": (AwsCli, "aws"),
    "rclone": (Rclone, "rclone"),
    "s3cmd": (S3cmd, "s3cmd"),
    "s5cmd": (S5cmd, "s5cmd"),
}
LIBRARIES = {
    "boto3": "python/with_boto3.py",
    "aioboto3": "python/with_aioboto3.py",
    "minio-py": "python/with_minio.py",
    "s3fs": "python/with_s3fs.py",
    "obstore": "python/with_obstore.py",
    "aws-sdk-js": "js/with_aws_sdk.cjs",
    "minio-js": "js/with_minio.cjs",
}
NAMES = (*LIBRARIES, *PROGRAMS)
IN_JAVASCRIPT = frozenset(name for name, script in LIBRARIES.items() if script.startswith("js/"))

_PYTHON = Path(sys.prefix, "clients", "bin")
_NODE_MODULES = Path(sys.prefix, "node", "node_modules")


def missing(name: str) -> str | None:
    """That a client is not installed, as a sentence that says what to do; None where it is."""
    marker = Path(sys.prefix, ".node" if name in IN_JAVASCRIPT else ".clients")
    return None if marker.exists() else f"{marker} is absent: {name} is not installed. Run `make test`, which does it."


def open_client(name: str, endpoint: Endpoint, folder: Path) -> Client:
    """A client by its name, with an empty home in `folder`."""
    environment = surroundings(folder / "home", endpoint)
    if name in PROGRAMS:
        kind, program = PROGRAMS[name]
        opened: Client = kind(_PYTHON / program, endpoint, environment)
        return opened
    more = {"NODE_PATH": str(_NODE_MODULES)} if name in IN_JAVASCRIPT else {}
    command = (_interpreter(name), str(HERE / LIBRARIES[name]))
    return Driver(command, {**environment, **more}, folder / "driver.log", endpoint)


def _interpreter(name: str) -> str:
    if name in IN_JAVASCRIPT:
        return find_tool("needs_node") or "node"
    return sys.executable if name == "aioboto3" else str(_PYTHON / "python")
