"""`safelight events`: bucket events out of MinIO's Redis list and out of SQS, each at least once, and none lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis.asyncio as redis
from botocore.config import Config
from prometheus_client import CollectorRegistry

from gateway.arrivals.intake import Intake
from gateway.arrivals.minio_list import MinioList
from gateway.arrivals.settling import Settler
from gateway.arrivals.sqs_queue import SqsQueue
from gateway.arrivals.tally import Tally
from safelight.embedded import Valkey
from storage.blobs import Blobs
from storage.database import Database
from storage.sqs import Queue, QueueSettings
from tests.clients.moto import Moto
from tests.faults.harness.shim import Shim, Spoil
from tests.integration.hooked import PHOTO, minio_event
from tests.integration.programs import Program
from tests.integration.stage import environment_of, fetch, job_settings, storage_settings, until, value
from tests.photos import padded
from tests.servers import S3Backend, Servers, fetch_value

KEY = "bucketevents"


@dataclass(kw_only=True)
class List:
    """MinIO's side of its Redis target, and ours."""

    client: redis.Redis
    url: str
    database: Database
    blobs: Blobs
    bucket: str
    intake: Intake

    async def push(self, *keys: str) -> None:
        """Objects that MinIO stored, and what it pushed for each."""
        for key in keys:
            await self.blobs.put(self.bucket, key, PHOTO, content_type="image/jpeg")
            record = minio_event(self.bucket, key)["Records"][0]
            entry = json.dumps([{"Event": [record], "EventTime": record["eventTime"]}])
            await self.client.rpush(KEY, entry)  # type: ignore[misc]

    def runner(self) -> MinioList:
        """A runner in this process that counts as dead after a second."""
        return MinioList(self.url, KEY, self.intake, silent_seconds=1)

    async def left(self) -> list[str]:
        """What lies in Redis for us: every key but the runners' signs of life."""
        found = sorted(key.decode() for key in await self.client.keys("*"))
        return [key for key in found if ":alive:" not in key]

    async def recorded(self) -> list[str]:
        rows = await fetch(
            self.database, "select key, (select count(*) from job where object_id = object.id) as jobs from object"
        )
        assert {row["jobs"] for row in rows} <= {2}
        return sorted(row["key"] for row in rows)


@pytest.fixture
async def listed(
    valkey: Valkey, database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[List]:
    """An empty list on a Valkey of this test alone."""
    bucket = f"{bucket_prefix}-photos"
    async with redis.Redis.from_url(valkey.url) as client:
        yield List(
            client=client,
            url=valkey.url,
            database=database,
            blobs=blobs,
            bucket=bucket,
            intake=make_intake(database, blobs, valkey.url, bucket_prefix),
        )


def make_intake(database: Database, blobs: Blobs, redis_url: str, bucket_prefix: str) -> Intake:
    tally = Tally(CollectorRegistry())
    settler = Settler(
        database,
        blobs,
        job_settings(redis_url),
        tally,
        derived_bucket=f"{bucket_prefix}-derived",
        max_upload_bytes=1 << 20,
        concurrency=4,
    )
    return Intake(database, settler, tally)


@contextlib.asynccontextmanager
async def running(runner: MinioList | SqsQueue) -> AsyncIterator[asyncio.Event]:
    """The runner at work, until the block ends."""
    stop = asyncio.Event()
    work = asyncio.create_task(runner.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(work, 30)


@pytest.fixture
def start(
    tmp_path: Path, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str, valkey: Valkey
) -> Iterator[Any]:
    """Starts `safelight events` with options and further settings, on this test's servers."""
    programs: list[Program] = []

    def start_one(*options: str, s3: S3Backend = s3_backend, **more: str) -> Program:
        environment = environment_of(postgres_dsn, valkey.url, s3, bucket_prefix) | {"SAFELIGHT_LOG_FORMAT": "json"}
        environment |= {f"SAFELIGHT_{name.upper()}": text for name, text in more.items()}
        path = tmp_path / f"{len(programs)}-events.log"
        programs.append(Program("events", environment, path, options=options))
        return programs[-1]

    yield start_one
    for program in programs:
        if program.exit_code is None:
            program.kill()


async def until_ended(program: Program) -> int:
    async def ended() -> bool:
        return program.exit_code is not None

    await until(ended, seconds=30, what="the program ends")
    assert program.exit_code is not None
    return program.exit_code


async def test_the_command_empties_minios_list(listed: List, start: Any) -> None:
    """What MinIO pushed before and after the start is recorded once and taken out; what is of no use is set aside; and
    SIGTERM ends it with code 0 and nothing left in Redis."""
    keys = [f"{number} a+b ü.jpg" for number in range(40)]
    await listed.push(*keys[:20])
    await listed.client.rpush(KEY, "useless")  # type: ignore[misc]
    program = start("--source", "minio-redis")

    async def all_there() -> bool:
        return await listed.recorded() == sorted(keys) and await listed.client.llen(KEY) == 0  # type: ignore[misc]

    await listed.push(*keys[20:])
    await until(all_there, seconds=60, what="forty photos")
    assert (
        await value(listed.database, "select origin || ' ' || reason from unusable_message") == "minio-redis not_json"
    )
    program.terminate()
    assert await until_ended(program) == 0
    assert await listed.left() == []


async def test_while_postgres_is_down_events_stay_in_redis(
    listed: List, start: Any, servers: Servers, postgres_dsn: str
) -> None:
    """Nothing is taken out that is not committed: stopped during the outage, the command gives all of it back, and one
    that starts later records it."""
    servers.postgres.kill()
    keys = [f"{number}.jpg" for number in range(50)]
    await listed.push(*keys)
    program = start("--source", "minio-redis")

    async def in_hand() -> bool:
        return bool([key for key in await listed.left() if ":taken:" in key])

    await until(in_hand, seconds=30, what="events are in hand")
    program.terminate()
    assert await until_ended(program) == 0
    assert await listed.left() == [KEY]
    assert await listed.client.llen(KEY) == 50  # type: ignore[misc]
    servers.postgres.start()
    start("--source", "minio-redis")

    async def all_there() -> bool:
        return bool(await fetch_value(postgres_dsn, "select count(*) from object") == 50)

    await until(all_there, seconds=60, what="fifty photos")


async def test_what_a_dead_runner_held_is_done_by_another(listed: List, start: Any, servers: Servers) -> None:
    """Killed with events in hand, they lie in its own list; another runner puts them back once its sign of life has
    ended, and all are recorded once."""
    servers.seaweedfs.suspend()
    record = [minio_event(listed.bucket, f"{number}.jpg")["Records"][0] for number in range(20)]
    for item in record:
        await listed.client.rpush(KEY, json.dumps([{"Event": [item]}]))  # type: ignore[misc]
    program = start("--source", "minio-redis")

    async def in_hand() -> bool:
        return bool([key for key in await listed.left() if ":taken:" in key])

    await until(in_hand, seconds=30, what="events are in hand")
    program.kill()
    servers.seaweedfs.resume()
    for number in range(20):
        await listed.blobs.put(listed.bucket, f"{number}.jpg", PHOTO, content_type="image/jpeg")
    (life,) = await listed.client.keys("*:alive:*")
    await listed.client.pexpire(life, 300)
    async with running(listed.runner()):

        async def all_there() -> bool:
            return len(await listed.recorded()) == 20

        await until(all_there, seconds=30, what="twenty photos")
    assert await listed.left() == []


async def test_a_message_that_cannot_be_settled_lets_the_others_pass(
    listed: List, s3_backend: S3Backend, postgres_dsn: str, bucket_prefix: str
) -> None:
    """While the storage will not give one object, the events before and behind it are all recorded, and its own stays
    in Redis; once the object can be had, it is recorded as well."""
    keys = [f"{number}.jpg" for number in range(40)]
    for key in keys:
        await listed.blobs.put(listed.bucket, key, PHOTO, content_type="image/jpeg")
        await listed.client.rpush(KEY, json.dumps([{"Event": minio_event(listed.bucket, key)["Records"]}]))  # type: ignore[misc]
    async with Shim(s3_backend.endpoint) as shim:
        storage = storage_settings(
            postgres_dsn,
            replace(s3_backend, endpoint=shim.url),
            default_bucket=listed.bucket,
            derived_bucket=f"{bucket_prefix}-derived",
        )
        shim.set(Spoil(act="answer", status=503, code="SlowDown", within="/7.jpg"))
        async with Blobs(storage) as blobs:
            intake = make_intake(listed.database, blobs, listed.url, bucket_prefix)
            async with running(MinioList(listed.url, KEY, intake)):

                async def rest_is_there() -> bool:
                    return await listed.recorded() == sorted(set(keys) - {"7.jpg"})

                await until(rest_is_there, seconds=60, what="the other photos are there")
                assert len(await listed.left()) > 0
                shim.heal()
                await until(lambda: listed_all(listed, keys), seconds=30, what="all photos are there")


async def listed_all(listed: List, keys: list[str]) -> bool:
    return await listed.recorded() == sorted(keys)


async def test_a_runner_is_known_before_it_takes_anything(listed: List) -> None:
    """Whatever a runner holds can be given back when it dies: before the first event leaves the queue, its name is
    among the runners and its sign of life is there, also where it has not beaten yet."""
    runner = listed.runner()
    await listed.client.rpush(KEY, json.dumps([{"Event": minio_event(listed.bucket, "a.jpg")["Records"]}]))  # type: ignore[misc]
    await runner._take()
    assert await listed.client.smembers(f"{KEY}:safelight:runners") == {runner.runner.encode()}  # type: ignore[misc]
    assert await listed.client.exists(f"{KEY}:safelight:alive:{runner.runner}")
    assert await listed.client.llen(f"{KEY}:safelight:taken:{runner.runner}") == 1  # type: ignore[misc]


async def test_an_outage_of_redis_is_outlived(listed: List, valkey: Valkey) -> None:
    """Frozen and released, Redis is read on from where it was."""
    await listed.push("before.jpg")
    async with running(listed.runner()):

        async def has(key: str) -> bool:
            return key in await listed.recorded()

        await until(lambda: has("before.jpg"), seconds=30, what="the first photo")
        valkey.suspend()
        await listed.blobs.put(listed.bucket, "after.jpg", PHOTO, content_type="image/jpeg")
        valkey.resume()
        await listed.push("after.jpg")
        await until(lambda: has("after.jpg"), seconds=30, what="the photo after the outage")


async def test_a_frozen_redis_does_not_keep_it_from_ending(listed: List, start: Any, valkey: Valkey) -> None:
    """Asked to stop while Redis does not answer, the command ends with code 0 within its grace."""
    await listed.push("a.jpg")
    program = start("--source", "minio-redis")

    async def recorded() -> bool:
        return await listed.recorded() == ["a.jpg"]

    await until(recorded, seconds=30, what="the photo")
    valkey.suspend()
    program.terminate()
    assert await until_ended(program) == 0
    valkey.resume()


async def test_a_key_of_another_kind_is_told(listed: List, start: Any, tmp_path: Path) -> None:
    """MinIO's other format makes a hash: the command ends with code 2 and says which setting of MinIO to change."""
    await listed.client.hset(KEY, "photos/a.jpg", "{}")  # type: ignore[misc]
    program = start("--source", "minio-redis")
    assert await until_ended(program) == 2
    assert "MINIO_NOTIFY_REDIS_FORMAT=access" in (tmp_path / "0-events.log").read_text()


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """S3, SNS and SQS that play together."""
    server = Moto(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@dataclass(kw_only=True)
class Cloud:
    """boto3 on moto: a bucket whose events come into a queue, for one half by SNS."""

    s3: Any
    sqs: Any
    bucket: str
    queue_url: str
    backend: S3Backend

    def settings(self) -> QueueSettings:
        return QueueSettings(
            url=self.queue_url,
            endpoint=self.backend.endpoint,
            region="us-east-1",
            access_key="any",
            secret_key="any",
        )

    def counts(self) -> tuple[int, int]:
        """Messages that wait, and those under lease."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def put(self, *keys: str) -> None:
        for key in keys:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=PHOTO)

    def put_in_parts(self, key: str) -> None:
        where = {"Bucket": self.bucket, "Key": key}
        upload = {**where, "UploadId": self.s3.create_multipart_upload(**where)["UploadId"]}
        bodies = {1: padded(PHOTO, 5 << 20), 2: b"the rest"}
        parts = [
            {"PartNumber": number, "ETag": self.s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]}
            for number, body in bodies.items()
        ]
        self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


@pytest.fixture
def cloud(moto: Moto, bucket_prefix: str) -> Cloud:
    """A bucket of its own: `direct/` goes straight to the queue, `topic/` through SNS in its envelope."""
    backend = moto.backend
    s3, sqs, sns = (
        boto3.client(
            name,
            endpoint_url=backend.endpoint,
            aws_access_key_id="any",
            aws_secret_access_key="any",
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )
        for name in ("s3", "sqs", "sns")
    )
    bucket = f"{bucket_prefix}-photos"
    s3.create_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=f"{bucket_prefix}-derived")
    queue_url = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
    topic_arn = sns.create_topic(Name=bucket)["TopicArn"]
    sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=attributes["QueueArn"])

    def under(prefix: str) -> dict[str, Any]:
        return {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}

    events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
    wish = {
        "QueueConfigurations": [
            {"QueueArn": attributes["QueueArn"], "Events": events, "Filter": under("direct/")},
        ],
        "TopicConfigurations": [{"TopicArn": topic_arn, "Events": events, "Filter": under("topic/")}],
    }
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wish)
    return Cloud(s3=s3, sqs=sqs, bucket=bucket, queue_url=queue_url, backend=backend)


async def test_the_command_empties_an_sqs_queue(
    cloud: Cloud, start: Any, database: Database, bucket_prefix: str
) -> None:
    """Plain messages, those in SNS' envelope, test events and the two events of a multipart upload: each object is one
    photo with one set of jobs, a removed one is gone, the queue is empty, and SIGTERM ends it with code 0."""
    keys = [f"{way}/{name}" for way in ("direct", "topic") for name in ("a b.jpg", "a+b.jpg", "a%2Bb.jpg", "ü☃.jpg")]
    await asyncio.to_thread(cloud.put, *keys, "direct/gone.jpg")
    await asyncio.to_thread(cloud.put_in_parts, "topic/big.jpg")
    options = {"sqs_queue_url": cloud.queue_url, "sqs_endpoint": cloud.backend.endpoint}
    program = start("--source", "sqs", s3=cloud.backend, **options)

    async def drained() -> bool:
        return await asyncio.to_thread(cloud.counts) == (0, 0)

    await until(drained, seconds=60, what="the queue is empty")
    await asyncio.to_thread(cloud.s3.delete_object, Bucket=cloud.bucket, Key="direct/gone.jpg")

    async def gone() -> bool:
        return bool(await value(database, "select deleted_at is not null from object where key = 'direct/gone.jpg'"))

    await until(gone, seconds=60, what="the removed one is gone")
    program.terminate()
    assert await until_ended(program) == 0
    rows = await fetch(
        database,
        "select key, (select count(*) from job where object_id = object.id) as jobs from object"
        " where deleted_at is null",
    )
    assert sorted((row["key"], row["jobs"]) for row in rows) == sorted((key, 2) for key in [*keys, "topic/big.jpg"])
    assert await value(database, "select count(*) from unusable_message") == 0


async def test_a_message_is_deleted_only_after_the_commit(
    cloud: Cloud, database: Database, servers: Servers, postgres_dsn: str, redis_url: str, bucket_prefix: str
) -> None:
    """While Postgres is down messages stay under a lease that is prolonged beyond its first end; asked to stop, they
    are given back at once; and the next runner records them."""
    await asyncio.to_thread(cloud.put, *(f"direct/{number}.jpg" for number in range(5)))
    storage = storage_settings(
        postgres_dsn, cloud.backend, default_bucket=cloud.bucket, derived_bucket=f"{bucket_prefix}-derived"
    )
    servers.postgres.kill()
    async with Blobs(storage) as blobs, Queue(cloud.settings()) as queue:
        intake = make_intake(database, blobs, redis_url, bucket_prefix)
        runner = SqsQueue(queue, intake, lease_seconds=2)
        loop = asyncio.get_running_loop()

        async def all_leased() -> bool:
            # The bucket's test events are taken out meanwhile: they tell nothing.
            return await asyncio.to_thread(cloud.counts) == (0, 5)

        async with running(runner):
            await until(all_leased, seconds=30, what="all are under lease")
            first_end = loop.time() + 3 * 2
            while loop.time() < first_end:
                assert await all_leased()
                await asyncio.sleep(0.1)
        assert await asyncio.to_thread(cloud.counts) == (5, 0)
        servers.postgres.start()
        async with running(runner):

            async def done() -> bool:
                counts = await asyncio.to_thread(cloud.counts)
                return counts == (0, 0) and await value(database, "select count(*) from object") == 5

            await until(done, seconds=30, what="five photos")


async def test_an_sqs_message_that_cannot_be_settled_is_given_back(
    cloud: Cloud, database: Database, postgres_dsn: str, redis_url: str, bucket_prefix: str
) -> None:
    """While the storage will not give six objects (there are four loops), the events of sixty others are recorded all
    the same, and the six messages are still in the queue; once the objects can be had, they are recorded as well."""
    async with Shim(cloud.backend.endpoint) as shim:
        storage = storage_settings(
            postgres_dsn,
            replace(cloud.backend, endpoint=shim.url),
            default_bucket=cloud.bucket,
            derived_bucket=f"{bucket_prefix}-derived",
        )
        shim.set(Spoil(act="answer", status=503, code="SlowDown", within="stuck"))
        await asyncio.to_thread(cloud.put, *(f"direct/stuck-{number}.jpg" for number in range(6)))
        await asyncio.to_thread(cloud.put, *(f"direct/{number}.jpg" for number in range(60)))

        async def recorded(count: int) -> bool:
            return await value(database, "select count(*) from object") == count

        async with Blobs(storage) as blobs, Queue(cloud.settings()) as queue:
            intake = make_intake(database, blobs, redis_url, bucket_prefix)
            async with running(SqsQueue(queue, intake, lease_seconds=3, stuck_seconds=1)):
                await until(lambda: recorded(60), seconds=60, what="the others are recorded")
                assert sum(await asyncio.to_thread(cloud.counts)) >= 6
                shim.heal()
                await until(lambda: recorded(66), seconds=60, what="all are recorded")


async def test_a_queue_that_is_not_there_is_told(start: Any, moto: Moto, tmp_path: Path) -> None:
    """A wrong address ends the command with code 2 and a sentence; so does none."""
    for options in ({"sqs_queue_url": f"{moto.backend.endpoint}/123456789012/none"}, {}):
        program = start("--source", "sqs", s3=moto.backend, sqs_endpoint=moto.backend.endpoint, **options)
        assert await until_ended(program) == 2
    said = [(tmp_path / f"{number}-events.log").read_text() for number in range(2)]
    assert "There is no queue" in said[0]
    assert "SAFELIGHT_SQS_QUEUE_URL is not set" in said[1]
