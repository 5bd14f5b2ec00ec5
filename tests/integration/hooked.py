"""A gateway in this process whose hook for bucket events is open, and what the storages would say to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.test_utils import TestClient

from gateway.events.bucket_event import Kind
from storage import credentials
from storage.blobs import Blobs
from storage.database import Database
from tests.integration.stage import fetch
from tests.photos import make_jpeg
from tests.unit.events.shapes import go_escape

TOKEN = "hook-token-of-the-tests"
PHOTO = make_jpeg(64, 48)
OTHER_PHOTO = make_jpeg(48, 64)


@dataclass(frozen=True, kw_only=True)
class Hooked:
    """The gateway, and the two sides of it: the storage before it, Postgres behind it."""

    client: TestClient[Any, Any]
    credential: credentials.Credential
    database: Database
    blobs: Blobs
    bucket: str

    async def tell(
        self, body: bytes | Mapping[str, Any], *, token: str | None = TOKEN, path: str = "", **headers: str
    ) -> aiohttp.ClientResponse:
        """One event to the hook; its answer, read."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**({"Authorization": f"Bearer {token}"} if token is not None else {}), **headers}
        answer = await self.client.post(f"/hooks/bucket-events{path}", data=data, headers=sent)
        await answer.read()
        return answer

    async def tells(self, body: bytes | Mapping[str, Any], **options: Any) -> None:
        """One event that must be taken, and answered with nothing."""
        answer = await self.tell(body, **options)
        assert (answer.status, await answer.read()) == (200, b""), await answer.text()

    async def put(self, key: str, data: bytes = PHOTO) -> str:
        """Write straight to the storage, behind the gateway's back. Returns the ETag."""
        return (await self.blobs.put(self.bucket, key, data, content_type="image/jpeg")).etag

    async def metric(self, name: str, **labels: str) -> float:
        """A number that the gateway tells Prometheus; 0 where it tells none."""
        headers = {"Authorization": f"Bearer {self.credential.token}"}
        text = await (await self.client.get("/metrics", headers=headers)).text()
        wanted = ",".join(f'{label}="{text}"' for label, text in sorted(labels.items()))
        start = f"{name}{{{wanted}}} " if wanted else f"{name} "
        return next((float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start)), 0.0)

    async def state(self) -> list[tuple[str, str, bool, bool, int]]:
        """What Postgres holds: (key, etag, superseded, deleted, jobs) of each generation, in order."""
        rows = await fetch(
            self.database,
            """
            select key, etag, superseded_at is not null as superseded, deleted_at is not null as deleted,
                   (select count(*) from job where object_id = object.id) as jobs
            from object order by key, created_at, id
            """,
        )
        return [(row["key"], row["etag"], row["superseded"], row["deleted"], row["jobs"]) for row in rows]


def minio_event(
    bucket: str,
    key: str,
    kind: Kind = "created",
    *,
    etag: str | None = None,
    name: str | None = None,
    sequencer: str = "17F1C0A1B2C3D4E5",
    at: str = "2026-11-24T02:48:11.029Z",
) -> dict[str, Any]:
    """What MinIO's documentation says that its webhook sends: one record, its key form-urlencoded."""
    event_name = name or ("s3:ObjectCreated:Put" if kind == "created" else "s3:ObjectRemoved:Delete")
    item: dict[str, Any] = {"key": go_escape(key), "versionId": "", "sequencer": sequencer}
    if kind == "created":
        item |= {
            "size": len(PHOTO),
            "eTag": etag or hashlib.md5(PHOTO, usedforsecurity=False).hexdigest(),
            "contentType": "image/jpeg",
            "userMetadata": {"content-type": "image/jpeg"},
        }
    return {
        "EventName": event_name,
        "Key": f"{bucket}/{key}",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "awsRegion": "",
                "eventTime": at,
                "eventName": event_name,
                "userIdentity": {"principalId": "AK"},
                "requestParameters": {"principalId": "AK", "region": "", "sourceIPAddress": "192.0.2.1"},
                "responseElements": {"x-amz-request-id": "1", "x-amz-id-2": "2", "content-length": "0"},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "Config",
                    "bucket": {"name": bucket, "ownerIdentity": {"principalId": "AK"}, "arn": f"arn:aws:s3:::{bucket}"},
                    "object": item,
                },
                "source": {"host": "192.0.2.1", "port": "", "userAgent": "MinIO (linux; amd64) minio-go/v7"},
            }
        ],
    }
