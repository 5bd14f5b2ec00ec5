"""A folder of photos by `rclone copy` and by `aws s3 sync` through the S3 door, with a worker behind it: one object,
one row and one set of previews each, and a second time nothing.

SAFELIGHT_TEST_PHOTOS=1000 in the environment for the full size.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.clients import installed
from tests.clients.conftest import make_surroundings
from tests.clients.door import Certificates, Door, Surroundings
from tests.clients.program import Program as Client
from tests.integration.programs import Program
from tests.photos import Exif, make_jpeg
from tests.servers import Servers, run_apart

COUNT = int(os.environ.get("SAFELIGHT_TEST_PHOTOS") or 100)
DERIVED = "many-derived"
PRESETS = ("thumb.webp", "preview.jpg")
SETTLE_SECONDS = 60 + COUNT * 0.5

# (client, by TLS, bucket, what is typed)
Sync = tuple[str, bool, str, Callable[[str, str], tuple[str, ...]]]
SYNCS: tuple[Sync, ...] = (
    ("rclone", False, "many-rclone", lambda folder, bucket: ("copy", folder, f"s:{bucket}/roll 1")),
    ("aws-cli", True, "many-aws", lambda folder, bucket: ("s3", "sync", folder, f"s3://{bucket}/roll 1")),
)


@pytest.fixture(scope="module")
def around(_session_servers: Servers) -> Iterator[Surroundings]:
    with make_surroundings(_session_servers, derived_bucket=DERIVED) as made:
        yield made


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, around: Surroundings, storage: Any) -> Iterator[Program]:
    storage.create_bucket(Bucket=DERIVED)
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    started = Program("worker", {**around.environment(), "SAFELIGHT_REDIS_STREAM": "many"}, log)
    yield started
    started.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COUNT photos, no two alike, in folders with names as people give them."""
    made = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        path = made / f"Été {number % 7}" / f"IMG {number:04}.jpg"
        path.parent.mkdir(exist_ok=True)
        exif = Exif(iso=100 + number)
        path.write_bytes(make_jpeg(160, 120, exif=exif, noise=30, seed=number))
    return made


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sync", SYNCS, ids=[name for name, *_ in SYNCS])
def test_every_photo_once(
    sync: Sync,
    folder: Path,
    around: Surroundings,
    worker: Program,
    storage: Any,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    """As many objects, rows and sets of previews as files, every job done at its first attempt; the same again copies
    nothing and makes nothing."""
    name, by_tls, bucket, command = sync
    if missing := installed.missing(name):
        pytest.fail(missing, pytrace=False)
    door = Door(tmp_path / "door", around, certificates if by_tls else None)
    try:
        client: Any = installed.open_client(name, door.endpoint, tmp_path)
        storage.create_bucket(Bucket=bucket)
        began_at = time.monotonic()
        _run(client, command(str(folder), bucket))
        copied_at = time.monotonic()
        _wait_until_settled(around, worker)
        settled_at = time.monotonic()
        keys = {f"roll 1/{path.relative_to(folder)}" for path in folder.rglob("*.jpg")}
        objects, previews = _listed(storage, bucket), _listed(storage, DERIVED, f"{bucket}/")
        assert objects.keys() == keys
        assert previews.keys() == {f"{bucket}/{key}/{preset}" for key in keys for preset in PRESETS}
        once = _count(around, bucket)
        assert once == {
            "objects": COUNT,
            "jobs": 2 * COUNT,
            "attempts": 2 * COUNT,
            "artifacts": 2 * COUNT,
            "facts": COUNT,
        }
        again_at = time.monotonic()
        _run(client, command(str(folder), bucket))
        print(
            f"{name}: {COUNT} photos copied in {copied_at - began_at:.1f} s, previewed {settled_at - copied_at:.1f} s "
            f"later, compared again in {time.monotonic() - again_at:.1f} s"
        )
        assert (_listed(storage, bucket), _listed(storage, DERIVED, f"{bucket}/")) == (objects, previews)
        assert _count(around, bucket) == once
    finally:
        print(f"--- the door's log, at its end:\n{door.log}")
        door.stop()


def _run(client: Client, arguments: tuple[str, ...]) -> None:
    client.run(*arguments, seconds=600)


def _listed(storage: Any, bucket: str, prefix: str = "") -> dict[str, tuple[Any, ...]]:
    pages = storage.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    items = (item for page in pages for item in page.get("Contents", []))
    return {item["Key"]: (item["ETag"], item["Size"], item["LastModified"]) for item in items}


def _wait_until_settled(around: Surroundings, worker: Program) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while _fetch(around, "select count(*) from job where state in ('ready', 'running')")[0][0]:
        assert worker.exit_code is None, "the worker has ended"
        assert time.monotonic() < deadline, _fetch(around, "select state, count(*) from job group by state")
        time.sleep(0.2)


def _count(around: Surroundings, bucket: str) -> dict[str, int]:
    """Of everything that there is, superseded and failed ones too."""
    row = _fetch(
        around,
        """
        with mine as (select id from object where bucket = $1)
        select (select count(*) from mine) as objects,
               (select count(*) from job where object_id in (select id from mine) and outcome = 'ok') as jobs,
               (select count(*) from job_attempt join job on job.id = job_id where object_id in (select id from mine))
                   as attempts,
               (select count(*) from artifact where object_id in (select id from mine)) as artifacts,
               (select count(*) from facts where object_id in (select id from mine) and processor = 'exif') as facts
        """,
        bucket,
    )[0]
    return dict(row)


def _fetch(around: Surroundings, statement: str, *arguments: object) -> list[Any]:
    async def fetch() -> list[Any]:
        connection = await asyncpg.connect(around.postgres_dsn)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    return run_apart(fetch())
