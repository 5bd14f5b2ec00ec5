"""What each process tells Prometheus: on the gateway's port to keys, on a port of its own to who can reach that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from safelight.embedded.folder import choose_port
from safelight.exposition import serving
from safelight.settings import ProcessSettings
from safelight.up import metrics_ports
from storage import credentials, sealing
from storage.database import Database
from storage.sealing import MasterKeys
from tests.access_keys import make_key
from tests.integration.door_site import Client
from tests.integration.programs import Stage
from tests.integration.stage import until
from tests.photos import make_jpeg

PROCESSES = ("gateway", "worker", "door")
Numbers = dict[str, float]


def numbers_of(text: str) -> Numbers:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


async def scrape(port: int) -> str:
    patience = aiohttp.ClientTimeout(total=10)  # Prometheus'
    async with (
        aiohttp.ClientSession(timeout=patience) as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        return await answer.text()


async def has(port: int, holds: Callable[[Numbers], bool], what: str) -> Numbers:
    """The process's numbers, once they are as wanted."""

    async def found() -> Numbers | None:
        try:
            numbers = numbers_of(await scrape(port))
        except aiohttp.ClientError:
            return None  # it does not listen yet
        return numbers if holds(numbers) else None

    numbers = await until(found, seconds=40, what=what)
    assert numbers is not None
    return numbers


def lint(text: str) -> str:
    """What promtool finds in an exposition."""
    command = ("promtool", "check", "metrics")
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


@pytest.mark.needs_promtool
async def test_every_process_tells_what_it_does(stage: Stage, database: Database) -> None:
    """Gateway, worker and S3 door each show their numbers on a port of their own, in the form that promtool approves:
    requests by route and operation, runs by outcome, rejections by reason, how long all took."""
    master_key = sealing.generate()
    ports = {name: choose_port() for name in PROCESSES}
    common = {"metrics_host": "127.0.0.1", "postgres_idle_seconds": "0.5"}
    async with database.transaction() as conn:
        key = await make_key(conn, MasterKeys.parse(master_key))
    ports_file = stage._folder / "ports.json"
    stage.start("gateway", http_port="0", ports_file=str(ports_file), metrics_port=str(ports["gateway"]), **common)
    stage.start_worker(metrics_port=str(ports["worker"]), **common)
    s3_port = choose_port()
    stage.start("door", s3_port=str(s3_port), master_key=master_key, metrics_port=str(ports["door"]), **common)
    await has(ports["gateway"], lambda numbers: numbers["safelight_workers"] == 1, "the gateway sees the worker")
    await has(ports["door"], bool, "the door listens")
    url = json.loads(ports_file.read_text())["http_url"]
    whole = make_jpeg(64, 48, noise=20)
    async with aiohttp.ClientSession() as session:
        door = Client(url=f"http://127.0.0.1:{s3_port}", key=key, session=session)
        bucket = f"{stage.stream}-photos"
        assert (await door.put(f"/{bucket}/sound.jpg", whole)).status == 200
        assert (await door.put(f"/{bucket}/cut.jpg", whole[: len(whole) // 8])).status == 200
        absent = await door.send("GET", f"/{bucket}/absent.jpg")
        assert absent.status == 404
        large = bytes(1 << 20)
        assert (await door.put(f"/{bucket}/large.bin", large)).status == 200
        assert (await door.send("GET", f"/{bucket}/large.bin")).body == large
        assert (await door.send("HEAD", f"/{bucket}/large.bin")).status == 200
        headers = {"Authorization": f"Bearer {key.token}"}
        async with session.put(f"{url}/v1/photos/{bucket}/rest.jpg?wait=20", data=whole, headers=headers) as answer:
            assert answer.status == 201
        async with session.get(f"{url}/../{'x' * 50}") as answer:
            assert answer.status == 404

    gateway = await has(
        ports["gateway"],
        lambda numbers: numbers['safelight_job_runs_total{outcome="ok",processor="preview"}'] == 2,
        "the runs of both sound photos are counted",
    )
    assert gateway['safelight_rejections_total{code="truncated",processor="preview"}'] == 1
    for name in ("run", "wait", "end_to_end"):
        assert gateway[f'safelight_job_{name}_seconds_count{{processor="preview"}}'] == 3
        assert 0 < gateway[f'safelight_job_{name}_seconds_sum{{processor="preview"}}'] < 60
    route = "/v1/photos/{bucket}/{key}"
    found = [value for name, value in gateway.items() if f'route="{route}' in name and 'status="201"' in name]
    assert found == [1], [name for name in gateway if "http_requests" in name]
    assert [value for name, value in gateway.items() if 'method="any"' in name and 'status="404"' in name] == [1]
    assert gateway['safelight_http_bytes_total{direction="in"}'] == len(whole)
    assert gateway["safelight_dispatch_lag_seconds"] == gateway["safelight_uploads_in_flight"] == 0
    assert gateway['safelight_postgres_pool_connections{state="used"}'] <= gateway["safelight_postgres_pool_limit"]
    assert 0 < gateway["safelight_disk_free_bytes"] < gateway["safelight_disk_size_bytes"]

    at_door = numbers_of(await scrape(ports["door"]))
    assert at_door['safelight_door_requests_total{operation="PutObject",status="200"}'] == 3
    assert at_door['safelight_door_requests_total{operation="GetObject",status="404"}'] == 1
    assert at_door['safelight_door_request_seconds_count{operation="PutObject"}'] == 3
    assert at_door['safelight_door_bytes_total{direction="in"}'] == len(whole) + len(whole) // 8 + len(large)
    answers = len(absent.body) + len(large)
    assert answers < at_door['safelight_door_bytes_total{direction="out"}'] < answers + 7 * 600  # and their heads
    worker = numbers_of(await scrape(ports["worker"]))
    assert worker["safelight_worker_slots"] == worker["safelight_sandbox_starts_total"] == 2
    assert worker['safelight_sandbox_kills_total{reason="wall_time"}'] == 0
    assert worker['safelight_worker_running_jobs{processor="preview"}'] == 0
    assert worker["safelight_dispatch_last_success_timestamp_seconds"] > 1e9
    for name in PROCESSES:
        text = await scrape(ports[name])
        assert lint(text) == "", name
        assert "process_resident_memory_bytes" in text
        assert f'safelight_build_info{{program="{name}"' in text


async def test_counters_hold_what_a_killed_worker_did(stage: Stage, database: Database) -> None:
    """What a worker did before it was killed -9, and that its lease ran out, is counted by the gateway, which has it
    from Postgres."""
    credential = credentials.generate()
    async with database.transaction() as conn:
        await credentials.create(conn, credential, name="test", scopes=["read", "write"])
    port, common = choose_port(), {"postgres_idle_seconds": "0.5"}
    ports_file = stage._folder / "ports.json"
    stage.start("gateway", http_port="0", ports_file=str(ports_file), metrics_port=str(port), **common)
    worker = stage.start_worker(**common)
    await has(port, lambda numbers: numbers["safelight_workers"] == 1, "the worker is there")
    url = json.loads(ports_file.read_text())["http_url"]
    headers = {"Authorization": f"Bearer {credential.token}"}

    async def put(name: str, wait: int) -> None:
        async with aiohttp.ClientSession(headers=headers) as session:
            target = f"{url}/v1/photos/{stage.stream}-photos/{name}?wait={wait}"
            async with session.put(target, data=make_jpeg(64, 48)) as answer:
                assert answer.status == 201

    await put("done.jpg", 20)
    worker.freeze_children()
    await put("lost.jpg", 0)

    async def running() -> bool:
        async with database.connection() as conn:
            return bool(await conn.fetchval("select count(*) = 2 from job where state = 'running'"))

    await until(running, seconds=10, what="the worker has its jobs")
    worker.kill()
    numbers = await has(
        port,
        lambda numbers: numbers['safelight_job_runs_total{outcome="expired",processor="preview"}'] == 1,
        "the lost lease is counted",
    )
    assert numbers['safelight_job_runs_total{outcome="ok",processor="preview"}'] == 1
    assert numbers["safelight_expired_leases_total"] == 2
    await has(port, lambda numbers: numbers["safelight_workers"] == 0, "the worker is missed")


async def test_a_scrape_ends_though_postgres_does_not_answer_what_it_asks(stage: Stage, postgres_dsn: str) -> None:
    """While the jobs are locked a scrape is answered before Prometheus gives up on it, without the numbers of jobs."""
    port = choose_port()
    conn = await asyncpg.connect(postgres_dsn)
    try:
        async with conn.transaction():
            await conn.execute("lock table job in access exclusive mode")
            stage.start("gateway", http_port="0", metrics_port=str(port))
            numbers = await has(port, bool, "the gateway shows its metrics")
    finally:
        await conn.close()
    assert numbers['safelight_dependency_up{dependency="postgres"}'] == 1
    assert [name for name in numbers if name.startswith("safelight_jobs{")] == []


async def ask(port: int, sent: bytes) -> bytes:
    """What a connection that sends this is answered, until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = b""
    with contextlib.suppress(ConnectionResetError):  # closed with something left unread
        async with asyncio.timeout(10):
            answer = await reader.read()
    writer.close()
    return answer


@pytest.fixture
def settings() -> ProcessSettings:
    return ProcessSettings(metrics_port=choose_port())


def render_slowly(seconds: float) -> Callable[[], Awaitable[bytes]]:
    async def render() -> bytes:
        await asyncio.sleep(seconds)
        return b"safelight_jobs 1\n"

    return render


async def test_strangers_get_little_of_the_metrics_port(settings: ProcessSettings) -> None:
    """Anything but GET and HEAD of /metrics is 404; an endless head is cut off; while many scrapes are under way the
    next connection is closed at once; and the port is closed at the end."""
    port = settings.metrics_port
    async with serving(settings, render_slowly(0.5)):
        answers = await asyncio.gather(*(ask(port, b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(20)))
        assert Counter(bool(answer) for answer in answers) == {True: 16, False: 4}
        assert answers[0].startswith(b"HTTP/1.1 200 OK\r\n")
        assert answers[0].endswith(b"\r\n\r\nsafelight_jobs 1\n")
        for line in (b"GET / HTTP/1.1", b"POST /metrics HTTP/1.1", b"GET", b"\0"):
            assert (await ask(port, line + b"\r\n\r\n")).startswith(b"HTTP/1.1 404"), line
        head = await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert re.search(rb"Content-Length: 17\r\n.*\r\n\r\n$", head, re.DOTALL)
        assert await ask(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000) == b""
    with pytest.raises(ConnectionRefusedError):
        await ask(port, b"")


def choose_neighbours() -> int:
    """A free port whose next one is free too."""
    while True:
        port = choose_port()
        with contextlib.suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 1))
            return port


async def test_each_process_of_the_door_shows_its_own_numbers(stage: Stage, tmp_path: Path) -> None:
    """Two processes of the S3 door on one port, told once one of them listens, show their metrics on two, and a request
    counts at one of them. Where their parent is killed they stop by themselves, and leave the port to the next one."""
    first, s3_port = choose_neighbours(), choose_port()
    more = {"s3_processes": "2", "s3_port": str(s3_port), "master_key": sealing.generate()}
    ports = tmp_path / "ports.json"
    parent = stage.start("door", metrics_port=str(first), ports_file=str(ports), **more)

    async def is_told() -> bool:
        return ports.exists()

    await until(is_told, seconds=20, what="the address is told")
    _, writer = await asyncio.open_connection("127.0.0.1", s3_port)
    writer.close()
    for port in (first, first + 1):
        await has(port, lambda numbers: "safelight_door_requests_limit" in numbers, f"port {port} shows metrics")
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{s3_port}/photos/a.jpg") as answer:
        assert answer.status == 403
    counted = [numbers_of(await scrape(port)) for port in (first, first + 1)]
    refused = 'safelight_door_requests_total{operation="none",status="403"}'
    assert sorted(numbers.get(refused, 0) for numbers in counted) == [0, 1]
    parent.kill()

    async def is_closed() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", s3_port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await until(is_closed, seconds=10, what="nobody listens any more")


def test_what_up_starts_gets_a_port_each() -> None:
    """`safelight up` gives gateway, worker and door ports in a row from the one that is set, and none unless it is."""
    ports = metrics_ports({"SAFELIGHT_METRICS_PORT": "9464"})
    assert {name: own["SAFELIGHT_METRICS_PORT"] for name, own in ports.items()} == {
        "gateway": "9464",
        "worker": "9465",
        "door": "9466",
    }
    assert metrics_ports({}) == {}
