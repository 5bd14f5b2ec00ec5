"""The embedded servers, for real: data survive, nothing is left running, nothing is open to others."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from safelight.embedded import (
    FolderInUse,
    Postgres,
    SeaweedFS,
    Server,
    ServerFailed,
    Valkey,
    identity,
    postgres,
)
from safelight.embedded.server import NotReady, descendants
from tests.servers import S3Backend, Servers, execute, fetch_value, run_apart

START_ALL = """
import json, sys, time
from safelight.embedded import Postgres, SeaweedFS, Valkey
folder = sys.argv[1]
servers = [Postgres(folder + "/postgres"), Valkey(folder + "/valkey"), SeaweedFS(folder + "/seaweedfs")]
for server in servers:
    server.start()
print(json.dumps([server.pid for server in servers]), flush=True)
time.sleep(120)
"""


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def started() -> Iterator[Callable[[Server], Server]]:
    """Starts servers and stops them after the test."""
    servers: list[Server] = []

    def start(server: Server) -> Server:
        servers.append(server)
        server.start()
        return server

    yield start
    for server in reversed(servers):
        server.stop()


def test_postgres_keeps_rows_and_port_through_kill_and_stop(tmp_path: Path, started: Callable[..., Server]) -> None:
    """Committed rows survive SIGKILL of every process and an orderly stop; the URL stays the same."""
    server = Postgres(tmp_path / "postgres")
    started(server)
    first = server.dsn
    run_apart(execute(first, "create table t (n int); insert into t values (1)"))
    server.kill()
    server.start()
    run_apart(execute(first, "insert into t values (2)"))
    server.stop()
    again = Postgres(tmp_path / "postgres")
    started(again)
    assert again.dsn == first
    assert run_apart(fetch_value(again.dsn, "select sum(n) from t")) == 3


def test_postgres_asks_for_its_password(servers: Servers) -> None:
    """Another user of the machine cannot log in without the secret of the folder."""
    wrong = servers.postgres.dsn.replace(servers.postgres._password, "wrong")
    with pytest.raises(postgres.asyncpg.InvalidPasswordError):
        run_apart(fetch_value(wrong, "select 1"))


def test_valkey_keeps_entries_through_kill_and_has_a_password(tmp_path: Path, started: Callable[..., Server]) -> None:
    """An answered write survives SIGKILL; nobody comes in without the password."""
    server = Valkey(tmp_path / "valkey")
    started(server)
    with redis.Redis.from_url(server.url) as client:
        client.xadd("stream", {"job": "1"})
        server.kill()
        server.start()
        assert client.xlen("stream") == 1
    with (
        redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_valkey_that_is_not_persistent_comes_back_empty(tmp_path: Path, started: Callable[..., Server]) -> None:
    """A lost Redis can be played."""
    server = Valkey(tmp_path / "valkey", persistent=False)
    started(server)
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.stop()
        server.start()
        assert client.dbsize() == 0


def test_seaweedfs_keeps_objects_through_kill_and_a_change_of_ports(
    tmp_path: Path, started: Callable[..., Server]
) -> None:
    """An answered PUT survives SIGKILL, also when the next start must use other ports."""
    server = SeaweedFS(tmp_path / "seaweedfs")
    started(server)
    server.request("PUT", "/photos/a", b"1" * 100_000)
    server.kill()
    server.start()
    server.request("PUT", "/photos/b", b"2")
    server.kill()
    (tmp_path / "seaweedfs" / "ports.json").unlink()
    moved = SeaweedFS(tmp_path / "seaweedfs")
    started(moved)
    assert moved.port != server.port
    assert moved.request("GET", "/photos/a") == b"1" * 100_000
    assert moved.request("GET", "/photos/b") == b"2"


def test_seaweedfs_leaves_no_sockets_behind(tmp_path: Path) -> None:
    """The socket files of its ports are gone after a kill."""
    server = SeaweedFS(tmp_path / "seaweedfs")
    server.start()
    ports = set(server.ports.values())

    def left() -> list[Path]:
        sockets = Path("/tmp").glob("seaweedfs-*.sock")
        return [path for path in sockets if int(path.stem.rpartition("-")[2]) in ports]

    assert left()
    server.kill()
    assert not left()


def test_seaweedfs_refuses_wrong_secrets_and_unsigned_requests(servers: Servers, bucket: str) -> None:
    """Neither the S3 port nor the filer behind it gives or takes bytes without the key."""
    server = servers.seaweedfs
    server.request("PUT", f"/{bucket}/photo", b"bytes")
    stranger = SeaweedFS(server.folder)
    stranger._ports, stranger._secrets = server.ports, server._secrets | {"secret_key": "wrong"}
    with pytest.raises(NotReady, match="HTTP 403"):
        stranger.request("GET", f"/{bucket}/photo")
    stranger._ports = server.ports | {"s3": server.ports["filer"]}
    for method in ("GET", "PUT"):
        with pytest.raises(NotReady, match="HTTP 401"):
            stranger.request(method, f"/buckets/{bucket}/photo")


def test_many_buckets_can_hold_objects(servers: Servers, bucket_prefix: str) -> None:
    """Tests and users may make buckets freely."""
    for number in range(25):
        servers.seaweedfs.request("PUT", f"/{bucket_prefix}-{number}")
        servers.seaweedfs.request("PUT", f"/{bucket_prefix}-{number}/photo", b"bytes")
    assert servers.seaweedfs.request("GET", f"/{bucket_prefix}-24/photo") == b"bytes"


def test_everything_listens_on_localhost_only(servers: Servers) -> None:
    """No port of any server can be reached from another machine, and there is none that we did not choose."""
    for server in (servers.postgres, servers.valkey, servers.seaweedfs):
        assert listening(server) == {("127.0.0.1", port) for port in server.ports.values()}


def listening(server: Server) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket that the server's processes listen on."""
    inodes = set()
    for pid in (server.pid, *descendants(server.pid)):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(link) if link.is_symlink() else ""
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table, family, size in (("tcp", socket.AF_INET, 8), ("tcp6", socket.AF_INET6, 32)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and parts[9] in inodes:
                address, port = parts[1].split(":")
                packed = bytes.fromhex(address[:size])
                words = b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4))
                found.add((socket.inet_ntop(family, words), int(port, 16)))
    return found


def test_folders_and_secrets_are_private(servers: Servers) -> None:
    """Other users can read neither data nor secrets, nor the command lines that would hold them."""
    for server in (servers.postgres, servers.valkey, servers.seaweedfs):
        assert mode(server.folder) == 0o700
        for path in server.folder.iterdir():
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path
        line = Path(f"/proc/{server.pid}/cmdline").read_text()
        assert not [
            value for value in json.loads((server.folder / "secrets.json").read_text()).values() if value in line
        ]


def test_a_suspended_server_is_silent_and_answers_after_resume(servers: Servers) -> None:
    """suspend freezes the backends of open connections too, not only the process that accepts."""
    server = servers.postgres

    async def ask() -> tuple[bool, int]:
        connection = await postgres.asyncpg.connect(server.dsn)
        server.suspend()
        query = postgres.asyncio.ensure_future(connection.fetchval("select 7"))
        silent = not (await postgres.asyncio.wait([query], timeout=0.5))[0]
        server.resume()
        value = await postgres.asyncio.wait_for(query, 5)
        await connection.close()
        return silent, value

    assert run_apart(ask()) == (True, 7)


def test_a_failed_start_shows_the_end_of_the_log(tmp_path: Path) -> None:
    """The reason is in the message, not only in a file."""
    with pytest.raises(
        ServerFailed, match=r"ended while starting(.|\n)*invalid value for parameter \"shared_buffers\""
    ):
        Postgres(tmp_path / "postgres", durable=False, settings={"shared_buffers": "junk"}).start()


def test_a_port_that_is_taken_is_named_in_the_failure(tmp_path: Path) -> None:
    """An explicit port that another program has is an error, not a silent change."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServerFailed, match="Address already in use"):
            Valkey(tmp_path / "valkey", port=other.getsockname()[1]).start()


def test_a_folder_in_use_is_refused(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second server on the data of a live one does not start, and says whose they are."""
    monkeypatch.setattr("safelight.embedded.server.LOCK_SECONDS", 0.1)
    with pytest.raises(FolderInUse, match=f"pid {servers.postgres.pid}"):
        Postgres(servers.postgres.folder).start()


def test_a_pid_file_that_names_a_stranger_does_not_keep_postgres_down(tmp_path: Path) -> None:
    """After a crash the old pid may be a zombie or another program's: the start goes on all the same."""
    server = Postgres(tmp_path / "postgres", durable=False)
    server.start()
    pid_file = server.cluster / "postmaster.pid"
    text = pid_file.read_text()
    server.kill()
    pid_file.write_text(text.replace(text.split("\n")[0], str(os.getppid()), 1))
    server.start()
    server.stop()


def test_an_interrupted_initdb_does_not_spoil_the_folder(tmp_path: Path) -> None:
    """What a killed first start left is thrown away by the next."""
    partial = tmp_path / "postgres" / "data.partial"
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").write_text("18")
    server = Postgres(tmp_path / "postgres", durable=False)
    server.start()
    server.stop()
    assert not partial.exists()


def test_the_environment_of_the_caller_changes_nothing(
    tmp_path: Path, started: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that speak to Postgres, SeaweedFS or a proxy do not reach the servers."""
    for name, value in {
        "PGDATA": "/nonexistent",
        "PGPORT": "1",
        "PGOPTIONS": "-c bad=1",
        "WEED_LEVELDB2_ENABLED": "false",
        "WEED_JWT_SIGNING_KEY": "x",
        "S3_BUCKET": "stray",
        "http_proxy": "http://127.0.0.1:1",
        "LD_PRELOAD": "/nonexistent.so",
    }.items():
        monkeypatch.setenv(name, value)
    started(Postgres(tmp_path / "postgres", durable=False))
    server = SeaweedFS(tmp_path / "seaweedfs")
    started(server)
    assert b"stray" not in server.request("GET", "/")


def test_sigkill_of_the_parent_leaves_nothing_running_and_nothing_lost(tmp_path: Path) -> None:
    """After a kill -9 of the owner every server ends by itself, and the next start has the data."""
    owner = subprocess.Popen(
        [sys.executable, "-c", START_ALL, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout
    with owner.stdout:
        pids = json.loads(owner.stdout.readline())
    everything = [*pids, *(below for pid in pids for below in descendants(pid))]
    storage = SeaweedFS(tmp_path / "seaweedfs")
    storage._secrets = json.loads((storage.folder / "secrets.json").read_text())
    storage._ports = json.loads((storage.folder / "ports.json").read_text())
    storage.request("PUT", "/photos/kept", b"bytes")
    owner.kill()
    owner.wait()
    storage = SeaweedFS(tmp_path / "seaweedfs")
    again: list[Server] = [Postgres(tmp_path / "postgres"), Valkey(tmp_path / "valkey"), storage]
    for server in again:
        server.start()  # at once, while the old ones may still be ending
    assert not [pid for pid in everything if alive(pid)]
    assert storage.request("GET", "/photos/kept") == b"bytes"
    for server in reversed(again):
        server.stop()


def test_a_launch_from_another_thread_is_refused(tmp_path: Path) -> None:
    """A server never dies with a thread by surprise."""

    async def launch() -> None:
        Valkey(tmp_path / "valkey").launch()

    with pytest.raises(RuntimeError, match="main thread"):
        run_apart(launch())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another identity")
@pytest.mark.parametrize("way", ["namespace", "nobody"])
def test_another_identity_is_not_root_and_reaches_closed_folders(tmp_path: Path, way: identity.Identity) -> None:
    """A program that root runs as somebody else may use what lies in root's closed folders, by access(2) too."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").touch(mode=0o600)
    code = "import os, sys; print(os.geteuid(), os.access(sys.argv[1], os.R_OK), open(sys.argv[1]).read())"
    command = [sys.executable, "-I", "-S", "-c", code, str(closed / "file")]
    setup = identity.child_setup(signal.SIGKILL, way)
    done = subprocess.run(command, preexec_fn=setup, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["65534", "True"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another identity")
@pytest.mark.parametrize("choice", ["namespace", "nobody"])
def test_postgres_runs_for_root_below_closed_folders(
    tmp_path: Path, choice: identity.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways work in a folder that only root may enter, change no permissions and share one cluster."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    modes = {path: mode(path) for path in (closed, *closed.parents)}
    for way in (choice, "namespace", "nobody"):
        monkeypatch.setattr(postgres, "choose_identity", lambda way=way: way)
        server = Postgres(closed / "postgres", durable=False)
        server.start()
        run_apart(execute(server.dsn, "create table if not exists t (n int); insert into t values (1)"))
        uid = Path(f"/proc/{server.pid}/status").read_text().split("Uid:")[1].split()[0]
        assert int(uid) == identity.owner_uid(way)  # type: ignore[arg-type]
        assert run_apart(fetch_value(server.dsn, "select count(*) from t")) >= 1
        server.stop()
    assert {path: mode(path) for path in modes} == modes


def test_databases_and_buckets_of_tests_are_their_own(
    servers: Servers, postgres_dsn: str, redis_url: str, s3_backend: S3Backend, bucket: str
) -> None:
    """The fixtures that other tests build on give fresh things: a schema, an empty Redis, an empty bucket."""
    tables = run_apart(fetch_value(postgres_dsn, "select count(*) from pg_tables where schemaname = 'public'"))
    assert tables >= 3
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
    assert b"<Key>" not in servers.seaweedfs.request("GET", f"/{bucket}")
    assert replace(s3_backend, endpoint="x").secret_key == servers.seaweedfs.secret_key


@pytest.mark.parametrize(("ci", "exit_code", "summary"), [("", 0, "1 skipped"), ("true", 1, "1 error")])
def test_a_missing_tool_skips_the_test_but_fails_in_ci(tmp_path: Path, ci: str, exit_code: int, summary: str) -> None:
    """A test that needs an absent program is never counted as passed, and CI does not accept its absence."""
    test = tmp_path / "test_tool.py"
    test.write_text("import pytest\n\n@pytest.mark.needs_promtool\ndef test_it():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", "/dev/null", str(test)]
    environment = {"PATH": "", "CI": ci, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert summary in done.stdout
    assert "promtool is not installed" in done.stdout or not ci
