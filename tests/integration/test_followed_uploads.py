"""One upload followed through the logs of every process by its request id, by whatever door it came."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from safelight.embedded.folder import choose_port
from storage import sealing
from storage.blobs import Blobs
from storage.database import Database
from storage.sealing import MasterKeys
from tests.access_keys import make_key
from tests.integration.door_site import Client
from tests.integration.hooked import TOKEN, minio_event
from tests.integration.programs import Program, Stage
from tests.integration.stage import until
from tests.photos import make_jpeg

PHOTO = make_jpeg(64, 48, noise=20)


@dataclass(kw_only=True)
class Site:
    gateway: Program
    door: Program
    worker: Program
    url: str
    client: Client
    bucket: str


@pytest.fixture
async def site(stage: Stage, database: Database) -> Any:
    master_key, s3_port, ports = sealing.generate(), choose_port(), stage._folder / "ports.json"
    async with database.transaction() as conn:
        key = await make_key(conn, MasterKeys.parse(master_key))
    gateway = stage.start("gateway", http_port="0", ports_file=str(ports), hook_token=TOKEN)
    door = stage.start("door", s3_port=str(s3_port), master_key=master_key)
    worker = stage.start_worker()

    async def started() -> bool:
        return ports.exists() and door.logged("door.started") and worker.logged("worker.started")

    await until(started, seconds=30, what="all programs run")
    async with aiohttp.ClientSession() as session:
        client = Client(url=f"http://127.0.0.1:{s3_port}", key=key, session=session)
        yield Site(
            gateway=gateway,
            door=door,
            worker=worker,
            url=json.loads(ports.read_text())["http_url"],
            client=client,
            bucket=f"{stage.stream}-photos",
        )


def lines(program: Program, request_id: str) -> dict[str, list[dict[str, Any]]]:
    """What it logged with that request id, by event."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in program.log():
        if line.get("request_id") == request_id:
            found.setdefault(str(line["event"]), []).append(line)
    return found


async def assert_followed(site: Site, entrance: Program, request_id: str) -> None:
    """The door says what was stored, the worker that it took and did both jobs of it; all with the id, and each line
    with one sentence and its own ids."""

    async def done() -> bool:
        return len(lines(site.worker, request_id).get("job.done", [])) == 2

    await until(done, seconds=20, what=f"the worker did both jobs of {request_id}")
    (stored,) = lines(entrance, request_id)["photo.stored"]
    work = lines(site.worker, request_id)
    assert {line["processor"] for line in work["job.started"]} == {"exif", "preview"}
    assert {line["photo_id"] for event in work.values() for line in event} == {stored["photo_id"]}
    assert all(line["job_id"] for event in work.values() for line in event)
    assert all(line["waited_seconds"] >= 0 for line in work["job.started"])
    for line in [stored, *(line for event in work.values() for line in event)]:
        assert str(line["message"]).endswith(".")
        assert line["level"]
        assert line["timestamp"]


async def test_an_upload_by_rest_is_followed(site: Site) -> None:
    """The client's own X-Request-Id, which is in the answer, is on the gateway's and the worker's lines."""
    url = f"{site.url}/v1/photos/{site.bucket}/rest.jpg"
    headers = {"Authorization": f"Bearer {site.client.key.token}", "X-Request-Id": "my-own-id.1"}
    async with site.client.session.put(url, data=PHOTO, headers=headers) as answer:
        assert (answer.status, answer.headers["X-Request-Id"]) == (201, "my-own-id.1")
    await assert_followed(site, site.gateway, "my-own-id.1")
    assert len(lines(site.gateway, "my-own-id.1")["request.done"]) == 1


async def test_an_upload_by_s3_is_followed(site: Site) -> None:
    """The x-safelight-request-id of the S3 door's answer is on the door's and the worker's lines; the storage's own id
    is in x-amz-request-id, and on the door's line."""
    answer = await site.client.put(f"/{site.bucket}/s3.jpg", PHOTO)
    assert answer.status == 200
    request_id = answer.headers["x-safelight-request-id"]
    await assert_followed(site, site.door, request_id)
    (line,) = lines(site.door, request_id)["request.done"]
    assert line["storage_request_id"] == answer.headers["x-amz-request-id"] not in {"", request_id}


async def test_a_photo_by_bucket_event_is_followed(site: Site, blobs: Blobs) -> None:
    """A photo that was written straight to the storage carries the id of the request that told of it."""
    etag = (await blobs.put(site.bucket, "event.jpg", PHOTO, content_type="image/jpeg")).etag
    body, headers = minio_event(site.bucket, "event.jpg", etag=etag), {"Authorization": f"Bearer {TOKEN}"}
    async with site.client.session.post(f"{site.url}/hooks/bucket-events", json=body, headers=headers) as answer:
        assert answer.status == 200
        request_id = answer.headers["X-Request-Id"]
    await assert_followed(site, site.gateway, request_id)


async def test_a_rejected_photo_is_followed_to_its_reason(site: Site) -> None:
    """Why a photo was rejected is on the worker's line with the id of the upload."""
    answer = await site.client.put(f"/{site.bucket}/cut.jpg", PHOTO[: len(PHOTO) // 8])
    request_id = answer.headers["x-safelight-request-id"]

    async def rejected() -> list[dict[str, Any]]:
        return lines(site.worker, request_id).get("job.rejected", [])

    found = await until(rejected, seconds=20, what="the worker says that it was rejected")
    assert found[0]["code"] == "truncated"
