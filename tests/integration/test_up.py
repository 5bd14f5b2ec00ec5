"""`safelight up` with its real servers and small stand-ins for gateway, worker and one-time commands."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from safelight.embedded.server import descendants
from storage.sealing import MasterKeys
from tests.servers import execute, fetch_value, run_apart

ROOT = Path(__file__).parents[2]
UP = "import json, os, sys; from safelight.up import up; sys.exit(up(os.environ, json.loads(sys.argv[1])))"
STAND_IN = r"""
import http.server, json, os, signal, sys, threading
role = sys.argv[1]

def note(what):
    with open(os.environ["STAND_IN_LOG"], "a") as log:
        log.write(f"{role} {what}\n")

def end(number, frame):
    note("ended")
    os._exit(0)

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass

signal.signal(signal.SIGTERM, end)
note(f"started {os.getpid()}")
print(f"{role} speaks", flush=True)
if role == "fail":
    raise SystemExit("the reason")
if role == "keys":
    note(os.environ["SAFELIGHT_KEY"])
if role == "gateway":
    port = int(os.environ["SAFELIGHT_HTTP_PORT"])
    server = http.server.HTTPServer(("127.0.0.1", port), Ready)
    path = os.environ["SAFELIGHT_PORTS_FILE"]
    with open(path + ".new", "w") as file:
        json.dump({"http_url": f"http://127.0.0.1:{port}"}, file)
    os.replace(path + ".new", path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
if role == "door":
    path = os.environ["SAFELIGHT_PORTS_FILE"]
    with open(path + ".new", "w") as file:
        json.dump({"s3_url": "http://127.0.0.1:" + os.environ["SAFELIGHT_S3_PORT"]}, file)
    os.replace(path + ".new", path)
if role in ("gateway", "door", "worker", "stubborn"):
    if role == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
"""
EXTERNAL = {
    "SAFELIGHT_POSTGRES_DSN": "postgresql://a:b@127.0.0.1:1/x",
    "SAFELIGHT_REDIS_URL": "redis://127.0.0.1:1/0",
    "SAFELIGHT_S3_ENDPOINT": "http://127.0.0.1:1",
    "SAFELIGHT_S3_ACCESS_KEY": "external-key",
    "SAFELIGHT_S3_SECRET_KEY": "external-secret",
}


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Up:
    """One `safelight up` in a process of its own, its output in a file."""

    def __init__(self, folder: Path, settings: dict[str, str], **roles: str) -> None:
        folder.mkdir(exist_ok=True)
        self.data_dir, self.output, self.log = folder / "data", folder / "output", folder / "log"
        script = folder / "stand_in.py"
        script.write_text(STAND_IN)
        commands = {
            name: [sys.executable, str(script), roles.get(name, name)]
            for name in ("migrate", "keys", "gateway", "door", "worker")
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAFELIGHT_")}
        ports = {"SAFELIGHT_HTTP_PORT": "0", "SAFELIGHT_S3_PORT": "0", "SAFELIGHT_GRACE_SECONDS": "1"}
        environment = {
            **inherited,
            **ports,
            "SAFELIGHT_DATA_DIR": str(self.data_dir),
            "STAND_IN_LOG": str(self.log),
            "PYTHONPATH": str(ROOT),
            **settings,
        }
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", UP, json.dumps(commands)],
                env=environment,
                stdout=output,
                stderr=output,
            )

    def wait_ready(self) -> dict[str, Any]:
        wait_until(lambda: "Safelight is up" in self.text or self.process.poll() is not None)
        assert self.process.poll() is None, self.text
        connection: dict[str, Any] = json.loads((self.data_dir / "connection.json").read_text())
        return connection

    def end(self) -> int:
        """The exit code of a run that ends by itself."""
        return self.process.wait(60)

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def notes(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def pids(self, role: str) -> list[int]:
        return [int(line.split()[2]) for line in self.notes if line.startswith(f"{role} started")]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts `safelight up` in tmp_path or a folder below it; what still runs is killed after the test."""
    runs: list[Up] = []

    def start(settings: dict[str, str] | None = None, folder: str = ".", **roles: str) -> Up:
        runs.append(Up(tmp_path / folder, EXTERNAL if settings is None else settings, **roles))
        return runs[-1]

    yield start
    for up in runs:
        up.process.kill()
        up.process.wait()


def test_up_starts_real_servers_and_says_how_to_reach_them(run: Callable[..., Up]) -> None:
    """connection.json leads to working servers, the curl line holds the token, SIGTERM ends with code 0."""
    up = run({})
    connection = up.wait_ready()
    path = up.data_dir / "connection.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(connection) == {
        *("http_url", "s3_url", "access_key", "secret_key", "token"),
        *("postgres_dsn", "redis_url", "backend", "derived_bucket", "master_key"),
    }
    assert MasterKeys.parse(connection["master_key"])
    assert connection["token"] == f"{connection['access_key']}.{connection['secret_key']}"
    assert f"keys {connection['token']}" in up.notes
    assert run_apart(fetch_value(connection["postgres_dsn"], "select 1")) == 1
    assert f'Authorization: Bearer {connection["token"]}" -F file=@photo.jpg "{connection["http_url"]}/v1' in up.text
    assert "gateway speaks" in up.text
    pids = descendants(up.process.pid)
    assert len(pids) >= 5
    up.process.terminate()
    assert up.end() == 0, up.text
    assert not [pid for pid in pids if alive(pid)]


def test_a_second_start_has_the_same_token_addresses_and_rows(run: Callable[..., Up]) -> None:
    """Even after SIGKILL nothing is left running, and the next start goes on with the same data."""
    up = run({})
    first = up.wait_ready()
    run_apart(execute(first["postgres_dsn"], "create table kept (n int); insert into kept values (42)"))
    pids = descendants(up.process.pid)
    up.process.kill()
    up.process.wait()
    wait_until(lambda: not [pid for pid in pids if alive(pid)], seconds=10)
    again = run({})
    second = again.wait_ready()
    assert second | {"http_url": "", "s3_url": ""} == first | {"http_url": "", "s3_url": ""}
    assert run_apart(fetch_value(second["postgres_dsn"], "select n from kept")) == 42
    again.process.send_signal(signal.SIGINT)
    assert again.end() == 0, again.text


def test_servers_of_the_environment_are_used_and_none_embedded(run: Callable[..., Up]) -> None:
    """Who names all three servers gets no embedded one, and all his values reach connection.json."""
    up = run({**EXTERNAL, "SAFELIGHT_MASTER_KEY": "ab" * 32})
    connection = up.wait_ready()
    assert connection["postgres_dsn"] == EXTERNAL["SAFELIGHT_POSTGRES_DSN"]
    assert connection["redis_url"] == EXTERNAL["SAFELIGHT_REDIS_URL"]
    assert connection["backend"] == {
        "endpoint": EXTERNAL["SAFELIGHT_S3_ENDPOINT"],
        "access_key": "external-key",
        "secret_key": "external-secret",
    }
    assert connection["master_key"] == ""  # a master key that the operator keeps elsewhere is not written down
    assert len(descendants(up.process.pid)) == 3


def test_only_what_the_environment_lacks_is_embedded(run: Callable[..., Up]) -> None:
    """One server of one's own can be mixed with embedded ones."""
    up = run({name: value for name, value in EXTERNAL.items() if "REDIS" not in name})
    assert re.fullmatch(r"redis://:\w+@127\.0\.0\.1:\d+/0", up.wait_ready()["redis_url"])
    assert {path.name for path in up.data_dir.iterdir() if path.is_dir()} == {"valkey"}


def test_children_end_before_the_rest_and_a_stubborn_one_is_killed(run: Callable[..., Up]) -> None:
    """All get SIGTERM; a worker that ignores it costs the grace and five seconds, not more."""
    up = run(EXTERNAL | {"SAFELIGHT_GRACE_SECONDS": "0"}, worker="stubborn")
    up.wait_ready()
    wait_until(lambda: up.pids("stubborn"))
    started = time.monotonic()
    up.process.terminate()
    assert up.end() == 0
    assert 4 < time.monotonic() - started < 15
    assert set(up.notes[-2:]) == {"gateway ended", "door ended"}
    assert not alive(up.pids("stubborn")[0])


def test_a_second_signal_kills_at_once(run: Callable[..., Up]) -> None:
    """Nobody has to wait for the grace."""
    up = run(EXTERNAL | {"SAFELIGHT_GRACE_SECONDS": "60"}, worker="stubborn")
    up.wait_ready()
    wait_until(lambda: up.pids("stubborn"))
    up.process.send_signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in up.text)

    def killed() -> bool:
        up.process.send_signal(signal.SIGINT)  # within half a second it counts as the same wish
        return up.process.poll() is not None

    wait_until(killed)
    assert up.process.returncode == 130
    wait_until(lambda: not alive(up.pids("stubborn")[0]))  # killed, which takes the kernel its time


def test_what_dies_is_started_again(run: Callable[..., Up]) -> None:
    """A killed worker, S3 door or gateway comes back, the gateway at its old address."""
    up = run()
    url = up.wait_ready()["http_url"]
    for role in ("worker", "door", "gateway"):
        wait_until(lambda role=role: up.pids(role))
        os.kill(up.pids(role)[0], signal.SIGKILL)
        wait_until(lambda role=role: len(up.pids(role)) == 2)
    with socket.socket() as client:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        wait_until(lambda: client.connect_ex(address) == 0)
    assert "worker has ended unexpectedly; it is started again in 0.1 s" in up.text


def test_a_folder_in_use_and_two_stacks_side_by_side(run: Callable[..., Up]) -> None:
    """A second start on the same data is refused by name of the first; other data are no problem."""
    first = run()
    first.wait_ready()
    second = run()
    assert second.end() == 1
    assert re.search(rf"in use by a running process \(pid {first.process.pid}\)", second.text)
    other = run(folder="other")
    assert other.wait_ready()["token"] != json.loads((first.data_dir / "connection.json").read_text())["token"]


def test_wrong_settings_are_all_told_before_anything_starts(run: Callable[..., Up]) -> None:
    """Every problem is named, exit code 2, and no server was started for it."""
    up = run(
        {
            "SAFELIGHT_LEASE_SECONDS": "soon",
            "SAFELIGHT_TYPO": "1",
            "SAFELIGHT_S3_ENDPOINT": "http://127.0.0.1:1",
        }
    )
    assert up.end() == 2
    for problem in (
        "SAFELIGHT_LEASE_SECONDS is 'soon'",
        "SAFELIGHT_TYPO",
        "SAFELIGHT_S3_SECRET_KEY is not set",
    ):
        assert problem in up.text
    assert not (up.data_dir / "postgres").exists()
    assert not up.notes


def test_a_taken_port_that_was_asked_for_is_an_error(run: Callable[..., Up]) -> None:
    """An explicit port is never silently changed."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        up = run(EXTERNAL | {"SAFELIGHT_HTTP_PORT": str(port)})
        assert up.end() == 2
    assert f"something listens on 127.0.0.1:{port} already" in up.text


def test_the_usual_ports_give_way_when_taken(run: Callable[..., Up]) -> None:
    """Two stacks of defaults run side by side, and the second says where it is."""
    blocked = []
    for port in (8080, 8081):
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", port))
            other.listen()
        except OSError:
            pass  # taken by someone else already, which serves as well
        blocked.append(other)
    up = run(EXTERNAL | {"SAFELIGHT_HTTP_PORT": "", "SAFELIGHT_S3_PORT": ""})
    url = up.wait_ready()["http_url"]
    for other in blocked:
        other.close()
    assert url not in ("http://127.0.0.1:8080", "http://127.0.0.1:8081")
    assert f"Port 8080 is taken; using {url.rpartition(':')[2]} instead" in up.text


@pytest.mark.parametrize("step", ["migrate", "keys", "gateway", "door"])
def test_a_step_that_fails_ends_everything_with_its_reason(run: Callable[..., Up], step: str) -> None:
    """The output of the failed command is shown and nothing is left running."""
    up = run(**{step: "fail"})
    assert up.end() == 1
    assert "the reason" in up.text
    assert step in up.text
    assert not [pid for role in ("gateway", "door", "worker") for pid in up.pids(role) if alive(pid)]


def test_a_signal_during_the_start_stops_the_start(run: Callable[..., Up]) -> None:
    """Ctrl-C works before everything is up, too, and leaves nothing running."""
    up = run({})
    wait_until((up.data_dir / "valkey" / "lock").exists)
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0, up.text
    assert "Safelight is up" not in up.text
    lock = (up.data_dir / "postgres" / "lock").read_text()
    assert not alive(int(lock))
