"""One running Safelight, as a user has it: `safelight up` in a process of its own, reached over HTTP and S3 only.

Knows nothing of the code's insides but its command line; processes are told apart by their command lines.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3
import requests
from botocore.config import Config
from typer.testing import CliRunner

from safelight.cli import app

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, *, seconds: float = 20) -> T:
    """The first truthy value of `condition`. Fails the test after that many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return value


class Api:
    """An HTTP client with a token (None: without). Paths are relative to the gateway; proxies are never used."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.token = token
        self._session = requests.Session()
        self._session.trust_env = False
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        return self._session.request(method, self.url + path, timeout=30, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.request("POST", path, **options)

    def read(self, path: str, **parameters: Any) -> Any:
        """The JSON of a GET that must succeed."""
        answer = self.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put(self, bucket: str, key: str, data: bytes, *, wait: float = 20, **headers: str) -> dict[str, Any]:
        """The photo that a PUT under `key` (already quoted for a URL) stored."""
        answer = self.request("PUT", f"/v1/photos/{bucket}/{key}?wait={wait:g}", data=data, headers=headers)
        assert answer.status_code == 201, answer.text
        photo: dict[str, Any] = answer.json()
        return photo

    def settle(self, photo_id: str, *, seconds: float = 20) -> dict[str, Any]:
        """The photo once nothing of it is under way any more."""
        path = f"/v1/photos/{photo_id}"
        wait_for(lambda: self.read(path)["settled_at"], f"photo {photo_id} settles", seconds=seconds)
        photo: dict[str, Any] = self.read(path)
        return photo


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a command answered."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Stack:
    """`safelight up` on a data folder. Can be stopped, killed and started again on the same data."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.data_dir = folder / "data"
        self._output = folder / "output"
        self._settings = {
            "SAFELIGHT_DATA_DIR": str(self.data_dir),
            "SAFELIGHT_HTTP_PORT": "0",
            "SAFELIGHT_S3_PORT": "0",
            **settings,
        }

    def start(self) -> None:
        (self.data_dir / "connection.json").unlink(missing_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAFELIGHT_")}
        with self._output.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "safelight", "up"],
                cwd=ROOT,
                env={**inherited, **self._settings},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_for(self._is_up, "safelight up", seconds=90)
        self.connection: dict[str, Any] = json.loads((self.data_dir / "connection.json").read_text())

    def stop(self) -> None:
        """As Ctrl-C does. Checks that it ends well and leaves nothing behind."""
        pids = self.pids()
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(60) == 0, self.output
        assert not [pid for pid in pids if _command(pid)], self.output

    def kill(self) -> None:
        """SIGKILL to every process at once, as a power cut would."""
        pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        wait_for(lambda: not [pid for pid in pids if _command(pid)], "every process is gone")

    def end(self) -> None:
        """For the end of a test that may have failed anywhere."""
        if self._process.poll() is None:
            self.kill()

    def pids(self) -> list[int]:
        """Everything that runs: `safelight up` and all that it started."""
        children, found = _children(), [self._process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def worker(self) -> int:
        """Pid of the worker; waits until there is one."""
        return wait_for(lambda: self._find("worker") or 0, "a worker runs")

    @contextmanager
    def worker_suspended(self) -> Iterator[None]:
        """Meanwhile jobs are made but none is claimed. The worker must be idle."""
        with _suspended([self.worker()]):
            yield

    @contextmanager
    def decoders_suspended(self) -> Iterator[None]:
        """Meanwhile jobs are claimed but none ends; the worker itself lives."""
        pids = wait_for(lambda: _children().get(self.worker(), []), "the worker has children")
        with _suspended(pids):
            yield

    def command(self, *arguments: str, token: str | None = None, **settings: str) -> Finished:
        """A command of the command line, told where the gateway is and nothing else. Runs in this process, because
        starting one takes longer than most commands do."""
        environment = {name: None for name in os.environ if name.startswith("SAFELIGHT_")} | {
            "SAFELIGHT_URL": self.connection["http_url"],
            "SAFELIGHT_KEY": token or self.connection["token"],
            **settings,
        }
        done = CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False)
        return Finished(returncode=done.exit_code, stdout=done.stdout_bytes, stderr=done.stderr_bytes or b"")

    def gateway(self) -> int:
        """Pid of the gateway; waits until there is one."""
        return wait_for(lambda: self._find("gateway") or 0, "a gateway runs")

    def run(self, *arguments: str) -> str:
        """What a command of the command line prints, run against this stack's database."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAFELIGHT_")}
        done = subprocess.run(
            [sys.executable, "-m", "safelight", *arguments],
            cwd=ROOT,
            env={**inherited, "SAFELIGHT_POSTGRES_DSN": self.connection["postgres_dsn"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make_key(self, scopes: str) -> dict[str, Any]:
        key: dict[str, Any] = json.loads(self.run("keys", "create", "--name", "guest", "--scopes", scopes, "--json"))
        return key

    def client(self, token: str | None) -> Api:
        return Api(self.connection["http_url"], token)

    @property
    def api(self) -> Api:
        return self.client(self.connection["token"])

    @cached_property
    def s3(self) -> Any:
        """boto3 on the storage behind the gateway."""
        backend = self.connection["backend"]
        return boto3.client(
            "s3",
            endpoint_url=backend["endpoint"],
            aws_access_key_id=backend["access_key"],
            aws_secret_access_key=backend["secret_key"],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    def list_keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def wait_idle(self) -> None:
        """Until no job is due or running."""

        def idle() -> bool:
            counts = self.api.read("/v1/stats")["processors"].values()
            return not any(count["ready"] or count["running"] for count in counts)

        wait_for(idle, "all jobs end", seconds=60)

    @property
    def output(self) -> str:
        return self._output.read_text()[-8000:]

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self.output
        return (self.data_dir / "connection.json").exists()

    def _find(self, program: str) -> int | None:
        children = _children().get(self._process.pid, [])
        return next((pid for pid in children if _command(pid)[-2:] == ["safelight", program]), None)


@contextmanager
def _suspended(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _children() -> dict[int, list[int]]:
    """Pids by the pid of their parent."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found.setdefault(int(fields[1]), []).append(int(path.parent.name))
    return found


def _command(pid: int) -> list[str]:
    """The command line of a living process; [] for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []
