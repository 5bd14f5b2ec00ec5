"""What the clients' claims stand on: SeaweedFS, the S3 door before it (by http and by TLS), another one before Ceph RGW
(by http), and the clients themselves.

Servers are shared by the session; a client's process lives as long as tests of that client on that endpoint run.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import trustme
from botocore.config import Config

from tests.clients import installed
from tests.clients.client import Client
from tests.clients.door import DOMAIN, Certificates, Door, Surroundings
from tests.clients.endpoints import REGION, Endpoint
from tests.rgw import Rgw
from tests.servers import S3Backend, Servers

BUCKET = "clients"
LARGE_BYTES = 100 << 20


@dataclass(frozen=True, kw_only=True)
class File:
    """A file whose hash is known."""

    path: Path
    sha256: str


@pytest.fixture(scope="session")
def backend(_session_servers: Servers) -> S3Backend:
    return _session_servers.s3_backend


@pytest.fixture(scope="session")
def _seaweedfs(backend: S3Backend) -> Any:
    return open_storage(backend)


@pytest.fixture(scope="session")
def storage(_seaweedfs: Any) -> Any:
    """boto3 on the storage itself: what really lies there, whatever a client says. Its bucket for all tests is made."""
    return _seaweedfs


def open_storage(backend: S3Backend) -> Any:
    """boto3 on a storage, with the bucket for all tests made."""
    made = boto3.client(
        "s3",
        endpoint_url=backend.endpoint,
        aws_access_key_id=backend.access_key,
        aws_secret_access_key=backend.secret_key,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", proxies={}),
    )
    made.create_bucket(Bucket=BUCKET)
    return made


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1", DOMAIN, f"*.{DOMAIN}")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(folder / "certificate.pem", append=True)
    return Certificates(
        ca_file=str(folder / "ca.pem"),
        certificate_file=str(folder / "certificate.pem"),
        key_file=str(folder / "key.pem"),
    )


@contextmanager
def make_surroundings(servers: Servers, **more: str) -> Iterator[Surroundings]:
    """The storage, Valkey, and a database of its own."""
    name = servers.make_database()
    postgres_dsn = servers.postgres.dsn_of(name)
    yield Surroundings(postgres_dsn=postgres_dsn, redis_url=servers.valkey.url, backend=servers.s3_backend, **more)
    servers.heal()
    servers.drop_database(name)


@pytest.fixture(scope="session")
def around(_session_servers: Servers) -> Iterator[Surroundings]:
    with make_surroundings(_session_servers) as made:
        yield made


@pytest.fixture(scope="session")
def door_by_http(tmp_path_factory: pytest.TempPathFactory, around: Surroundings) -> Iterator[Door]:
    opened = Door(tmp_path_factory.mktemp("door") / "http", around)
    yield opened
    opened.stop()


@pytest.fixture(scope="session")
def door_by_tls(
    tmp_path_factory: pytest.TempPathFactory, around: Surroundings, certificates: Certificates
) -> Iterator[Door]:
    opened = Door(tmp_path_factory.mktemp("door") / "tls", around, certificates)
    yield opened
    opened.stop()


@pytest.fixture(scope="session")
def door_to_ceph(tmp_path_factory: pytest.TempPathFactory, around: Surroundings, _session_rgw: Rgw) -> Iterator[Door]:
    if not _session_rgw.running:
        _session_rgw.start()
    opened = Door(tmp_path_factory.mktemp("door") / "ceph", replace(around, backend=_session_rgw.backend))
    yield opened
    opened.stop()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A client on an endpoint; `door` None: on the storage itself. `storage`: see open_storage."""

    client: Client
    endpoint: Endpoint
    door: Door | None
    storage: Any


# Where a client is pointed at -> the fixture of that door.
DOORS = {"http": "door_by_http", "tls": "door_by_tls", "ceph": "door_to_ceph"}


@pytest.fixture(scope="module")
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _seaweedfs: Any, backend: S3Backend
) -> Iterator[Case]:
    """Parametrised by (client's name, where): where is storage, http, tls or ceph."""
    name, where = request.param
    if missing := installed.missing(name):
        pytest.fail(missing, pytrace=False)
    door: Door | None = None if where == "storage" else request.getfixturevalue(DOORS[where])
    storage = open_storage(request.getfixturevalue("_session_rgw").backend) if where == "ceph" else _seaweedfs
    endpoint = door.endpoint if door else _direct(backend)
    client = installed.open_client(name, endpoint, tmp_path_factory.mktemp(f"{name}-{where}"))
    yield Case(client=client, endpoint=endpoint, door=door, storage=storage)
    client.close()


def _direct(backend: S3Backend) -> Endpoint:
    return Endpoint(url=backend.endpoint, access_key=backend.access_key, secret_key=backend.secret_key)


@pytest.fixture(autouse=True)
def _show_the_doors_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """The door's log is shown with a test that failed."""
    yield
    case = request.node.funcargs.get("case")
    if case is not None and case.door is not None:
        print(f"--- the door's log, at its end:\n{case.door.log}")


@pytest.fixture(scope="session")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> File:
    """100 MiB in which no two blocks are the same."""
    path, block, digest = (
        tmp_path_factory.mktemp("large") / "large.bin",
        random.Random(1).randbytes(1 << 20),
        hashlib.sha256(),
    )
    with path.open("wb") as file:
        for number in range(LARGE_BYTES // len(block)):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            file.write(piece)
    return File(path=path, sha256=digest.hexdigest())
