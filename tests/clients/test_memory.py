"""How much memory the door takes for bodies that are much larger than it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.s3.request import RawRequest
from gateway.s3.scope import Signer
from gateway.s3.signing import sign_request
from tests.clients.conftest import BUCKET
from tests.clients.door import Door, Surroundings
from tests.clients.endpoints import REGION, Endpoint

MAX_GROWTH_BYTES = 24 << 20  # about twice what it is
BODIES, BODY_BYTES = 4, 128 << 20
BLOCK = bytes(1 << 20)


def test_half_a_gibibyte_passes_in_24_mib(tmp_path: Path, around: Surroundings, storage: Any) -> None:
    """Four bodies of 128 MiB at once, in and out: the door's memory hardly grows beyond what it is at its start."""
    door = Door(tmp_path / "door", around)
    at_start = door.peak_memory_bytes
    keys = [f"memory/{number}" for number in range(BODIES)]
    try:
        with ThreadPoolExecutor(BODIES) as pool:
            assert list(pool.map(lambda key: put(door.endpoint, key), keys)) == [200] * BODIES
            assert list(pool.map(lambda key: count(door.endpoint, key), keys)) == [BODY_BYTES] * BODIES
        assert door.peak_memory_bytes - at_start < MAX_GROWTH_BYTES
    finally:
        door.stop()
        storage.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys]})


def put(at: Endpoint, key: str) -> int:
    """The status of the answer."""

    def pieces() -> Iterator[bytes]:
        for _ in range(BODY_BYTES // len(BLOCK)):
            yield BLOCK

    return ask(at, "PUT", key, pieces()).status


def count(at: Endpoint, key: str) -> int:
    """Bytes of the object."""
    answer, size_bytes = ask(at, "GET", key), 0
    while piece := answer.read(len(BLOCK)):
        size_bytes += len(piece)
    return size_bytes


def ask(at: Endpoint, method: str, key: str, body: Iterator[bytes] | None = None) -> http.client.HTTPResponse:
    path = f"/{BUCKET}/{key}"
    raw = RawRequest(method=method, path=path.encode(), query=b"", headers=(), host=at.host)
    by = Signer(access_key=at.access_key, secret_key=at.secret_key, region=REGION)
    signed = sign_request(raw, by, payload="UNSIGNED-PAYLOAD", now=datetime.now(UTC))
    headers = {name.decode(): value.decode() for name, value in signed}
    if body is not None:
        headers["Content-Length"] = str(BODY_BYTES)
    connection = http.client.HTTPConnection(at.host, timeout=120)
    connection.request(method, path, body=body, headers=headers)
    return connection.getresponse()
