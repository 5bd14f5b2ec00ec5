"""boto3 against the S3 door with buckets in the host's name, by http and by TLS; and what it sends over TLS alone:
bodies in chunks whose checksum comes in a trailer.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.clients.conftest import BUCKET
from tests.clients.door import DOMAIN, Door
from tests.clients.endpoints import REGION
from tests.photos import make_jpeg, padded

PHOTO = make_jpeg(64, 48)
TRAILERS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@dataclass(kw_only=True)
class Recorded:
    """A boto3 client, and every request as it was sent. `spoils`: one byte of each body is changed on the way."""

    door: Door
    s3: Any = None
    spoils: bool = False
    sent: list[Any] = field(default_factory=list)

    def make(self, style: str, signature: str = "s3v4") -> Any:
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.door.endpoint.access_key,
            aws_secret_access_key=self.door.endpoint.secret_key,
            region_name=REGION,
            verify=self.door.endpoint.ca_file,
            config=Config(
                s3={"addressing_style": style},
                signature_version=signature,
                proxies={},
                retries={"total_max_attempts": 1},
            ),
        )
        self.s3.meta.events.register("before-send.s3", self._note)
        return self.s3

    @property
    def url(self) -> str:
        parts = urlsplit(self.door.endpoint.url)
        return f"{parts.scheme}://{DOMAIN}:{parts.port}"

    @property
    def hosts(self) -> set[str]:
        return {urlsplit(request.url).hostname or "" for request in self.sent}

    def last(self, header: str) -> str | None:
        """That header of the last request."""
        value = self.sent[-1].headers.get(header)
        return value.decode() if isinstance(value, bytes) else value

    def _note(self, request: Any, **_: Any) -> None:
        self.sent.append(request)
        if self.spoils and request.body is not None:
            body = bytearray(request.body.read())
            body[len(body) // 2] ^= 1
            request.body = bytes(body)


@pytest.fixture(params=["http", "tls"])
def recorded(request: pytest.FixtureRequest, storage: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """Names below DOMAIN are this machine's, as a name server would say."""
    resolve = socket.getaddrinfo

    def answer(host: Any, *more: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return resolve("127.0.0.1" if str(name).endswith(DOMAIN) else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    door: Door = request.getfixturevalue(f"door_by_{request.param}")
    yield Recorded(door=door)
    print(f"--- the door's log, at its end:\n{door.log}")


def is_tls(recorded: Recorded) -> bool:
    return recorded.url.startswith("https")


def test_buckets_in_the_host_s_name(recorded: Recorded, storage: Any) -> None:
    """Objects, listings, copies, parts and batches work with no bucket in any path; photos are recorded."""
    s3, prefix = recorded.make("virtual"), f"virtual-{is_tls(recorded)}/"
    s3.put_object(Bucket=BUCKET, Key=prefix + "a b+ü.jpg", Body=PHOTO)
    assert s3.get_object(Bucket=BUCKET, Key=prefix + "a b+ü.jpg")["Body"].read() == PHOTO
    assert storage.get_object(Bucket=BUCKET, Key=prefix + "a b+ü.jpg")["Body"].read() == PHOTO
    s3.copy_object(Bucket=BUCKET, Key=prefix + "copy.jpg", CopySource={"Bucket": BUCKET, "Key": prefix + "a b+ü.jpg"})
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=prefix + "parts.jpg")["UploadId"]
    large, parts = padded(PHOTO, 6 << 20), []
    for number, part in enumerate((large[: 5 << 20], large[5 << 20 :]), 1):
        sent = s3.upload_part(Bucket=BUCKET, Key=prefix + "parts.jpg", UploadId=upload, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32": sent.get("ChecksumCRC32")})
    parts = [{name: value for name, value in part.items() if value} for part in parts]
    done = s3.complete_multipart_upload(
        Bucket=BUCKET, Key=prefix + "parts.jpg", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert done["Location"].startswith(recorded.url.replace("://", f"://{BUCKET}.")), done["Location"]
    listed = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]]
    assert listed == [prefix + name for name in ("a b+ü.jpg", "copy.jpg", "parts.jpg")]
    assert all(recorded.door.recorded(BUCKET, key) for key in listed)
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in listed]})
    assert "Contents" not in storage.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    assert not any(recorded.door.recorded(BUCKET, key) for key in listed)
    assert recorded.hosts == {f"{BUCKET}.{DOMAIN}"}
    assert not any(urlsplit(request.url).path.startswith(f"/{BUCKET}") for request in recorded.sent)


def test_buckets_themselves_by_their_host(recorded: Recorded) -> None:
    """They are made, found, configured and removed by their own hosts, and listed by the domain's."""
    s3, bucket = recorded.make("virtual"), f"by-host-{'tls' if is_tls(recorded) else 'http'}"
    s3.create_bucket(Bucket=bucket)
    s3.head_bucket(Bucket=bucket)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert bucket in [item["Name"] for item in s3.list_buckets()["Buckets"]]
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket=bucket)
    assert recorded.hosts == {DOMAIN, f"{bucket}.{DOMAIN}"}


@pytest.mark.parametrize("signature", ["s3v4", "s3"])
def test_presigned_by_host(recorded: Recorded, signature: str) -> None:
    """URLs and forms that name the bucket in the host hold for that bucket alone, by both versions of signatures."""
    s3, key = recorded.make("virtual", signature), f"presigned-{signature}-{is_tls(recorded)}.jpg"
    named = {"Bucket": BUCKET, "Key": key}
    url = s3.generate_presigned_url("put_object", Params=named)
    assert urlsplit(url).hostname == f"{BUCKET}.{DOMAIN}"
    assert plain(recorded, "PUT", url.replace(BUCKET, "else", 1), data=PHOTO).status_code == 403
    assert plain(recorded, "PUT", url, data=PHOTO).status_code == 200
    assert plain(recorded, "GET", s3.generate_presigned_url("get_object", Params=named)).content == PHOTO
    form = s3.generate_presigned_post(BUCKET, "form-" + key)
    assert urlsplit(form["url"]).hostname == f"{BUCKET}.{DOMAIN}"
    posted = plain(recorded, "POST", form["url"], data=form["fields"], files={"file": ("a.jpg", PHOTO)})
    assert posted.status_code == 204, posted.text
    assert recorded.door.recorded(BUCKET, key)
    assert recorded.door.recorded(BUCKET, "form-" + key)


@pytest.mark.parametrize("style", ["path", "virtual"])
@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_trailers_over_tls(recorded: Recorded, storage: Any, style: str, algorithm: str) -> None:
    """Over TLS boto3's checksum comes behind the body, and it holds: right bytes are stored as they are, a changed byte
    stores nothing. Over http the same call sends no trailer."""
    s3, key = recorded.make(style), f"trailers/{style}-{algorithm}-{is_tls(recorded)}.jpg"
    s3.put_object(Bucket=BUCKET, Key=key, Body=PHOTO, ChecksumAlgorithm=algorithm)
    assert (recorded.last("X-Amz-Content-SHA256") == TRAILERS) == is_tls(recorded)
    assert recorded.last("X-Amz-Trailer") == (f"x-amz-checksum-{algorithm.lower()}" if is_tls(recorded) else None)
    assert storage.get_object(Bucket=BUCKET, Key=key)["Body"].read() == PHOTO
    assert "aws-chunked" not in storage.head_object(Bucket=BUCKET, Key=key).get("ContentEncoding", "")
    recorded.spoils = True
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=BUCKET, Key=key + ".spoiled", Body=PHOTO, ChecksumAlgorithm=algorithm)
    assert caught.value.response["Error"]["Code"] == "BadDigest"
    listing = storage.list_objects_v2(Bucket=BUCKET, Prefix=key)
    assert [item["Key"] for item in listing["Contents"]] == [key]
    assert recorded.door.recorded(BUCKET, key + ".spoiled") is None


def plain(recorded: Recorded, method: str, url: str, **more: Any) -> requests.Response:
    """As somebody who has nothing but the URL."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, verify=recorded.door.endpoint.ca_file or True, timeout=30, **more)
