"""Photos that a plain S3 client writes straight to SeaweedFS, to Ceph or to moto (with its SNS and SQS) become photos
of ours: all of them, and once.

EVENT_OBJECTS=500 says how many; fewer are written where it is not set.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from safelight.embedded import SeaweedFS
from safelight.embedded.folder import choose_port
from storage.database import Database
from tests.clients.moto import Moto
from tests.integration.hooked import TOKEN
from tests.integration.programs import Stage
from tests.integration.sns import relaying
from tests.integration.stage import environment_of, until, value
from tests.integration.straight import OBJECTS, Site, client, make_keys, make_photo
from tests.rgw import Rgw
from tests.servers import S3Backend

Open = Callable[[S3Backend], Awaitable[Site]]
RECONCILING = {
    "reconcile_interval_seconds": "0.1",
    "reconcile_grace_seconds": "0",
    "reconcile_pass_seconds": "1",
}


@pytest.fixture
async def open_site(
    tmp_path: Path, database: Database, postgres_dsn: str, redis_url: str, bucket_prefix: str
) -> AsyncIterator[Open]:
    """Opens a Safelight on that storage; its programs end with the test."""
    stages: list[Stage] = []

    async def open_one(backend: S3Backend) -> Site:
        environment = environment_of(postgres_dsn, redis_url, backend, bucket_prefix)
        stages.append(Stage(tmp_path, environment | {"SAFELIGHT_LOG_FORMAT": "json", "SAFELIGHT_WORKER_SLOTS": "2"}))
        s3, bucket = client(backend), f"{bucket_prefix}-photos"
        for name in (bucket, f"{bucket_prefix}-derived"):
            await asyncio.to_thread(s3.create_bucket, Bucket=name)
        return Site(stage=stages[-1], database=database, s3=s3, bucket=bucket, folder=tmp_path)

    yield open_one
    for stage in stages:
        stage.end()


@pytest.fixture
def seaweedfs(tmp_path: Path) -> Iterator[SeaweedFS]:
    """A SeaweedFS of this test alone, not started: where it pushes to is told first."""
    server = SeaweedFS(tmp_path / "seaweedfs")
    yield server
    server.kill()


def backend_of(server: SeaweedFS) -> S3Backend:
    return S3Backend(endpoint=server.url, access_key=server.access_key, secret_key=server.secret_key)


async def write_half_by_our_door(site: Site, keys: list[str]) -> None:
    """Every object by the plain client; every second one by our own door as well, at the same time."""
    photos = [(key, make_photo(number)) for number, key in enumerate(keys)]
    ours = [item for item in photos[::2] if "//" not in item[0]]  # REST takes no such key
    await asyncio.gather(site.write(photos), site.upload(ours))


async def test_seaweedfs_pushes_and_every_photo_is_there_once(open_site: Open, seaweedfs: SeaweedFS) -> None:
    """Through the filer's webhook: keys of all kinds, every second one also uploaded by our own door."""
    port = await _start_pushing(seaweedfs)
    site = await open_site(backend_of(seaweedfs))
    site.port = port
    await site.start_gateway()
    site.stage.start_worker()
    keys = make_keys(OBJECTS, doubled_slashes=False)
    await write_half_by_our_door(site, keys)
    await site.until_ready(keys, seconds=60 + OBJECTS)
    assert await value(site.database, "select count(*) from unusable_message") == 0


async def test_seaweedfs_loses_events_and_reconcile_finds_their_photos(open_site: Open, seaweedfs: SeaweedFS) -> None:
    """While the gateway is killed half of them are written, and the storage is killed with what it wanted to tell; with
    both back, every photo is there once."""
    port = await _start_pushing(seaweedfs)
    site = await open_site(backend_of(seaweedfs))
    site.port = port
    await site.start_gateway()
    site.stage.start_worker()
    keys = make_keys(OBJECTS, doubled_slashes=False)
    photos = [(key, make_photo(number)) for number, key in enumerate(keys)]
    await site.write(photos[: OBJECTS // 2])
    assert site.gateway is not None
    site.gateway.kill()
    await site.write(photos[OBJECTS // 2 :])
    seaweedfs.kill()
    seaweedfs.start()
    await site.start_gateway(**RECONCILING)
    await site.until_ready(keys, seconds=60 + OBJECTS)


async def _start_pushing(server: SeaweedFS) -> int:
    port = choose_port()
    server.push_events(f"http://127.0.0.1:{port}/hooks/bucket-events", TOKEN)
    server.start()
    return port


def set_up_ceph(site: Site, backend: S3Backend, prefix: str, *options: str) -> None:
    """As an administrator does: `safelight setup bucket`."""
    environment = {
        "PATH": os.defpath,
        "SAFELIGHT_S3_ENDPOINT": backend.endpoint,
        "SAFELIGHT_S3_ACCESS_KEY": backend.access_key,
        "SAFELIGHT_S3_SECRET_KEY": backend.secret_key,
        "SAFELIGHT_DERIVED_BUCKET": f"{prefix}-derived",
        "SAFELIGHT_HOOK_TOKEN": TOKEN,
    }
    command = [sys.executable, "-m", "safelight", "setup", "bucket", site.bucket, "--url", site.hook_url, *options]
    subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)


@pytest.mark.needs_ceph
async def test_ceph_pushes_and_every_photo_is_there_once(open_site: Open, rgw: Rgw, bucket_prefix: str) -> None:
    """Pushed while the client waits: keys of all kinds, `//` too, every second one also uploaded by our own door."""
    site = await open_site(rgw.backend)
    set_up_ceph(site, rgw.backend, bucket_prefix, "--at-once")
    await site.start_gateway()
    site.stage.start_worker()
    keys = make_keys(OBJECTS, doubled_slashes=True)
    await write_half_by_our_door(site, keys)
    await site.until_ready(keys, seconds=60 + OBJECTS)
    assert await value(site.database, "select count(*) from unusable_message") == 0


@pytest.mark.needs_ceph
async def test_ceph_loses_events_and_reconcile_finds_their_photos(
    open_site: Open, rgw: Rgw, bucket_prefix: str
) -> None:
    """Ceph forgets what it cannot push at once: with the gateway killed for half of them every photo is there once in
    the end, `//` in its key or not."""
    site = await open_site(rgw.backend)
    set_up_ceph(site, rgw.backend, bucket_prefix, "--at-once")
    await site.start_gateway()
    site.stage.start_worker()
    keys = make_keys(OBJECTS, doubled_slashes=True)
    photos = [(key, make_photo(number)) for number, key in enumerate(keys)]
    await site.write(photos[: OBJECTS // 2])
    assert site.gateway is not None
    site.gateway.kill()
    await site.write(photos[OBJECTS // 2 :])
    await site.start_gateway(**RECONCILING)
    await site.until_ready(keys, seconds=60 + OBJECTS)


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    """S3, SNS and SQS that play together, for this test alone."""
    server = Moto(tmp_path)
    yield server
    server.stop()


async def notify(site: Site, **wish: Any) -> None:
    document = {name: [{**item, "Events": ["s3:ObjectCreated:*"]}] for name, item in wish.items()}
    put = partial(site.s3.put_bucket_notification_configuration, NotificationConfiguration=document)
    await asyncio.to_thread(put, Bucket=site.bucket)


async def test_sns_pushes_and_every_photo_is_there_once(open_site: Open, moto: Moto) -> None:
    """Over moto's SNS and its genuine signatures: keys of all kinds, `//` too, every second one also uploaded by our
    own door; each with its previews and its facts."""
    site, sns = await open_site(moto.backend), client(moto.backend, "sns")
    topic_arn = (await asyncio.to_thread(sns.create_topic, Name=site.bucket))["TopicArn"]
    async with relaying(moto.backend.endpoint) as relay:
        relay.hook_url = site.hook_url
        await site.start_gateway(hook_sns_topics=topic_arn, hook_sns_origins=relay.origin)
        site.stage.start_worker()
        await asyncio.to_thread(sns.subscribe, TopicArn=topic_arn, Protocol="http", Endpoint=relay.origin + "/")
        await notify(site, TopicConfigurations={"TopicArn": topic_arn})
        keys = make_keys(OBJECTS, doubled_slashes=True)
        await write_half_by_our_door(site, keys)
        await site.until_ready(keys, seconds=60 + OBJECTS)
        assert set(relay.statuses) == {200}
    assert await value(site.database, "select count(*) from unusable_message") == 0


async def test_sqs_is_emptied_by_readers_that_are_killed(open_site: Open, moto: Moto) -> None:
    """Out of moto's SQS by two `safelight events`, one of which is killed with messages in hand: keys of all kinds,
    every second one also uploaded by our own door; the queue is empty once the leases of the dead one have ended."""
    site, sqs = await open_site(moto.backend), client(moto.backend, "sqs")
    queue_url = (await asyncio.to_thread(sqs.create_queue, QueueName=site.bucket))["QueueUrl"]

    async def ask(*names: str) -> list[str]:
        answer = await asyncio.to_thread(sqs.get_queue_attributes, QueueUrl=queue_url, AttributeNames=list(names))
        return [answer["Attributes"][name] for name in names]

    (arn,) = await ask("QueueArn")
    await notify(site, QueueConfigurations={"QueueArn": arn})
    await site.start_gateway()
    site.stage.start_worker()
    keys = make_keys(OBJECTS, doubled_slashes=True)
    await write_half_by_our_door(site, keys)
    reading = partial(site.stage.start, "events", "--source", "sqs", sqs_queue_url=queue_url)
    reading = partial(reading, sqs_endpoint=moto.backend.endpoint)
    doomed = reading()

    async def has_some_in_hand() -> bool:
        return await ask("ApproximateNumberOfMessagesNotVisible") != ["0"]

    await until(has_some_in_hand, seconds=60, what="messages are in hand")
    doomed.kill()
    assert await has_some_in_hand()
    reading()

    async def is_empty() -> bool:
        return await ask("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible") == ["0", "0"]

    await until(is_empty, seconds=120 + OBJECTS, what="the queue is empty")
    await site.until_ready(keys, seconds=60 + OBJECTS)
    assert await value(site.database, "select count(*) from unusable_message") == 0


@pytest.mark.needs_ceph
async def test_ceph_tells_of_removals(open_site: Open, rgw: Rgw, bucket_prefix: str) -> None:
    """An object that a plain client deletes is no photo any more when its client is answered."""
    site = await open_site(rgw.backend)
    set_up_ceph(site, rgw.backend, bucket_prefix, "--at-once")
    await site.start_gateway()
    await site.write([("a b//+.jpg", make_photo(1))])
    assert await value(site.database, "select count(*) from object where deleted_at is null") == 1
    await asyncio.to_thread(site.s3.delete_object, Bucket=site.bucket, Key="a b//+.jpg")
    assert await value(site.database, "select count(*) from object where deleted_at is null") == 0
