"""SNS over HTTP at the hook: believed by its signature alone, its certificate fetched from allowed places only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import boto3
import pytest
from aiohttp.test_utils import TestClient
from botocore.config import Config

from gateway.app import create_app
from gateway.settings import GatewaySettings
from storage import credentials
from storage.blobs import Blobs
from storage.database import Database
from tests.clients.moto import Moto
from tests.integration.hooked import PHOTO, TOKEN, Hooked
from tests.integration.sns import TOPIC, PlayedTopic, playing, relaying
from tests.integration.stage import fetch, in_transaction, job_settings, storage_settings
from tests.photos import padded
from tests.servers import S3Backend
from tests.unit.events.shapes import aws_sqs


@pytest.fixture
async def topic() -> AsyncIterator[PlayedTopic]:
    """A topic played by this test."""
    async with playing() as played:
        yield played


@pytest.fixture
async def hooked(
    aiohttp_client: Any,
    redis_url: str,
    database: Database,
    blobs: Blobs,
    postgres_dsn: str,
    s3_backend: S3Backend,
    bucket_prefix: str,
    topic: PlayedTopic,
) -> AsyncIterator[Hooked]:
    """A gateway that listens to that topic, and knows a token besides."""
    settings = GatewaySettings(
        hook_token=TOKEN, hook_sns_topics=TOPIC, hook_sns_origins=topic.origin, reconcile_interval_seconds=0
    )
    bucket = f"{bucket_prefix}-photos"
    storage = storage_settings(
        postgres_dsn, s3_backend, default_bucket=bucket, derived_bucket=f"{bucket_prefix}-derived"
    )
    credential = credentials.generate()
    await in_transaction(database, partial(credentials.create, credential=credential, name="t", scopes=["read"]))
    client: TestClient[Any, Any] = await aiohttp_client(create_app(settings, job_settings(redis_url), storage))
    yield Hooked(client=client, credential=credential, database=database, blobs=blobs, bucket=bucket)
    await client.close()


def message(hooked: Hooked, key: str) -> str:
    document = json.loads(aws_sqs(key, "created"))
    document["Records"][0]["s3"]["bucket"]["name"] = hooked.bucket
    return json.dumps(document)


async def test_a_signed_notification_is_taken(hooked: Hooked, topic: PlayedTopic) -> None:
    """A genuine envelope needs no token, its photo is recorded, and ten of them fetch the certificate once."""
    for number in range(10):
        await hooked.put(f"{number} a+b.jpg")
    envelopes = [topic.notification(message(hooked, f"{number} a+b.jpg")) for number in range(10)]
    await asyncio.gather(*(hooked.tells(item, token=None) for item in envelopes))
    assert sorted(key for key, *_ in await hooked.state()) == [f"{number} a+b.jpg" for number in range(10)]
    assert topic.certificates_served == 1


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_what_is_not_genuine_is_refused(hooked: Hooked, topic: PlayedTopic, token: str | None) -> None:
    """Altered, foreign, unsigned and old envelopes, and those whose certificate or confirmation lies elsewhere, are 401
    with or without a token, fetch nothing, and leave no row."""
    await hooked.put("a.jpg")
    text = message(hooked, "a.jpg")
    good = topic.notification(text)
    port = topic.origin.rpartition(":")[2]
    forged = {
        "certificate_url_not_allowed": topic.notification(
            text, SigningCertURL=f"http://localhost:{port}/SimpleNotificationService-1.pem"
        ),
        "topic_not_allowed": topic.notification(text, TopicArn=TOPIC + "x"),
        "old": topic.notification(text, Timestamp="2020-01-01T00:00:00.000Z"),
        "unknown_signature_version": good | {"SignatureVersion": "9"},
        "subscribe_url_not_allowed": topic.confirmation(SubscribeURL="http://169.254.169.254/latest/meta-data"),
    }
    for reason, envelope in forged.items():
        assert (await hooked.tell(envelope, token=token)).status == 401, reason
        assert await hooked.metric("safelight_bucket_event_requests_refused_total", reason=reason) == 1
    assert (topic.certificates_served, topic.confirmed) == (0, [])
    for envelope in (good | {"Message": text.replace("a.jpg", "b.jpg")}, good | {"Signature": "RkFLRQ=="}):
        assert (await hooked.tell(envelope, token=token)).status == 401
    assert await hooked.metric("safelight_bucket_event_requests_refused_total", reason="bad_signature") == 2
    assert await hooked.state() == []
    await hooked.tells(good, token=None)
    assert len(await hooked.state()) == 1


async def test_a_subscription_is_confirmed_once_it_is_genuine(hooked: Hooked, topic: PlayedTopic) -> None:
    """The checked address is asked for a genuine confirmation only; an end of the subscription asks nothing."""
    genuine = topic.confirmation()
    assert (await hooked.tell(genuine | {"Token": "other"}, token=None)).status == 401
    assert topic.confirmed == []
    await hooked.tells(genuine, token=None)
    assert topic.confirmed == [genuine["Token"]]
    await hooked.tells(topic.confirmation("UnsubscribeConfirmation"), token=None)
    assert topic.confirmed == [genuine["Token"]]


async def test_while_sns_cannot_be_asked_it_is_told_to_come_again(hooked: Hooked, topic: PlayedTopic) -> None:
    """Without the certificate nothing is believed or refused: 503 with Retry-After, and taken when told again."""
    await hooked.put("a.jpg")
    topic.is_down = True
    envelope = topic.notification(message(hooked, "a.jpg"))
    answer = await hooked.tell(envelope, token=None)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    assert await hooked.state() == []
    topic.is_down = False
    await hooked.tells(envelope, token=None)
    assert len(await hooked.state()) == 1


async def test_a_strangers_slow_certificate_holds_up_nobody(hooked: Hooked, topic: PlayedTopic) -> None:
    """While an envelope of somebody who knows the topic's name waits for the certificate that it names, genuine ones
    are taken; and an address without a certificate is asked once, however often it is named."""
    await hooked.put("a.jpg")
    text = message(hooked, "a.jpg")
    forged = topic.notification(text, SigningCertURL=f"{topic.origin}/slow.pem") | {"Signature": "RkFLRQ=="}
    waiting = asyncio.create_task(hooked.tell(forged, token=None))
    await topic.slow_asked.wait()
    await hooked.tells(topic.notification(text), token=None)
    assert not waiting.done()
    topic.slow_goes_on.set()
    assert (await waiting).status == 401
    absent = topic.notification(text, SigningCertURL=f"{topic.origin}/absent.pem")
    assert [(await hooked.tell(absent, token=None)).status for _ in range(3)] == [503] * 3
    assert topic.absent_asked == 1


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """S3 and SNS that play together."""
    server = Moto(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


def clients_of(backend: S3Backend) -> tuple[Any, Any]:
    """boto3 on moto: S3 and SNS."""
    return tuple(  # type: ignore[return-value]
        boto3.client(
            name,
            endpoint_url=backend.endpoint,
            aws_access_key_id=backend.access_key,
            aws_secret_access_key=backend.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )
        for name in ("s3", "sns")
    )


def write_to_moto(s3: Any, bucket: str, keys: list[str]) -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=PHOTO)
    big = {"Bucket": bucket, "Key": "big.jpg"}
    upload = {**big, "UploadId": s3.create_multipart_upload(**big)["UploadId"]}
    bodies = {1: padded(PHOTO, 5 << 20), 2: b"the rest"}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]}
        for number, body in bodies.items()
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


async def test_motos_s3_tells_motos_sns_tells_us(
    aiohttp_client: Any, redis_url: str, database: Database, postgres_dsn: str, moto: Moto, bucket_prefix: str
) -> None:
    """Objects that boto3 puts into moto, keys of all kinds and a multipart upload with its two events, become photos
    through moto's own SNS and its genuine signatures, each with one set of jobs."""
    bucket, keys = f"{bucket_prefix}-photos", ["a b.jpg", "a+b.jpg", "a%2Bb.jpg", "ü☃.jpg", "d/e//f.jpg"]
    storage = storage_settings(
        postgres_dsn, moto.backend, default_bucket=bucket, derived_bucket=f"{bucket_prefix}-derived"
    )
    s3, sns = clients_of(moto.backend)
    topic_arn = (await asyncio.to_thread(sns.create_topic, Name=bucket_prefix))["TopicArn"]
    async with relaying(moto.backend.endpoint) as relay:
        settings = GatewaySettings(
            hook_sns_topics=topic_arn, hook_sns_origins=relay.origin, reconcile_interval_seconds=0
        )
        client: TestClient[Any, Any] = await aiohttp_client(create_app(settings, job_settings(redis_url), storage))
        relay.hook_url = str(client.make_url("/hooks/bucket-events"))
        await asyncio.to_thread(s3.create_bucket, Bucket=bucket)
        await asyncio.to_thread(sns.subscribe, TopicArn=topic_arn, Protocol="http", Endpoint=relay.origin + "/")
        wish = {"TopicConfigurations": [{"TopicArn": topic_arn, "Events": ["s3:ObjectCreated:*"]}]}
        await asyncio.to_thread(s3.put_bucket_notification_configuration, Bucket=bucket, NotificationConfiguration=wish)
        await asyncio.to_thread(write_to_moto, s3, bucket, keys)
        assert relay.statuses == [200] * (1 + len(keys) + 2)  # the test event first, two for the multipart upload
        await client.close()
    rows = await fetch(
        database, "select key, (select count(*) from job where object_id = object.id) as jobs from object order by key"
    )
    assert [(row["key"], row["jobs"]) for row in rows] == sorted((key, 2) for key in [*keys, "big.jpg"])
