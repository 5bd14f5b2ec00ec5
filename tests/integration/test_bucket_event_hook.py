"""POST /hooks/bucket-events on real servers: whom it believes, what it makes of events, and what it answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from structlog.testing import capture_logs

from gateway import ingest
from gateway.app import create_app
from gateway.arrivals.receiving import HOOK, MAX_BODY_BYTES
from gateway.arrivals.settling import SETTLE_SECONDS, TURN_SECONDS
from gateway.settings import GatewaySettings
from processors.hooks import parse_hooks
from safelight.embedded import SeaweedFS, Server
from storage import credentials, failpoints
from storage.blobs import Blobs
from storage.database import Database
from tests.faults.harness.shim import Shim, Spoil
from tests.integration.hooked import OTHER_PHOTO, PHOTO, TOKEN, Hooked, minio_event
from tests.integration.stage import fetch, in_transaction, job_settings, storage_settings, until, value
from tests.servers import S3Backend, Servers
from tests.unit.events.shapes import SEQUENCER, SHAPES, ceph_push, dump, records

Open = Callable[..., Awaitable[Hooked]]


@pytest.fixture
async def open_hook(
    aiohttp_client: Any,
    redis_url: str,
    database: Database,
    blobs: Blobs,
    postgres_dsn: str,
    s3_backend: S3Backend,
    bucket_prefix: str,
) -> AsyncIterator[Open]:
    """Opens a gateway with the given settings (hooks: those of processing), on the session's servers."""
    bucket = f"{bucket_prefix}-photos"
    storage = storage_settings(
        postgres_dsn, s3_backend, default_bucket=bucket, derived_bucket=f"{bucket_prefix}-derived"
    )

    async def open_one(*, hooks: str = "*", s3_endpoint: str = s3_backend.endpoint, **settings: Any) -> Hooked:
        credential = credentials.generate()
        make = partial(credentials.create, credential=credential, name="test", scopes=["read", "write", "admin"])
        await in_transaction(database, make)
        # Reconciling would come to the same end by itself.
        wanted = GatewaySettings(**{"hook_token": TOKEN, "reconcile_interval_seconds": 0, **settings})
        jobs = job_settings(redis_url, hooks=parse_hooks(hooks))
        app = create_app(wanted, jobs, replace(storage, s3_endpoint=s3_endpoint))
        clients.append(await aiohttp_client(app))
        return Hooked(client=clients[-1], credential=credential, database=database, blobs=blobs, bucket=bucket)

    clients: list[TestClient[Any, Any]] = []
    yield open_one
    for client in clients:  # before the servers that it uses
        await client.close()


async def test_what_was_written_to_the_bucket_becomes_a_photo_before_the_answer(open_hook: Open) -> None:
    """When the hook answers 200 with nothing in it, the photo's row and both its jobs are committed, as the storage has
    the object: not as the event said."""
    hooked = await open_hook()
    etag = await hooked.put("2026/my cat+dog.jpg")
    await hooked.tells(minio_event(hooked.bucket, "2026/my cat+dog.jpg", etag="0" * 32))
    assert await hooked.state() == [("2026/my cat+dog.jpg", etag, False, False, 2)]
    (row,) = await fetch(hooked.database, "select size_bytes, content_type, filename from object")
    assert tuple(row.values()) == (len(PHOTO), "image/jpeg", "my cat+dog.jpg")
    assert await hooked.metric("safelight_bucket_events_total", source="minio", outcome="recorded") == 1
    assert await hooked.metric("safelight_bucket_events_last_timestamp_seconds", source="minio") > 1.7e9


async def test_the_same_event_a_hundred_times_is_one_photo(open_hook: Open) -> None:
    """A hundred copies, ten at a time and a hundred in one body, make one object with one set of jobs."""
    hooked = await open_hook()
    etag = await hooked.put("a.jpg")
    event = minio_event(hooked.bucket, "a.jpg", etag=etag)
    for _ in range(10):
        await asyncio.gather(*(hooked.tells(event) for _ in range(10)))
    await hooked.tells(records(*event["Records"] * 100))
    assert await hooked.state() == [("a.jpg", etag, False, False, 2)]
    assert await hooked.metric("safelight_bucket_events_total", source="minio", outcome="recorded") == 1
    assert await hooked.metric("safelight_bucket_events_total", source="minio", outcome="known") == 199


async def test_a_photo_of_our_own_door_and_its_event_are_one(open_hook: Open) -> None:
    """Twenty photos by REST, each with its event told before, during or after, are twenty objects with forty jobs."""
    hooked = await open_hook()
    etag = await hooked.put("0.jpg")

    async def upload(number: int) -> None:
        path = f"/v1/photos/{hooked.bucket}/{number}.jpg"
        headers = {"Authorization": f"Bearer {hooked.credential.token}"}
        answer = await hooked.client.put(path, data=PHOTO, headers=headers)
        assert answer.status == 201, await answer.text()

    async def told(number: int) -> None:
        await hooked.tells(minio_event(hooked.bucket, f"{number}.jpg", etag=etag if number % 2 else "0" * 32))

    await asyncio.gather(*(work(number) for number in range(20) for work in (told, upload, told)))
    await asyncio.gather(*map(told, range(20)))
    assert sorted(await hooked.state()) == sorted((f"{n}.jpg", etag, False, False, 2) for n in range(20))


async def test_overwritten_copied_completed_and_removed_are_understood(open_hook: Open) -> None:
    """Another photo supersedes the first; a copy and a completed multipart upload are photos; a removal that the
    storage confirms marks the photo as deleted and discards its jobs."""
    hooked = await open_hook()
    first = await hooked.put("a.jpg")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=first))
    second = await hooked.put("a.jpg", OTHER_PHOTO)
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=second, sequencer="17F1C0A1B2C3D4E6"))
    assert await hooked.state() == [("a.jpg", first, True, False, 2), ("a.jpg", second, False, False, 2)]
    for name in ("Copy", "CompleteMultipartUpload", "Post"):
        etag = await hooked.put(f"{name}.jpg")
        await hooked.tells(minio_event(hooked.bucket, f"{name}.jpg", etag=etag, name=f"s3:ObjectCreated:{name}"))
    await hooked.blobs.delete(hooked.bucket, "a.jpg")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", "removed", sequencer="17F1C0A1B2C3D4E7"))
    state = await hooked.state()
    assert [(key, deleted) for key, _, _, deleted, _ in state if key != "a.jpg"] == [
        ("CompleteMultipartUpload.jpg", False),
        ("Copy.jpg", False),
        ("Post.jpg", False),
    ]
    assert ("a.jpg", second, False, True, 2) in state
    assert await value(hooked.database, "select count(*) from job where state = 'discarded'") == 2
    assert await hooked.metric("safelight_bucket_events_total", source="minio", outcome="removed") == 1


async def test_a_removal_that_the_storage_does_not_confirm_removes_nothing(open_hook: Open) -> None:
    """A removal told of an object that is there, late or forged, leaves its photo; told of one that Postgres does not
    know yet, it makes it known."""
    hooked = await open_hook()
    etag = await hooked.put("a.jpg")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=etag))
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", "removed"))
    assert await hooked.state() == [("a.jpg", etag, False, False, 2)]
    assert await hooked.metric("safelight_bucket_events_total", source="minio", outcome="known") == 1


async def test_a_bucket_that_is_gone_is_no_removal(open_hook: Open) -> None:
    """Where the whole bucket answers 404, a removal is not believed: it may be the wrong storage."""
    hooked = await open_hook()
    await hooked.put("a.jpg")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg"))
    async with hooked.database.connection() as conn:
        await conn.execute("update object set bucket = 'never-there'")
    await hooked.tells(minio_event("never-there", "a.jpg", "removed"))
    assert [deleted for *_, deleted, _ in await hooked.state()] == [False]
    assert await hooked.metric("safelight_bucket_events_ignored_total", reason="bucket_missing") == 1


async def test_what_does_not_concern_us_leaves_no_row(open_hook: Open, bucket_prefix: str) -> None:
    """Events of the bucket of previews, of places that nobody watches, of what is no photo and of kinds that we do not
    want are answered 200, counted by reason, and leave no row."""
    hooked = await open_hook(hooks="*,*/scratch/:none")
    await hooked.put("scratch/a.jpg")
    await hooked.put("notes.txt", b"not a photo")
    await hooked.put("empty.jpg", b"")
    await hooked.blobs.put(f"{bucket_prefix}-derived", "p/a.jpg/thumb.webp", PHOTO, content_type="image/webp")
    await hooked.tells(minio_event(f"{bucket_prefix}-derived", "p/a.jpg/thumb.webp"))
    for key in ("scratch/a.jpg", "notes.txt", "empty.jpg"):
        await hooked.tells(minio_event(hooked.bucket, key))
    await hooked.tells(minio_event(hooked.bucket, "notes.txt", name="s3:ObjectCreated:PutTagging"))
    assert await hooked.state() == []
    counted = {
        reason: await hooked.metric("safelight_bucket_events_ignored_total", reason=reason)
        for reason in ("derived_bucket", "unwatched", "not_a_photo", "unwanted_kind")
    }
    assert counted == {"derived_bucket": 1, "unwatched": 1, "not_a_photo": 2, "unwanted_kind": 1}


async def test_a_photo_replaced_by_something_else_is_gone(open_hook: Open) -> None:
    """Text under the key of a photo ends that photo: nobody is shown previews of bytes that are gone."""
    hooked = await open_hook()
    etag = await hooked.put("a.jpg")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=etag))
    await hooked.put("a.jpg", b"not a photo any more")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag="0" * 32))
    assert await hooked.state() == [("a.jpg", etag, False, True, 2)]


async def test_out_of_order_and_twice_comes_to_the_same_end(open_hook: Open) -> None:
    """MinIO's payloads of a photo that was put, overwritten, removed and put again, of one removed last, and of one put
    once: each order of them, each told twice, some at once, ends as the storage is."""
    hooked = await open_hook()
    first, second = await hooked.put("x", PHOTO), await hooked.put("x", OTHER_PHOTO)
    orders = list(itertools.permutations(range(4)))
    chance = random.Random(7)
    for number, order in enumerate(orders):
        again, gone, once = f"{number}/again.jpg", f"{number}/gone.jpg", f"{number}/once.jpg"
        told: list[dict[str, Any]] = []
        for key, last in ((again, "created"), (gone, "removed")):
            story = [
                minio_event(hooked.bucket, key, etag=first, sequencer="17F1C0A1B2C3D401"),
                minio_event(hooked.bucket, key, etag=second, sequencer="17F1C0A1B2C3D402"),
                minio_event(hooked.bucket, key, "removed", sequencer="17F1C0A1B2C3D403"),
                minio_event(hooked.bucket, key, last, etag=first, sequencer="17F1C0A1B2C3D404"),  # type: ignore[arg-type]
            ]
            told += [story[index] for index in order]
        told.append(minio_event(hooked.bucket, once, etag=first))
        await hooked.put(again)
        await hooked.put(once)
        await hooked.tells(told[0])
        await asyncio.gather(*(hooked.tells(event) for event in chance.sample(told, len(told))))
        for event in told:
            await hooked.tells(event)
    current = [(key, etag, jobs) for key, etag, superseded, deleted, jobs in await hooked.state() if not superseded]
    wanted = [(f"{number}/{name}.jpg", first, 2) for number in range(len(orders)) for name in ("again", "once")]
    assert sorted(current) == sorted(wanted)
    assert len(await hooked.state()) == len(wanted)  # not one generation more


async def test_what_is_about_to_be_committed_is_waited_for(
    open_hook: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that says what Postgres still has, told while an older look is at its commit (tx.before_commit), is not
    taken for known: in the end Postgres has what the storage has."""
    hooked = await open_hook()
    first = await hooked.put("a.jpg")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=first))
    second = await hooked.put("a.jpg", OTHER_PHOTO)
    monkeypatch.setattr(failpoints, "_armed", {})
    failpoints.arm({"SAFELIGHT_FAILPOINT": "tx.before_commit:sleep=1:1", "SAFELIGHT_FAILPOINT_DIR": str(tmp_path)})
    slow = asyncio.create_task(hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=second)))

    async def at_its_commit() -> bool:
        return (tmp_path / "tx.before_commit").exists()

    await until(at_its_commit, seconds=20, what="the commit of the second photo")
    await hooked.put("a.jpg")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=first))
    await slow
    assert [(etag, superseded) for _, etag, superseded, _, _ in await hooked.state()] == [
        (first, True),
        (second, True),
        (first, False),
    ]


async def test_events_told_while_the_bucket_changes_end_as_the_bucket_does(open_hook: Open) -> None:
    """Puts and removals at random, their events told late, doubled and in any order while it goes on: in the end
    Postgres has the bucket's photos and no others as current."""
    hooked = await open_hook()
    chance = random.Random(11)
    names = [f"{n}.jpg" for n in range(6)]
    waiting: list[dict[str, Any]] = []
    telling: set[asyncio.Task[None]] = set()
    for step in range(120):
        key = chance.choice(names)
        if chance.random() < 0.35:
            await hooked.blobs.delete(hooked.bucket, key)
            waiting.append(minio_event(hooked.bucket, key, "removed", sequencer=f"17F1C0A1B2C3{step:04X}"))
        else:
            etag = await hooked.put(key, chance.choice((PHOTO, OTHER_PHOTO)))
            waiting.append(minio_event(hooked.bucket, key, etag=etag, sequencer=f"17F1C0A1B2C3{step:04X}"))
        while waiting and chance.random() < 0.6:
            event = waiting.pop(chance.randrange(len(waiting)))
            telling |= {asyncio.create_task(hooked.tells(event)) for _ in range(chance.choice((1, 2)))}
    await asyncio.gather(*telling)
    await asyncio.gather(*map(hooked.tells, waiting))
    listed, _ = await hooked.blobs.list_page(hooked.bucket)
    there = sorted((item.key, item.etag) for item in listed)
    state = await hooked.state()
    assert sorted((key, etag) for key, etag, superseded, deleted, _ in state if not (superseded or deleted)) == there


LATER = {
    "minio": "18A1F5B2C3D4E5F7",
    "rustfs": "18A1F5B2C3D4E5F7",
    "ceph": "C6FB046B6027DC1D",
    "aws": "00000660FCB99AA33D",
    "eventbridge": "00000660FCB99AA33D",
}


async def test_each_storages_own_message_is_understood(open_hook: Open) -> None:
    """What MinIO, RustFS, Ceph, S3, EventBridge and SeaweedFS write of a created and of a removed object, told as each
    tells it, records that object and forgets it again, awkward keys included."""
    hooked = await open_hook()
    names = {"space": "a b", "plus": "a+b", "percent": "a%2Bb", "unicode": "ü☃", "slash": "a/b"}
    shapes = {name: shape for name, shape in SHAPES.items() if name != "aws sns"}  # believed by its signature alone
    for number, (shape, key) in enumerate(itertools.product(shapes.values(), names.values())):
        key = f"{number}/{key}.jpg"  # noqa: PLW2901 - each its own object
        for kind in ("created", "removed"):
            await (hooked.put(key) if kind == "created" else hooked.blobs.delete(hooked.bucket, key))
            body = shape.body(key, kind).replace(b'"photos"', f'"{hooked.bucket}"'.encode())
            body = body.replace(b"/buckets/photos/", f"/buckets/{hooked.bucket}/".encode())
            if kind == "removed" and shape.source in SEQUENCER:
                body = body.replace(SEQUENCER[shape.source].encode(), LATER[shape.source].encode())
            await hooked.tells(body)
            current = [item[0] for item in await hooked.state() if not item[3]]
            assert current == ([key] if kind == "created" else []), (shape.source, key, kind)


async def test_keys_of_all_kinds_arrive_as_they_are(open_hook: Open) -> None:
    """Spaces, plus, percent, unicode and 900 bytes: the row's key is the object's key."""
    hooked = await open_hook()
    wanted = ["a b.jpg", "a+b.jpg", "a%2Bb.jpg", "100%.jpg", "ü☃.jpg", "a/b c/d.jpg", "k" * 200 + "/" + "l" * 200]
    for key in wanted:
        await hooked.put(key)
        await hooked.tells(minio_event(hooked.bucket, key))
    assert sorted(key for key, *_ in await hooked.state()) == sorted(wanted)


USELESS = {
    "not_json": b"",
    "not_utf8": b"\xff\xfe",
    "too_deep": b"[" * 100_000,
    "unknown_shape": b'{"hello": "world"}',
    "too_many_records": b'{"Records": [' + b"{}," * 1000 + b"{}]}",
    "large_body": b"x" * (MAX_BODY_BYTES + 1),
}


async def test_a_believed_body_that_is_of_no_use_is_answered_counted_and_kept(open_hook: Open) -> None:
    """It is answered 200, because its source would repeat it for ever; it is counted, and its beginning can be read by
    the API."""
    hooked = await open_hook()
    for reason, body in USELESS.items():
        await hooked.tells(body)
        assert await hooked.metric("safelight_bucket_event_messages_unusable_total", reason=reason) == 1
    headers = {"Authorization": f"Bearer {hooked.credential.token}"}
    answer = await (await hooked.client.get("/v1/bucket-events/unusable", headers=headers)).json()
    kept = {sample["reason"]: sample for sample in answer["messages"]}
    for reason, body in USELESS.items():
        assert kept[reason]["body"] == body[:4096].decode("utf-8", "replace")
        assert kept[reason]["size_bytes"] >= min(len(body), MAX_BODY_BYTES)
    assert {sample["origin"] for sample in kept.values()} == {"webhook"}


async def test_samples_do_not_tell_the_hooks_token(open_hook: Open) -> None:
    """The secret that Ceph carries in each record is neither kept nor shown, also where the sample is cut off in it."""
    hooked = await open_hook()
    push = json.loads(ceph_push("a.jpg", "created"))
    push["Records"][0] |= {"eventSource": "other:s3", "opaqueData": TOKEN}
    await hooked.tells(push)
    await hooked.tells(b'{"padding": "%s", "opaqueData" : "%s"}' % (b"x" * 4060, TOKEN.encode()))
    headers = {"Authorization": f"Bearer {hooked.credential.token}"}
    answer = await hooked.client.get("/v1/bucket-events/unusable", headers=headers)
    assert {sample["reason"] for sample in (await answer.json())["messages"]} == {"unknown_source", "unknown_shape"}
    assert TOKEN[:8] not in await answer.text()
    assert TOKEN[:8].encode() not in b"".join(
        row["body"] for row in await fetch(hooked.database, "select body from unusable_message")
    )


async def test_a_fault_of_ours_holds_back_nothing(open_hook: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that fails in a way that nobody thought of is answered 200, because it would fail each time that it is
    sent; it is logged, counted and kept."""
    hooked = await open_hook()
    await hooked.put("a.jpg")

    async def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched, capture_logs() as lines:
        patched.setattr(ingest, "record", fail)
        await hooked.tells(minio_event(hooked.bucket, "a.jpg"))
    assert [line["log_level"] for line in lines if line["event"] == "bucket_event.failed"] == ["error"]
    assert await hooked.metric("safelight_bucket_event_messages_unusable_total", reason="failed") == 1
    assert await value(hooked.database, "select reason from unusable_message") == "failed"
    await hooked.tells(minio_event(hooked.bucket, "a.jpg"))
    assert len(await hooked.state()) == 1


async def test_samples_are_few(open_hook: Open) -> None:
    """However many useless messages come, ten of a reason are kept, and no more than one a second is written."""
    hooked = await open_hook()
    await asyncio.gather(*(hooked.tells(b"useless %d" % number) for number in range(200)))
    assert await hooked.metric("safelight_bucket_event_messages_unusable_total", reason="not_json") == 200
    assert await value(hooked.database, "select count(*) from unusable_message") <= 10


async def test_parts_that_nobody_understands_are_kept_too(open_hook: Open) -> None:
    """A record of an unknown storage beside a good one: the good one is recorded, the other one counted and sampled."""
    hooked = await open_hook()
    await hooked.put("a.jpg")
    good = minio_event(hooked.bucket, "a.jpg")["Records"][0]
    await hooked.tells(records(good, good | {"eventSource": "other:s3"}))
    assert len(await hooked.state()) == 1
    assert await hooked.metric("safelight_bucket_events_ignored_total", reason="unknown_source") == 1
    assert await value(hooked.database, "select reason from unusable_message") == "unknown_source"


async def test_a_test_event_is_answered(open_hook: Open) -> None:
    """What S3 sends when notifications are switched on is answered 200 and does nothing."""
    hooked = await open_hook()
    await hooked.tells({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": hooked.bucket})
    assert await hooked.state() == []
    assert await value(hooked.database, "select count(*) from unusable_message") == 0


# Ways to show a right, as (headers, query), and whether they are one.
RIGHTS: list[tuple[dict[str, str], str, bool]] = [
    ({"Authorization": f"Bearer {TOKEN}"}, "", True),
    ({"Authorization": f"bearer {TOKEN}"}, "", True),
    ({"Authorization": TOKEN}, "", True),  # a key of an EventBridge connection
    ({}, f"?token={TOKEN}", True),
    ({"Authorization": "Bearer the-second-token"}, "", True),
    ({}, "", False),
    ({"Authorization": "Bearer "}, "", False),
    ({"Authorization": ""}, "", False),
    ({"Authorization": f"Bearer {TOKEN}x"}, "", False),
    ({"Authorization": f"Bearer {TOKEN[:-1]}"}, "", False),
    ({"Authorization": f"Bearer {TOKEN},the-second-token"}, "", False),
    ({"Authorization": "Bearer ü"}, "", False),
    ({"Authorization": "Bearer wrong"}, f"?token={TOKEN}", False),  # the header decides
    ({}, "?token=", False),
    ({}, "?token=wrong", False),
]


async def test_the_token_is_needed(open_hook: Open) -> None:
    """Each of our tokens opens, by header or address; everything else is 401, leaves no row, and is counted."""
    hooked = await open_hook(hook_token=f"{TOKEN}, the-second-token")
    for number, (headers, query, is_right) in enumerate(RIGHTS):
        await hooked.put(f"{number}.jpg")
        answer = await hooked.tell(minio_event(hooked.bucket, f"{number}.jpg"), token=None, path=query, **headers)
        assert answer.status == (200 if is_right else 401), (headers, query)
    assert {key for key, *_ in await hooked.state()} == {f"{n}.jpg" for n, way in enumerate(RIGHTS) if way[2]}
    refused = [
        await hooked.metric("safelight_bucket_event_requests_refused_total", reason=reason)
        for reason in ("wrong_token", "no_token")
    ]
    assert sum(refused) == sum(not is_right for *_, is_right in RIGHTS)


async def test_refusals_do_not_fill_the_log(open_hook: Open) -> None:
    """A hundred wrong tokens are a hundred in the metrics and one warning in the log."""
    hooked = await open_hook()
    with capture_logs() as logs:
        for _ in range(100):
            assert (await hooked.tell(b"{}", token="wrong")).status == 401
    assert len([line for line in logs if line["event"] == "bucket_event.refused"]) == 1
    assert await hooked.metric("safelight_bucket_event_requests_refused_total", reason="wrong_token") == 100


async def test_without_a_token_set_the_address_is_closed(open_hook: Open) -> None:
    """Where neither a token nor a topic is set the address answers 404 to everybody, an empty token included."""
    hooked = await open_hook(hook_token="")
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
        answer = await hooked.tell(minio_event(hooked.bucket, "a.jpg"), token=None, **headers)
        assert answer.status == 404
        assert "SAFELIGHT_HOOK_TOKEN" in (await answer.json())["detail"]


async def test_cephs_opaque_data_is_a_token(open_hook: Open) -> None:
    """A Ceph body without a header is believed where each of its records carries our token as opaqueData, and only
    then; no other storage's body is."""
    hooked = await open_hook()
    await hooked.put("a+b c.jpg")
    document = json.loads(ceph_push("a+b c.jpg", "created"))
    document["Records"][0]["s3"]["bucket"]["name"] = hooked.bucket
    record = document["Records"][0]
    minio = minio_event(hooked.bucket, "a+b c.jpg")["Records"][0] | {"opaqueData": TOKEN}
    for wrong in (
        [record],
        [record | {"opaqueData": ""}],
        [record | {"opaqueData": TOKEN}, record],
        [record | {"opaqueData": TOKEN}, record | {"opaqueData": "other"}],
        [record | {"opaqueData": [TOKEN]}],
        [minio],
        [],
    ):
        assert (await hooked.tell(records(*wrong), token=None)).status == 401
    assert await hooked.state() == []
    await hooked.tells(records(record | {"opaqueData": TOKEN}), token=None)
    assert [key for key, *_ in await hooked.state()] == ["a+b c.jpg"]


async def test_a_strangers_large_body_is_not_read(open_hook: Open) -> None:
    """Who shows no token may send at most 1 MiB: more is refused without being taken in."""
    hooked = await open_hook()
    answer = await hooked.tell(b" " * (MAX_BODY_BYTES + 1) + dump({"Records": []}), token=None)
    assert answer.status == 401
    assert await value(hooked.database, "select count(*) from unusable_message") == 0


async def test_a_sender_that_stalls_is_cut_off(open_hook: Open) -> None:
    """A body that does not come is answered 408 after the time that clients have, and holds no turn."""
    hooked = await open_hook(chunk_timeout_seconds=0.2)

    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = await hooked.client.post(
        "/hooks/bucket-events", data=stalls(), headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert answer.status == 408
    await hooked.tells(minio_event(hooked.bucket, "nothing.jpg", "removed"))


async def test_a_crowd_is_asked_to_come_again(open_hook: Open) -> None:
    """While 256 events are being taken, the next one is answered 503 with Retry-After at once."""
    hooked = await open_hook()
    app = hooked.client.app
    assert app is not None
    hook = app[HOOK]
    turns = [hook.turn() for _ in range(256)]
    for turn in turns:
        turn.__enter__()
    answer = await hooked.tell(minio_event(hooked.bucket, "a.jpg"))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    turns[0].__exit__(None, None, None)
    await hooked.tells(minio_event(hooked.bucket, "nothing.jpg", "removed"))


@pytest.mark.parametrize("which", ["postgres", "storage"])
async def test_while_something_is_down_the_source_is_told_to_come_again(
    open_hook: Open, servers: Servers, which: str
) -> None:
    """With Postgres or the storage killed an event is answered 503 with Retry-After and without anything of it in the
    answer; told again once that is back, it is taken."""
    hooked = await open_hook()
    etag = await hooked.put("a.jpg")
    server: Server = servers.postgres if which == "postgres" else servers.seaweedfs
    server.kill()
    answer = await hooked.tell(minio_event(hooked.bucket, "a.jpg", etag=etag))
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "a.jpg" not in await answer.text()
    server.start()

    async def taken() -> bool:
        return (await hooked.tell(minio_event(hooked.bucket, "a.jpg", etag=etag))).status == 200

    await until(taken, seconds=20, what="the event is taken")
    assert await hooked.state() == [("a.jpg", etag, False, False, 2)]


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState"])
async def test_an_object_that_the_storage_keeps_to_itself_holds_back_nothing(
    open_hook: Open, s3_backend: S3Backend, code: str
) -> None:
    """The event of an object that may not be read (or lies in an archive) is answered, counted and kept as a sample,
    and what is told beside it is recorded; told again once the object may be read, it is recorded too."""
    async with Shim(s3_backend.endpoint) as shim:
        hooked = await open_hook(s3_endpoint=shim.url)
        locked, free = await hooked.put("locked.jpg"), await hooked.put("free.jpg")
        shim.set(Spoil(act="answer", status=403, code=code, within="locked.jpg"))
        told = [
            *minio_event(hooked.bucket, "locked.jpg")["Records"],
            *minio_event(hooked.bucket, "free.jpg")["Records"],
        ]
        await hooked.tells(records(*told))
        assert await hooked.state() == [("free.jpg", free, False, False, 2)]
        assert await hooked.metric("safelight_bucket_events_ignored_total", reason="unreadable") == 1
        assert await value(hooked.database, "select reason from unusable_message") == "unreadable"
        shim.heal()
        await hooked.tells(records(*told))
        assert [row[:2] for row in await hooked.state()] == [("free.jpg", free), ("locked.jpg", locked)]


async def test_a_bucket_that_is_not_ours_holds_back_nothing(
    open_hook: Open, s3_backend: S3Backend, bucket_prefix: str
) -> None:
    """Where a whole bucket is denied, its events are answered and counted as long as our own bucket lets us in. Where
    the storage refuses our key altogether, the source is told to come again."""
    async with Shim(s3_backend.endpoint) as shim:
        hooked = await open_hook(s3_endpoint=shim.url)
        await hooked.put("a.jpg")
        shim.set(Spoil(act="answer", status=403, code="AccessDenied", within=f"/{bucket_prefix}-theirs"))
        await hooked.tells(minio_event(f"{bucket_prefix}-theirs", "a.jpg"))
        assert await hooked.metric("safelight_bucket_events_ignored_total", reason="unreadable") == 1
        shim.set(Spoil(act="answer", status=403, code="AccessDenied"))
        assert (await hooked.tell(minio_event(hooked.bucket, "a.jpg"))).status == 503
        shim.heal()
        await hooked.tells(minio_event(hooked.bucket, "a.jpg"))
        assert len(await hooked.state()) == 1


async def test_a_frozen_postgres_keeps_no_source_waiting(open_hook: Open, servers: Servers) -> None:
    """While Postgres does not answer, twenty events at once are all answered 503 within their bounds; released, it
    takes them."""
    hooked = await open_hook()
    events = []
    for number in range(20):
        etag = await hooked.put(f"{number}.jpg")
        events.append(minio_event(hooked.bucket, f"{number}.jpg", etag=etag))
    servers.postgres.suspend()
    started_at = time.monotonic()
    answers = await asyncio.gather(*map(hooked.tell, events))
    waited_seconds = time.monotonic() - started_at
    servers.postgres.resume()
    assert {answer.status for answer in answers} == {503}
    assert waited_seconds < TURN_SECONDS + SETTLE_SECONDS + 5

    async def taken() -> bool:
        return {answer.status for answer in await asyncio.gather(*map(hooked.tell, events))} == {200}

    await until(taken, seconds=20, what="the events are taken")
    assert len(await hooked.state()) == 20


async def test_the_storage_may_be_away_for_what_postgres_knows(open_hook: Open, servers: Servers) -> None:
    """An event of a photo that came by our own door needs the storage no more: it is answered while that is down."""
    hooked = await open_hook()
    etag = await hooked.put("a.jpg")
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=etag))
    servers.seaweedfs.kill()
    await hooked.tells(minio_event(hooked.bucket, "a.jpg", etag=etag))


async def test_eight_gateways_worth_of_events_of_one_key_make_one_photo(open_hook: Open) -> None:
    """Two gateways that are told of the same fifty objects at once record fifty."""
    one, other = await open_hook(), await open_hook()
    for number in range(50):
        await one.put(f"{number}.jpg")
    told = [minio_event(one.bucket, f"{number}.jpg", etag="0" * 32) for number in range(50)]
    await asyncio.gather(*(hooked.tells(event) for event in told for hooked in (one, other)))
    state = await one.state()
    assert len(state) == 50
    assert {jobs for *_, jobs in state} == {2}


async def test_an_empty_seaweedfs_object_is_no_error(open_hook: Open, servers: Servers) -> None:
    """An object of no bytes, whose range cannot be read, is counted as no photo."""
    hooked = await open_hook()
    server: SeaweedFS = servers.seaweedfs
    server.request("PUT", f"/{hooked.bucket}/empty.png", b"")
    await hooked.tells(minio_event(hooked.bucket, "empty.png", etag="d41d8cd98f00b204e9800998ecf8427e"))
    assert await hooked.metric("safelight_bucket_events_ignored_total", reason="not_a_photo") == 1
