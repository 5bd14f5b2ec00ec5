"""POST forms that a storage could read otherwise than the door: what is stored is what was let in, and recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from storage.blobs import Blobs
from storage.database import Database
from tests import photos
from tests.integration.door_site import Client, Reply, Site, open_site
from tests.integration.wrong_requests.posts import BOUNDARY, Form
from tests.integration.wrong_requests.signing import Signature, sign_form
from tests.rgw import Rgw
from tests.servers import S3Backend, Servers

PHOTO = photos.make_jpeg(64, 48, noise=20)
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture(params=["seaweedfs", pytest.param("rgw", marks=pytest.mark.needs_ceph)])
def s3_backend(request: pytest.FixtureRequest, servers: Servers) -> S3Backend:
    if request.param == "seaweedfs":
        return servers.s3_backend
    rgw: Rgw = request.getfixturevalue("rgw")
    return rgw.backend


@pytest.fixture
async def site(
    database: Database, blobs: Blobs, postgres_dsn: str, s3_backend: S3Backend, bucket_prefix: str
) -> AsyncIterator[Site]:
    async with open_site(database, blobs, postgres_dsn, s3_backend, bucket_prefix) as opened:
        yield opened


def make_form(site: Site, by: Client, key: str, *more: tuple[str, str]) -> bytes:
    """A form whose policy allows any key, and the further fields."""
    names = ["key", *(name for name, _ in more)]
    conditions = [{"bucket": site.bucket}, *(["starts-with", f"${name}", ""] for name in names)]
    signer = Signature(access_key=by.key.access_key, secret_key=by.key.secret_key)
    signed = sign_form(conditions, signer, lasts=timedelta(minutes=10), version=4)
    return Form(fields=[("key", key), *more, *signed], data=PHOTO).render()


async def post(site: Site, body: bytes, *, bucket: str = "", content_type: str = CONTENT_TYPE) -> Reply:
    url = f"{site.client.url}/{bucket or site.bucket}"
    async with site.session.post(url, data=body, headers={"Content-Type": content_type}) as answer:
        return Reply(status=answer.status, body=await answer.read(), headers=answer.headers)


async def stored(site: Site) -> list[str]:
    listing = await site.blobs._client.list_objects_v2(Bucket=site.bucket)
    return [item["Key"] for item in listing.get("Contents", [])]


@pytest.mark.parametrize(
    ("filename", "key"),
    [
        (b"a.jpg", "new/mine/a.jpg"),
        (b"folder/in a folder/a.jpg", "new/mine/a.jpg"),
        (b"C:\\\\photos\\\\a.jpg", "new/mine/a.jpg"),
        (b"../../outside/a.jpg", "new/mine/a.jpg"),
        (b'a\\"; name=\\"key.jpg', 'new/mine/a"; name="key.jpg'),
        ("Ü.jpg".encode(), "new/mine/Ü.jpg"),
    ],
)
async def test_the_key_is_the_one_that_was_judged(site: Site, filename: bytes, key: str) -> None:
    """${filename} is the last part of the file's name for the storage, too: within the places, and recorded there."""
    writer = await site.key_for(places=[f"{site.bucket}/new/mine/"])
    body = make_form(site, writer, "new/mine/${filename}").replace(b'filename="a.jpg"', b'filename="%s"' % filename)
    reply = await post(site, body)
    assert (reply.status, reply.code) == (204, "")
    assert await stored(site) == [key]
    assert await site.photos() == [(key, True)]
    assert (await site.client.send("GET", f"/{site.bucket}/{key}")).body == PHOTO


async def test_only_the_first_of_two_stand_ins_was_replaced_by_some_storages(site: Site) -> None:
    """Every ${filename} of a key is the file's name; a file that is called so is refused."""
    body = make_form(site, site.client, "new/${filename}/${filename}")
    assert (await post(site, body)).status == 204
    assert await stored(site) == ["new/a.jpg/a.jpg"]
    body = body.replace(b'filename="a.jpg"', b'filename="${filename}"')
    assert (await post(site, body)).code == "InvalidArgument"
    assert await site.photos() == [("new/a.jpg/a.jpg", True)]


async def test_what_follows_the_file_does_not_count(site: Site) -> None:
    """Not another key, not another file: they do not reach the storage."""
    writer = await site.key_for(places=[f"{site.bucket}/new/mine/"])
    for number in range(8):  # some storages take one of several fields by chance
        whole = make_form(site, writer, f"new/mine/{number}.jpg", ("KeY", "x"))
        lines = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="KeY"\r\n\r\n'.encode()
        assert whole.count(lines + b"x\r\n") == 1
        body = whole.replace(lines + b"x\r\n", b"").removesuffix(b"--\r\n") + b"\r\n"
        body += lines + b"outside/a.jpg\r\n"
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="FILE"; filename="b"\r\n\r\nother\r\n'.encode()
        body += f"--{BOUNDARY}--\r\n".encode()
        reply = await post(site, body)
        assert (reply.status, reply.code) == (204, "")
        assert (await site.client.send("GET", f"/{site.bucket}/new/mine/{number}.jpg")).body == PHOTO
    assert await stored(site) == [f"new/mine/{number}.jpg" for number in range(8)]


async def test_quoted_boundaries_and_further_parameters_are_read(site: Site) -> None:
    """As clients may write them; the boundary within the file ends the upload with nothing stored."""
    whole = make_form(site, site.client, "new/a.jpg")
    for content_type in (
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"multipart/form-data;charset=utf-8;BOUNDARY={BOUNDARY};",
    ):
        assert (await post(site, whole, content_type=content_type)).status == 204
    odd = b"a=b:c (1)"
    body = whole.replace(BOUNDARY.encode(), odd)
    assert (await post(site, body, content_type=f'multipart/form-data; boundary="{odd.decode()}"')).status == 204
    body = make_form(site, site.client, "new/b.jpg").replace(PHOTO, PHOTO + f"\r\n--{BOUNDARY}x".encode() + PHOTO)
    assert (await post(site, body)).code == "MalformedPOSTRequest"
    assert await stored(site) == ["new/a.jpg"]
