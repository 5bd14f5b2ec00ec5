"""To Ceph RGW, `:photos` is the bucket `photos` of no tenant: what passes the door under that name is recorded as what
it is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from storage.blobs import Blobs
from storage.database import Database
from tests import photos
from tests.integration.door_site import Site, open_site
from tests.rgw import Rgw
from tests.servers import S3Backend

pytestmark = pytest.mark.needs_ceph

PHOTO = photos.make_jpeg(64, 48, noise=20)


@pytest.fixture
def s3_backend(rgw: Rgw) -> S3Backend:
    return rgw.backend


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    more = {"s3_anonymous": "storage"}
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix, **more) as opened:
        yield opened


async def test_the_empty_tenant_is_no_other_bucket(site: Site) -> None:
    """Puts, copies and deletions under `:photos` are those of `photos`, by keys and by strangers."""
    other = f"/:{site.bucket}"
    assert (await site.client.put(f"{other}/a.jpg", PHOTO)).status == 200
    source = {"x-amz-copy-source": f"{site.bucket}/a.jpg"}
    assert (await site.client.send("PUT", f"{other}/b.jpg", headers=source)).status == 200
    await site.client.send("PUT", f"/{site.bucket}", query=[("acl", None)], headers={"x-amz-acl": "public-read-write"})
    async with site.session.put(f"{site.client.url}{other}/c.jpg", data=PHOTO) as answer:
        assert answer.status == 200
    form = aiohttp.FormData({"key": "d.jpg"})
    form.add_field("file", PHOTO, filename="d.jpg")
    async with site.session.post(f"{site.client.url}{other}", data=form) as answer:
        assert answer.status == 204
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert await site.photos() == [(name, True) for name in names]
    assert await site.value("select array_agg(distinct bucket) from object") == [site.bucket]
    assert (await site.client.send("DELETE", f"{other}/a.jpg")).status == 204
    body = b"<Delete><Object><Key>b.jpg</Key></Object></Delete>"
    assert (await site.client.send("POST", other, query=[("delete", None)], body=body)).status == 200
    assert await site.photos() == [(name, name > "b.jpg") for name in names]


async def test_places_do_not_hold_the_bucket_under_that_name(site: Site) -> None:
    """A key that is limited to the bucket is refused there: with credentials of its own it might be another one."""
    limited = await site.key_for(places=[site.bucket])
    assert (await limited.put(f"/{site.bucket}/a.jpg", PHOTO)).status == 200
    for method, path in (("GET", "a.jpg"), ("PUT", "b.jpg"), ("DELETE", "a.jpg")):
        assert (await limited.send(method, f"/:{site.bucket}/{path}")).status == 403
    copied = await limited.put(f"/{site.bucket}/c.jpg", b"", headers={"x-amz-copy-source": f":{site.bucket}/a.jpg"})
    assert copied.status == 403
    assert await site.photos() == [("a.jpg", True)]
