"""Fixtures that all tests share, and the marks of tests that need a tool which may be absent.

A test with a `needs_*` mark is skipped, with the reason, where its tool is absent; with CI=true it fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import structlog

from safelight.embedded import folder
from tests.rgw import Rgw
from tests.servers import S3Backend, Servers

_STRUCTLOG_CONFIGURE = structlog.configure

TOOLS = {
    "needs_ceph": ("radosgw",),
    "needs_chromium": ("chromium", "chromium-browser", "google-chrome"),
    "needs_exiftool": ("exiftool",),
    "needs_node": ("node",),
    "needs_promtool": ("promtool",),
}


def find_tool(mark: str) -> str | None:
    """Path of the program behind a mark, None where it is absent."""
    return next((path for name in TOOLS[mark] if (path := shutil.which(name))), None)


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background deaf to Ctrl-C; the programs that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    structlog.configure = _configure_structlog
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        _keep_ports_apart(int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    for mark, names in TOOLS.items():
        config.addinivalue_line("markers", f"{mark}: needs the program {names[0]} (`make test-tools` installs it)")


def _keep_ports_apart(number: int, count: int) -> None:
    """Ports of two processes of tests never meet, not even while a program that has one is being started again."""
    share = len(folder.PORTS) // count
    own = folder.PORTS[number * share : (number + 1) * share]
    folder._given.update(set(folder.PORTS) - set(own))


def pytest_runtest_teardown() -> None:
    """Forget how a command that a test ran in this process set up its log: the next test reads every line."""
    structlog.reset_defaults()


def _configure_structlog(**chosen: Any) -> None:
    """As structlog does, but for the caching: a cached logger is deaf to what a later test captures."""
    _STRUCTLOG_CONFIGURE(**chosen | {"cache_logger_on_first_use": False})


def pytest_report_header() -> list[str]:
    absent = [names[0] for mark, names in TOOLS.items() if not find_tool(mark)]
    if not absent:
        return []
    effect = "fail, because CI=true" if _must_run_all() else "are left out"
    return [f"absent: {', '.join(absent)}; tests that need them {effect} (`make test-tools` installs them)"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers():
        if mark.name in TOOLS and not find_tool(mark.name):
            reason = f"{TOOLS[mark.name][0]} is not installed; `make test-tools` installs it"
            if _must_run_all():
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)


def _must_run_all() -> bool:
    return os.environ.get("CI", "").lower() == "true"


@pytest.fixture(scope="session")
def _session_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.stop()


@pytest.fixture
def servers(_session_servers: Servers) -> Servers:
    """The session's real servers, all of them that were started before running again."""
    _session_servers.heal()
    return _session_servers


@pytest.fixture(scope="session")
def _session_rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rgw]:
    rgw = Rgw(tmp_path_factory.mktemp("rgw") / "rgw")
    yield rgw
    rgw.stop()


@pytest.fixture
def rgw(_session_rgw: Rgw) -> Rgw:
    """The session's Ceph RGW, for tests marked needs_ceph; started anew, and empty, where it has died."""
    if not _session_rgw.running:
        _session_rgw.start()
    return _session_rgw


@pytest.fixture
def postgres_dsn(servers: Servers) -> Iterator[str]:
    """URL of a database of this test alone, with the schema and no rows."""
    name = servers.make_database()
    yield servers.postgres.dsn_of(name)
    servers.heal()
    servers.drop_database(name)


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """URL of the session's Valkey, emptied."""
    url = servers.valkey.url
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def s3_backend(servers: Servers) -> S3Backend:
    """The session's SeaweedFS."""
    return servers.s3_backend


@pytest.fixture
def bucket_prefix(servers: Servers, s3_backend: S3Backend) -> Iterator[str]:
    """How names of this test's buckets begin; such buckets are deleted after it."""
    prefix = f"t{uuid.uuid4().hex[:10]}"
    yield prefix
    servers.heal()
    servers.drop_buckets(prefix)


@pytest.fixture
def bucket(servers: Servers, bucket_prefix: str) -> str:
    """An empty bucket of this test alone."""
    name = f"{bucket_prefix}-photos"
    servers.seaweedfs.request("PUT", f"/{name}")
    return name
