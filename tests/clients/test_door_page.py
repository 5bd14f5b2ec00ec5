"""The examples of docs/s3-door.md, run as they stand there: two command lines, Python and JavaScript."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.clients.door import Door
from tests.clients.endpoints import surroundings
from tests.conftest import find_tool
from tests.photos import make_jpeg

PAGE = Path(__file__).parents[2] / "docs" / "s3-door.md"
EXAMPLE = re.compile(r"^```\w+\n(?:# |// )([\w.]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PHOTO = make_jpeg(64, 48)
CLIENTS = Path(sys.prefix, "clients", "bin")


class Example:
    """The page's examples in a folder with a photo, and what they need."""

    def __init__(self, folder: Path, door: Door) -> None:
        self.folder = folder
        (folder / "holiday").mkdir()
        (folder / "holiday" / "beach.jpg").write_bytes(PHOTO)
        texts = dict(EXAMPLE.findall(PAGE.read_text("utf-8")))
        assert set(texts) == {"copy.sh", "share.py", "upload.cjs"}
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
        around = surroundings(folder / "home", door.endpoint)
        self._environment = {**around, "S3_URL": door.endpoint.url, "PATH": f"{CLIENTS}:{around['PATH']}"}

    def run(self, *command: str, **more: str) -> str:
        """What it prints."""
        environment: Mapping[str, str] = {**self._environment, **more}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture
def example(tmp_path: Path, door_by_http: Door, storage: Any) -> Example:
    with suppress(storage.exceptions.BucketAlreadyOwnedByYou):
        storage.create_bucket(Bucket="photos")
    return Example(tmp_path, door_by_http)


def ask(method: str, url: str, data: bytes | None = None) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, data=data, timeout=30)


def test_the_command_lines(example: Example, door_by_http: Door) -> None:
    """aws-cli and rclone copy the folder, and each copy is recorded."""
    assert "beach.jpg" in example.run("sh", "-e", "copy.sh")
    assert door_by_http.recorded("photos", "holiday/beach.jpg")
    assert door_by_http.recorded("photos", "again/beach.jpg")


def test_the_address_for_reading(example: Example) -> None:
    """boto3's presigned address reads the photo that it put."""
    url = example.run(str(CLIENTS / "python"), "share.py")
    assert ask("GET", url).content == PHOTO


@pytest.mark.needs_node
def test_the_address_for_writing(example: Example, door_by_http: Door) -> None:
    """The address that the JavaScript SDK presigns takes a photo by plain HTTP."""
    modules = str(Path(sys.prefix, "node", "node_modules"))
    url = example.run(find_tool("needs_node") or "node", "upload.cjs", NODE_PATH=modules)
    answer = ask("PUT", url, PHOTO)
    assert answer.status_code == 200, answer.text
    assert door_by_http.recorded("photos", "js/beach.jpg")
