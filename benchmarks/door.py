"""What the S3 door costs: the same requests straight to the storage and through the door before it, in one run.

python -m benchmarks.door [--rounds 6] [--connections 4] [--gibibytes 0] [--client aiohttp|botocore] [--pin]
                          [--storage seaweedfs|rgw]
python -m benchmarks.door --processes 2 [--rounds 6] [--connections 4]

5 MiB objects, signed with their SHA-256; the sides take turns, so a busy machine slows both. Client, door and storage
share the machine's cores: the ratio is of all three together, and the cheaper the storage, the lower it is. RGW is
Ceph's, of Debian's packages (`make test-rgw` installs them), and holds 4 GiB in memory. --client botocore asks as most
programs do, and costs more itself; --pin gives the door the last core and keeps everything else from it, on both sides.
Then half of the door's own rate of HEADs arrives evenly, for what the door adds to the 99th percentile. The door's
memory is read after the rounds, and while an object of --gibibytes goes through in both directions.

--processes compares a door of one process with a door of so many, asked by as many client processes: what one more
core would bring. Client, door and storage need cores of their own for that; on two cores it tells what it costs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import botocore.session
import uvloop
from botocore.config import Config
from yarl import URL

from gateway.s3.request import RawRequest
from gateway.s3.scope import Signer
from gateway.s3.signing import sign_request
from tests.clients.door import Door, Surroundings
from tests.rgw import open_rgw
from tests.servers import Servers

BUCKET, KEYS, SIZE_BYTES = "bench", 16, 5 << 20
COUNTS = {"PUT": 16, "GET": 24, "HEAD": 400}
EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Side:
    name: str
    url: str
    signer: Signer

    def headers(self, method: str, path: str, payload: str) -> dict[str, str]:
        host = self.url.partition("://")[2]
        raw = RawRequest(method=method, path=path.encode(), query=b"", headers=(), host=host)
        signed = sign_request(raw, self.signer, payload=payload, now=datetime.now(UTC))
        return {name.decode(): value.decode() for name, value in signed}

    async def ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        payload: str = EMPTY,
        length: int | None = None,
    ) -> int:
        """Bytes of the answer."""
        headers = self.headers(method, path, payload)
        if length is not None:
            headers["Content-Length"] = str(length)
        async with session.request(method, URL(self.url + path, encoded=True), headers=headers, data=body) as answer:
            size_bytes = 0
            async for piece in answer.content.iter_any():
                size_bytes += len(piece)
            assert answer.status < 300, answer.status
            return size_bytes


async def measure(side: Side, method: str, connections: int, body: bytes) -> float:
    """Requests per second."""
    numbers = list(range(COUNTS[method]))
    payload = hashlib.sha256(body).hexdigest()

    async def work(session: aiohttp.ClientSession) -> None:
        while numbers:
            path = f"/{BUCKET}/{numbers.pop() % KEYS}"
            if method == "PUT":
                await side.ask(session, method, path, body, payload=payload)
            else:
                await side.ask(session, method, path)

    async with _open_session() as session:
        started = time.perf_counter()
        await asyncio.gather(*(work(session) for _ in range(connections)))
        return COUNTS[method] / (time.perf_counter() - started)


def measure_botocore(side: Side, method: str, connections: int, body: bytes) -> float:
    """The same with botocore, a thread for each connection."""
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=side.signer.region,
        endpoint_url=side.url,
        aws_access_key_id=side.signer.access_key,
        aws_secret_access_key=side.signer.secret_key,
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=connections, retries={"max_attempts": 0}),
    )

    def ask(number: int) -> None:
        where = {"Bucket": BUCKET, "Key": str(number % KEYS)}
        match method:
            case "PUT":
                client.put_object(Body=body, **where)
            case "GET":
                assert len(client.get_object(**where)["Body"].read()) == SIZE_BYTES
            case _:
                client.head_object(**where)

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(ask, range(connections)))  # connections are made, modules loaded
        started = time.perf_counter()
        list(pool.map(ask, range(COUNTS[method])))
        return COUNTS[method] / (time.perf_counter() - started)


async def compare(sides: tuple[Side, Side], rounds: int, connections: int, client: str) -> float:
    """HEADs a second that the door answered."""
    body = os.urandom(SIZE_BYTES)
    await make_bucket(sides[0])
    for method in COUNTS:
        rates: dict[str, list[float]] = {side.name: [] for side in sides}
        for number in range(rounds):
            for side in sides if number % 2 else reversed(sides):
                if client == "botocore":
                    rate = await asyncio.to_thread(measure_botocore, side, method, connections, body)
                else:
                    rate = await measure(side, method, connections, body)
                rates[side.name].append(rate)
        tell(method, sides, rates)
    return statistics.median(rates[sides[1].name])


def compare_processes(sides: tuple[Side, Side], rounds: int, connections: int, clients: int) -> None:
    """The same requests to two doors, from as many processes at once."""
    body = os.urandom(SIZE_BYTES)
    uvloop.run(make_bucket(sides[0]))
    with ProcessPoolExecutor(clients) as pool:
        for method in COUNTS:
            rates: dict[str, list[float]] = {side.name: [] for side in sides}
            for number in range(rounds):
                for side in sides if number % 2 else reversed(sides):
                    asked = [pool.submit(measure_apart, side, method, connections, body) for _ in range(clients)]
                    rates[side.name].append(sum(each.result() for each in asked))
            tell(method, sides, rates)


def measure_apart(side: Side, method: str, connections: int, body: bytes) -> float:
    return uvloop.run(measure(side, method, connections, body))


async def make_bucket(side: Side) -> None:
    async with _open_session() as session:
        await side.ask(session, "PUT", f"/{BUCKET}")


def tell(method: str, sides: tuple[Side, Side], rates: dict[str, list[float]]) -> None:
    one, other = (rates[side.name] for side in sides)
    ratios = [second / first for second, first in zip(other, one, strict=True)]
    print(
        f"{method:<5} {sides[0].name} {statistics.median(one):8.1f}/s   {sides[1].name} "
        f"{statistics.median(other):8.1f}/s   ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


async def compare_latency(sides: tuple[Side, Side], per_second: float, rounds: int) -> None:
    """HEADs that arrive evenly, whether or not the earlier ones are answered."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    async with _open_session() as session:

        async def ask(side: Side, number: int, due: float) -> None:
            await side.ask(session, "HEAD", f"/{BUCKET}/{number % KEYS}")
            seconds[side.name].append(time.perf_counter() - due)

        for number in range(rounds):
            for side in sides if number % 2 else reversed(sides):
                asked, began = [], time.perf_counter()
                for turn in range(int(per_second * 2)):
                    due = began + turn / per_second
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    asked.append(asyncio.create_task(ask(side, turn, due)))
                await asyncio.gather(*asked)
    p99 = [statistics.quantiles(seconds[side.name], n=100)[98] * 1000 for side in sides]
    p50 = [statistics.median(seconds[side.name]) * 1000 for side in sides]
    print(
        f"HEAD at {per_second:.0f}/s: p50 direct {p50[0]:.2f} ms, door {p50[1]:.2f} ms; "
        f"p99 direct {p99[0]:.2f} ms, door {p99[1]:.2f} ms: {p99[1] - p99[0]:+.2f} ms"
    )


async def pass_large(side: Side, gibibytes: int) -> None:
    block, length = os.urandom(1 << 20), gibibytes << 30

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(length >> 20):
            yield block

    async with _open_session() as session:
        path = f"/{BUCKET}/large"
        await side.ask(session, "PUT", path, pieces(), payload="UNSIGNED-PAYLOAD", length=length)
        assert await side.ask(session, "GET", path) == length
        await side.ask(session, "DELETE", path)


def pin(pid: int, core: int) -> None:
    """Every thread of that process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _open_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding", "Content-Type"],
        read_bufsize=256 << 10,
        timeout=aiohttp.ClientTimeout(total=None),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--gibibytes", type=int, default=0)
    parser.add_argument("--client", choices=("aiohttp", "botocore"), default="aiohttp")
    parser.add_argument("--storage", choices=("seaweedfs", "rgw"), default="seaweedfs")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--processes", type=int, default=0)
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if chosen.pin:
        os.sched_setaffinity(0, cores[:-1])  # what is started from here on inherits it
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres runs as another user
        servers = Servers(folder)
        rgw = opened.enter_context(open_rgw(folder / "rgw")) if chosen.storage == "rgw" else None
        backend = rgw.backend if rgw is not None else servers.s3_backend
        dsn = servers.postgres.dsn_of(servers.make_database())
        around = Surroundings(postgres_dsn=dsn, redis_url=servers.valkey.url, backend=backend)
        doors = [Door(folder / "door", around)]
        try:
            if chosen.processes:
                settings = {"SAFELIGHT_S3_PROCESSES": str(chosen.processes)}
                doors.append(Door(folder / "doors", around, settings=settings))
                sides = (_side("1 process", doors[0]), _side(f"{chosen.processes} processes", doors[1]))
                while doors[1].log.count("door.started") < chosen.processes:  # its address is told before they listen
                    time.sleep(0.1)
                compare_processes(sides, chosen.rounds, chosen.connections, chosen.processes)
                return
            straight = Signer(access_key=backend.access_key, secret_key=backend.secret_key, region=backend.region)
            sides = (Side(name="direct", url=backend.endpoint, signer=straight), _side("door", doors[0]))
            if chosen.pin:
                pin(doors[0].pid, cores[-1])
            rate = uvloop.run(compare(sides, chosen.rounds, chosen.connections, chosen.client))
            uvloop.run(compare_latency(sides, rate / 2, chosen.rounds))
            print(f"door's memory, resident: {doors[0].peak_memory_bytes / 1e6:.0f} MB at its peak")
            if chosen.gibibytes:
                uvloop.run(pass_large(sides[1], chosen.gibibytes))
                print(f"after {chosen.gibibytes} GiB both ways: {doors[0].peak_memory_bytes / 1e6:.0f} MB at its peak")
        finally:
            for door in doors:
                door.stop()
            servers.stop()


def _side(name: str, door: Door) -> Side:
    at = door.endpoint
    return Side(
        name=name, url=at.url, signer=Signer(access_key=at.access_key, secret_key=at.secret_key, region=at.region)
    )


if __name__ == "__main__":
    main()
