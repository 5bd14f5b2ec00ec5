"""Clients that take their answer slowly, or not at all, with TLS and without."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from tests.clients.conftest import BUCKET
from tests.clients.door import Certificates, Door, Surroundings
from tests.clients.endpoints import REGION

STALL_SECONDS = 2
SIZE_BYTES = 16 << 20  # more than the kernel keeps of a connection
KEY = "stalls.bin"


@pytest.fixture(params=["http", "tls"])
def door(
    request: pytest.FixtureRequest, tmp_path: Path, around: Surroundings, certificates: Certificates, storage: Any
) -> Iterator[Door]:
    storage.put_object(Bucket=BUCKET, Key=KEY, Body=bytes(SIZE_BYTES))
    settings = {"SAFELIGHT_S3_STALL_SECONDS": str(STALL_SECONDS)}
    opened = Door(tmp_path / "door", around, certificates if request.param == "tls" else None, settings)
    yield opened
    opened.stop()


@contextmanager
def ask(door: Door) -> Iterator[socket.socket]:
    """A connection with small buffers on which the object was asked for."""
    at = door.endpoint
    client = boto3.client(
        "s3",
        endpoint_url=at.url,
        aws_access_key_id=at.access_key,
        aws_secret_access_key=at.secret_key,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )
    url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": KEY}))
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        plain.connect((url.hostname, url.port))
        plain.settimeout(30)
        context = ssl.create_default_context(cafile=at.ca_file) if at.is_tls else None
        opened = context.wrap_socket(plain, server_hostname=url.hostname) if context is not None else plain
        with opened:
            opened.sendall(f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
            yield opened


def test_a_client_that_does_not_read_is_cut_off(door: Door) -> None:
    """Its connection is reset, and the door says why."""
    with ask(door) as connection:
        waiting = select.poll()
        waiting.register(connection.fileno(), 0)  # errors and the end are told always
        assert waiting.poll(30_000), "it is held still"
    assert "answer.not_taken" in door.log


def test_a_client_that_reads_slowly_gets_all(door: Door) -> None:
    """It takes longer than the limit for the whole, but never so long for nothing."""
    taken, began = 0, time.monotonic()
    with ask(door) as connection:
        while taken < SIZE_BYTES:
            piece = connection.recv(256 << 10)
            assert piece, f"cut off after {taken} bytes"
            taken += len(piece)
            time.sleep(len(piece) / SIZE_BYTES * 3 * STALL_SECONDS)
    assert time.monotonic() - began > STALL_SECONDS
