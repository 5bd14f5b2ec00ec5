"""Keys that are limited to places, at the REST door with real servers behind it: what lies outside does not exist."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient

from gateway.app import create_app
from gateway.routes import ROUTES
from gateway.settings import GatewaySettings
from storage import credentials, facts
from storage.blobs import Blobs
from storage.database import Database
from storage.facts import StoredArtifact
from tests.integration.stage import in_transaction, job_settings, storage_settings, until, value
from tests.photos import make_jpeg
from tests.servers import S3Backend, Servers

PHOTO = make_jpeg(64, 48)
ALL = ["read", "write", "admin"]


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """One key at the door."""

    client: TestClient[Any, Any]
    credential: credentials.Credential
    bucket: str

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Status, and the body: read as JSON where it is some."""
        headers = {"Authorization": f"Bearer {self.credential.token}", **more.pop("headers", {})}
        async with await self.client.request(method, path, headers=headers, **more) as answer:
            is_json = answer.content_type.endswith("json")
            return answer.status, await answer.json() if is_json else await answer.read()

    async def put(self, key: str, *, bucket: str | None = None, **headers: str) -> tuple[int, Any]:
        return await self.ask("PUT", f"/v1/photos/{bucket or self.bucket}/{key}", data=PHOTO, headers=headers)

    async def post(self, *, bucket: str | None = None, files: int = 1, **headers: str) -> tuple[int, Any]:
        form = aiohttp.FormData()
        for number in range(files):
            form.add_field("file", PHOTO, filename=f"{number}.jpg", content_type="image/jpeg")
        return await self.ask("POST", f"/v1/photos?bucket={bucket or self.bucket}", data=form, headers=headers)

    async def list_keys(self, query: str = "") -> list[str]:
        status, content = await self.ask("GET", f"/v1/photos?{query}")
        assert status == 200, content
        return [photo["key"] for photo in content["photos"]]

    async def code(self, method: str, path: str, **more: Any) -> str:
        _, content = await self.ask(method, path, **more)
        assert isinstance(content, dict), f"{method} {path} was answered with bytes"
        return str(content["code"])


Admit = Callable[..., Awaitable[Visitor]]


@pytest.fixture
async def admit(
    aiohttp_client: Any,
    database: Database,
    postgres_dsn: str,
    redis_url: str,
    s3_backend: S3Backend,
    bucket_prefix: str,
    bucket: str,
) -> AsyncIterator[Admit]:
    """Makes a key for the places that are given, and opens the door with it."""
    storage = storage_settings(
        postgres_dsn, s3_backend, default_bucket=bucket, derived_bucket=f"{bucket_prefix}-derived"
    )
    client = await aiohttp_client(create_app(GatewaySettings(), job_settings(redis_url), storage))

    async def admit_one(*places: str, scopes: list[str] = ALL) -> Visitor:
        credential = credentials.generate()
        create = partial(credentials.create, credential=credential, name="n", scopes=scopes, places=places)
        await in_transaction(database, create)
        return Visitor(client=client, credential=credential, bucket=bucket)

    yield admit_one
    await client.close()  # before the servers that it uses


async def stored_keys(blobs: Blobs, bucket: str) -> list[str]:
    answer = await blobs._client.list_objects_v2(Bucket=bucket)
    return [item["Key"] for item in answer.get("Contents", ())]


async def test_a_limited_key_uploads_within_its_places_alone(
    admit: Admit, blobs: Blobs, database: Database, bucket: str
) -> None:
    """A PUT within is taken; one beside it, in another bucket or with a prefix that only resembles, is refused with the
    places named, before anything of it is stored, and before a bucket's existence is told."""
    guest = await admit(f"{bucket}/weddings/", f"{bucket}/2026/may/")
    assert (await guest.put("weddings/a.jpg"))[0] == 201
    assert (await guest.put("2026/may/a.jpg"))[0] == 201
    for key in ("a.jpg", "weddings2/a.jpg", "2026/a.jpg", "Weddings/a.jpg"):
        status, content = await guest.put(key)
        assert (status, content["code"]) == (403, "forbidden")
        assert f"limited to {bucket}/weddings/, {bucket}/2026/may/" in content["detail"]
    assert (await guest.put("weddings/a.jpg", bucket="no-such-bucket"))[1]["code"] == "forbidden"
    assert sorted(await stored_keys(blobs, bucket)) == ["2026/may/a.jpg", "weddings/a.jpg"]
    assert await value(database, "select count(*) from object") == 2


async def test_a_form_is_judged_by_the_keys_that_it_gets(admit: Admit, blobs: Blobs, bucket: str) -> None:
    """Forms land under uploads/: a key for that, or for the bucket, may post; one for another prefix or bucket may not,
    and nothing of its files is stored."""
    for places in ([f"{bucket}/uploads/"], [bucket]):
        assert (await (await admit(*places)).post(files=2))[0] == 201
    before = await stored_keys(blobs, bucket)
    assert len(before) == 4
    for places in ([f"{bucket}/weddings/"], ["elsewhere"], [f"{bucket}/uploads/1999/"]):
        status, content = await (await admit(*places)).post(files=2)
        assert (status, content["code"]) == (403, "forbidden")
    assert await stored_keys(blobs, bucket) == before


async def test_photos_elsewhere_do_not_exist_for_a_limited_key(
    admit: Admit, blobs: Blobs, database: Database, bucket: str, bucket_prefix: str
) -> None:
    """Details, EXIF, previews, originals and deletion of a photo outside are 404 no_such_photo, as of an unknown id; of
    one within they work as for anybody."""
    host, guest = await admit(), await admit(f"{bucket}/weddings/")
    inside = (await host.put("weddings/a.jpg"))[1]["id"]
    outside = (await host.put("parties/a.jpg"))[1]["id"]
    for photo_id, key in ((inside, "weddings/a.jpg"), (outside, "parties/a.jpg")):
        await add_preview(database, blobs, photo_id, bucket=bucket, key=key, derived=f"{bucket_prefix}-derived")
    for part in ("", "/original", "/previews/thumb"):
        assert (await guest.ask("GET", f"/v1/photos/{inside}{part}"))[0] == 200
        assert (await host.ask("GET", f"/v1/photos/{outside}{part}"))[0] == 200
        assert (await guest.ask("HEAD", f"/v1/photos/{outside}{part}"))[0] == 404
    assert await guest.code("GET", f"/v1/photos/{inside}/exif") == "no_facts"
    for part in ("", "/original", "/exif", "/previews/thumb", "/previews/none"):
        _, unknown = await guest.ask("GET", f"/v1/photos/{uuid.uuid4()}{part}")
        assert await guest.ask("GET", f"/v1/photos/{outside}{part}") == (404, unknown)
    assert await guest.code("DELETE", f"/v1/photos/{outside}") == "no_such_photo"
    assert await blobs.head(bucket, "parties/a.jpg")
    assert (await guest.ask("DELETE", f"/v1/photos/{inside}"))[0] == 204


async def add_preview(database: Database, blobs: Blobs, photo_id: str, *, bucket: str, key: str, derived: str) -> None:
    """As a worker would leave it."""
    name = f"{bucket}/{key}/thumb.webp"
    put = await blobs._client.put_object(Bucket=derived, Key=name, Body=b"preview", ContentType="image/webp")
    artifact = StoredArtifact(
        preset="thumb",
        preset_version="webp-320-q80-p1",
        bucket=derived,
        key=name,
        etag=put["ETag"].strip('"'),
        sha256=bytes(32),
        size_bytes=7,
        content_type="image/webp",
        width_px=320,
        height_px=240,
    )
    await in_transaction(database, lambda conn: facts.put_artifacts(conn, uuid.UUID(photo_id), [artifact]))


async def test_a_list_holds_what_is_within_reach(
    admit: Admit, servers: Servers, bucket: str, bucket_prefix: str
) -> None:
    """Pages hold the photos of the key's places alone, in full pages, together with the filters that were asked for."""
    other = f"{bucket_prefix}-other"
    servers.seaweedfs.request("PUT", f"/{other}")
    host = await admit()
    for key in ("a/1.jpg", "b/2.jpg", "a/3.jpg", "a%25/4.jpg", "b/5.jpg", "a/6.jpg"):
        assert (await host.put(key))[0] == 201
    assert (await host.put("a/7.jpg", bucket=other))[0] == 201
    assert await (await admit(f"{bucket}/a/")).list_keys() == ["a/6.jpg", "a/3.jpg", "a/1.jpg"]
    assert await (await admit(f"{bucket}/a%/")).list_keys() == ["a%/4.jpg"]
    assert await (await admit(f"{bucket}/b/", other)).list_keys() == ["a/7.jpg", "b/5.jpg", "b/2.jpg"]
    assert len(await host.list_keys()) == 7
    guest = await admit(f"{bucket}/a/", other)
    assert await guest.list_keys(f"bucket={other}") == ["a/7.jpg"]
    assert await guest.list_keys("prefix=b/") == []
    assert await guest.list_keys(f"bucket={bucket_prefix}-derived") == []
    _, first = await guest.ask("GET", "/v1/photos?limit=3")
    _, second = await guest.ask("GET", f"/v1/photos?limit=3&cursor={first['next_cursor']}")
    assert [len(page["photos"]) for page in (first, second)] == [3, 1]
    assert second["next_cursor"] is None


def elsewhere() -> list[tuple[str, str]]:
    """Method and path, as OpenAPI writes it, of every route with a scope that is about more than photos and their
    jobs."""
    own = ("/v1/photos", "/v1/jobs", "/v1/events", "/v1/uploads", "/v1/explain", "/v1/session")
    routes = [route for route in ROUTES if route.scope is not None and not route.path.startswith(own)]
    return [(route.method, re.sub(r"\{(\w+)(?::[^}]*)?\}", r"{\1}", route.path)) for route in routes]


@pytest.mark.parametrize(("method", "path"), elsewhere(), ids=[" ".join(item) for item in elsewhere()])
async def test_everything_else_is_closed_to_limited_keys(admit: Admit, bucket: str, method: str, path: str) -> None:
    """What is not about photos and their jobs is 403 for a limited key whatever its scopes, and the detail says why; a
    key without places gets further."""
    more = {"json": {}} if method in ("POST", "PATCH") else {}
    path = path.replace("{processor}", "exif").replace("{webhook_id}", str(uuid.UUID(int=1)))
    path = re.sub(r"\{\w+\}", "1", path)
    status, content = await (await admit(bucket)).ask(method, path, **more)
    assert (status, content["code"]) == (403, "forbidden")
    assert f"limited to photos in {bucket}" in content["detail"]
    status, _ = await (await admit()).ask(method, path, **more)
    assert status in (200, 404, 422, 503)  # 503: webhooks need a master key


async def test_jobs_elsewhere_do_not_exist_for_a_limited_key(admit: Admit, database: Database, bucket: str) -> None:
    """It lists, groups, sees, replays and discards the jobs of its own places alone, whatever its scopes; the others
    are 404 and stay as they are."""
    host, guest = await admit(), await admit(f"{bucket}/a/")
    for key in ("a/1.jpg", "b/2.jpg"):
        assert (await host.put(key))[0] == 201
    async with database.connection() as conn:
        await conn.execute("update job set state = 'dead', finished_at = now(), error_code = 'unexpected'")
        rows = await conn.fetch("select job.id, key from job join object on object.id = object_id order by job.id")
    inside, outside = ([row["id"] for row in rows if row["key"][0] == folder] for folder in "ab")
    for query, expected in (("", inside), ("?search=2.jpg", []), (f"?bucket={bucket}&key_prefix=b", [])):
        listed = (await guest.ask("GET", f"/v1/jobs{query}"))[1]["jobs"]
        assert sorted(job["id"] for job in listed) == expected
    for visitor, number in ((host, 2), (guest, 1)):
        groups = (await visitor.ask("GET", "/v1/jobs/groups"))[1]["groups"]
        assert [group["jobs"] for group in groups] == [number, number]
    for job_id in outside:
        assert await guest.code("GET", f"/v1/jobs/{job_id}") == "no_such_job"
        assert await guest.code("GET", f"/v1/explain?job_id={job_id}") == "no_such_photo"
        assert await guest.code("POST", f"/v1/jobs/{job_id}/discard", json={}) == "no_such_job"
    for key in ("b/2.jpg", "b/none.jpg"):
        assert await guest.code("GET", f"/v1/explain?bucket={bucket}&key={key}") == "no_such_photo"
    assert (await guest.ask("GET", f"/v1/explain?job_id={inside[0]}"))[1]["verdict"] == "dead"
    status, done = await guest.ask("POST", "/v1/jobs/discard", json={"filter": {}})
    assert (status, done["matched"], done["job_ids"]) == (200, 2, inside)
    assert await value(database, "select array_agg(id order by id) from job where state = 'dead'") == outside


async def test_scopes_still_count(admit: Admit, bucket: str) -> None:
    """Within its places a key does what its scopes allow, and no more."""
    guest = await admit(bucket, scopes=["read"])
    assert (await guest.put("a.jpg"))[1]["code"] == "forbidden"
    assert await guest.list_keys() == []


async def test_a_key_that_is_narrowed_loses_the_rest(admit: Admit, database: Database, bucket: str) -> None:
    """Within 1.5 s of being limited a key sees nothing elsewhere, the photos of its own finished requests included."""
    guest = await admit()
    status, content = await guest.post(**{"Idempotency-Key": "k"})
    assert status == 201
    photo_id = content["photos"][0]["id"]
    assert (await guest.post(**{"Idempotency-Key": "k"}))[0] == 201
    narrow = partial(credentials.create, credential=guest.credential, name="n", scopes=ALL, places=[f"{bucket}/a/"])
    await in_transaction(database, narrow)

    async def is_gone() -> bool:
        return (await guest.ask("GET", f"/v1/photos/{photo_id}"))[0] == 404

    await until(is_gone, seconds=1.5, what="the photo is out of reach")
    assert (await guest.post(**{"Idempotency-Key": "k"}))[1]["code"] == "no_such_photo"
    assert (await guest.put("b.jpg"))[0] == 403


async def test_the_document_says_which_routes_are_closed(admit: Admit) -> None:
    """OpenAPI tells for each operation with a scope whether a limited key may use it."""
    _, document = await (await admit()).ask("GET", "/openapi.json")
    closed = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "Closed to keys that are limited" in operation["description"]
    }
    assert closed == set(elsewhere())
