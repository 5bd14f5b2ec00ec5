"""Hundreds of generated wrong requests at the S3 door, by every way of signing and every way of sending a body: each is
refused with S3's code, and nothing of it is left.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random, SystemRandom
from typing import Any

import pytest

from storage import credentials
from storage.blobs import Blobs
from storage.database import Database
from tests import photos
from tests.integration.door_site import Client, Site, open_site
from tests.integration.wrong_requests.addresses import draft_of as address_of
from tests.integration.wrong_requests.addresses import wrong_addresses
from tests.integration.wrong_requests.aliases import wrong_aliases
from tests.integration.wrong_requests.asks import wrong_asks
from tests.integration.wrong_requests.headers import wrong_headers
from tests.integration.wrong_requests.payloads import wrong_payloads
from tests.integration.wrong_requests.posts import draft_of as post_of
from tests.integration.wrong_requests.posts import make_form, wrong_posts
from tests.integration.wrong_requests.recipes import ALL, Multipart, World, seal
from tests.integration.wrong_requests.signing import Signature, sign_query, sign_query_v2
from tests.integration.wrong_requests.wire import Draft, send
from tests.integration.wrong_requests.wrongs import Wrong
from tests.rgw import Rgw
from tests.servers import S3Backend, Servers

AT_ONCE = 12
KEPT = tuple(f"kept/{name}.jpg" for name in ("a", "b", "c"))


@pytest.fixture
def s3_backend(request: pytest.FixtureRequest, servers: Servers) -> S3Backend:
    """SeaweedFS, or the storage that a test names."""
    if getattr(request, "param", "") != "rgw":
        return servers.s3_backend
    rgw: Rgw = request.getfixturevalue("rgw")
    return rgw.backend


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    more = {"chunk_timeout_seconds": 0.3}
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix, **more) as opened:
        yield opened


async def test_every_wrong_request_is_refused_and_leaves_nothing(site: Site) -> None:
    """More than a thousand requests, wrong in one thing each: S3's code for it, no object, no row, no part, and what
    was there is as it was. Then the same requests, right, do what they say. SEED in the environment repeats a run."""
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(1 << 32))
    rng = Random(seed)
    world = await _prepare(site)
    before = await _state(site, world)
    wrongs = [
        *wrong_headers(world, rng),
        *wrong_payloads(world, rng),
        *wrong_addresses(world, rng),
        *wrong_posts(world, rng),
        *wrong_asks(world, rng),
    ]
    rng.shuffle(wrongs)
    failures = await _try_all(world, wrongs)
    assert not failures, f"SEED={seed}: {len(failures)} of {len(wrongs)}:\n" + "\n".join(failures[:40])
    assert await _state(site, world) == before, f"SEED={seed}"
    assert len(wrongs) > 1000
    await _check_right_ones(site, world)


@pytest.mark.parametrize("s3_backend", ["seaweedfs", pytest.param("rgw", marks=pytest.mark.needs_ceph)], indirect=True)
async def test_nothing_is_done_under_another_spelling(site: Site) -> None:
    """What the door could read in one way and the storage in another is refused, and leaves nothing."""
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(1 << 32))
    world = await _prepare(site)
    before = await _state(site, world)
    wrongs = [*wrong_aliases(world, Random(seed))]
    failures = await _try_all(world, wrongs)
    assert not failures, f"SEED={seed}: {len(failures)} of {len(wrongs)}:\n" + "\n".join(failures)
    assert await _state(site, world) == before, f"SEED={seed}"


async def _try_all(world: World, wrongs: Sequence[Wrong]) -> list[str]:
    waiting, failures = list(wrongs), list[str]()

    async def work() -> None:
        while waiting:
            wrong = waiting.pop()
            answer = await send(wrong.draft, world.host)
            refused = answer.status >= 400 or wrong.draft.hangs_up
            if not refused or answer.code not in wrong.codes:
                failures.append(f"{wrong.name}: {answer.status} {answer.code}, not {'/'.join(sorted(wrong.codes))}")

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return sorted(failures)


async def _prepare(site: Site) -> World:
    """What is there before: three photos, a source of copies, two uploads of parts, and keys of all kinds."""
    photo = photos.make_jpeg(64, 48, noise=20)
    for key in (*KEPT, "source/a.jpg"):
        assert (await site.client.put(f"/{site.bucket}/{key}", photo)).status == 200
    await site.blobs.ensure_bucket(f"{site.bucket}-2")
    revoked = await site.key_for()
    async with site.database.transaction() as conn:
        await credentials.revoke(conn, revoked.key.access_key)
    return World(
        host=site.client.url.partition("://")[2],
        bucket=site.bucket,
        other_bucket=f"{site.bucket}-2",
        derived=site.derived,
        who=_signature(site.client),
        other=_signature(await site.key_for()),
        reader=_signature(await site.key_for(scopes=["read"])),
        elsewhere=_signature(await site.key_for(places=[f"{site.bucket}-3"])),
        writer=_signature(await site.key_for(scopes=["write"])),
        narrow=_signature(await site.key_for(places=[f"{site.bucket}/new/mine/"])),
        revoked=_signature(revoked),
        expired=_signature(await site.key_for(expires_at=datetime.now(UTC) - timedelta(seconds=1))),
        photo=photo,
        large=photos.padded(photo, 700_000),
        source="source/a.jpg",
        kept=KEPT,
        parts=await _begin(site, "parts/a.jpg"),
        finished=await _begin(site, "finished/a.jpg", photo),
    )


def _signature(client: Client) -> Signature:
    return Signature(access_key=client.key.access_key, secret_key=client.key.secret_key)


async def _begin(site: Site, key: str, data: bytes = b"") -> Multipart:
    path = f"/{site.bucket}/{key}"
    begun = await site.client.send("POST", path, query=[("uploads", None)])
    upload_id = begun.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
    if not data:
        return Multipart(key=key, upload_id=upload_id)
    part = await site.client.put(path, data, query=[("partNumber", "1"), ("uploadId", upload_id)])
    return Multipart(key=key, upload_id=upload_id, etag=part.headers["ETag"])


async def _state(site: Site, world: World) -> dict[str, Any]:
    """Everything that a wrong request could have changed, asked of the storage itself and of Postgres."""
    s3 = site.blobs._client
    found: dict[str, Any] = {}
    for bucket in (world.bucket, world.other_bucket, site.derived):
        listing = await s3.list_objects_v2(Bucket=bucket)
        found[bucket] = {item["Key"]: (item["ETag"], item["LastModified"]) for item in listing.get("Contents", [])}
        uploads = await s3.list_multipart_uploads(Bucket=bucket)
        found[f"uploads of {bucket}"] = sorted(item["UploadId"] for item in uploads.get("Uploads", []))
    for upload in (world.parts, world.finished):
        parts = await s3.list_parts(Bucket=world.bucket, Key=upload.key, UploadId=upload.upload_id)
        found[f"parts of {upload.key}"] = [(item["PartNumber"], item["ETag"]) for item in parts.get("Parts", [])]
    async with site.database.connection() as conn:
        found["rows"] = [dict(row) for row in await conn.fetch("select * from object order by id")]
        found["jobs"] = [dict(row) for row in await conn.fetch("select * from job order by id")]
    return found


async def _check_right_ones(site: Site, world: World) -> None:
    """In an order in which each can be done."""
    rights: list[tuple[str, Draft]] = []
    for recipe in ALL:
        draft = recipe.make(world, f"right/{recipe.name}.jpg", world.large if recipe.writes else world.photo)
        rights.append((recipe.name, seal(world, recipe, draft, world.who).draft))
    for name, sign in (("v4", sign_query), ("v2", sign_query_v2)):
        draft = address_of(world, Random(1))
        draft.path = world.path(f"right/{name}.jpg")
        sign(draft, world.host, world.who)
        rights.append((f"presigned_{name}", draft))
    for version in (4, 2):
        form = make_form(world, f"right/form_{version}.jpg", world.large, world.who, version=version)
        rights.append((f"form_v{version}", post_of(world, form)))
    answers = {name: await send(draft, world.host) for name, draft in rights}
    assert {name: answer.text for name, answer in answers.items() if not 200 <= answer.status < 300} == {}
    current = Counter(key.partition("/")[0] for key, is_current in await site.photos() if is_current)
    assert current == {"right": 10, "source": 1, "finished": 1}
