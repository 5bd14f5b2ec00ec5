"""The main job: photos in, previews in S3, facts in the database; all seen from outside."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import subprocess
import time
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from tests import photos
from tests.acceptance.stack import Api, Stack
from tests.photos import Exif, Gps

EXIF = Exif(
    artist="A. Nybody",
    description="A pier at noon",
    offset="+02:00",
    exposure=Fraction(1, 320),
    orientation=6,
    gps=Gps(latitude=-33.8568, longitude=151.2153, altitude_m=12.5),
)
# facts' names by the names that ExifTool has for the same
EXIFTOOL_NAMES = {
    "Make": "make",
    "Model": "model",
    "LensModel": "lens",
    "Software": "software",
    "Artist": "artist",
    "ImageDescription": "description",
    "Orientation": "orientation",
    "ExposureTime": "exposure_time_s",
    "FNumber": "f_number",
    "ISO": "iso",
    "FocalLength": "focal_length_mm",
    "FocalLengthIn35mmFormat": "focal_length_35mm",
    "Flash": "flash",
    "GPSAltitude": "gps_alt",
    "GPSLatitude": "gps_lat",
    "GPSLongitude": "gps_lon",
    "ImageWidth": "width",
    "ImageHeight": "height",
}


@pytest.fixture(scope="module")
def camera_jpeg() -> bytes:
    """12 megapixels, held upright, with EXIF, GPS and a wide-gamut profile."""
    profile = photos.wide_gamut_profile()
    return photos.make_jpeg(3000, 4000, exif=EXIF, icc=profile, noise=12, quality=85)


def post(api: Api, data: bytes, name: str = "pier.jpg", **parameters: Any) -> dict[str, Any]:
    answer = api.post("/v1/photos", params=parameters, files={"file": (name, data)})
    assert answer.status_code == 201, answer.text
    photo: dict[str, Any]
    (photo,) = answer.json()["photos"]
    return photo


def get_blob(s3: Any, bucket: str, key: str) -> tuple[bytes, dict[str, Any]]:
    found = s3.get_object(Bucket=bucket, Key=key)
    return found["Body"].read(), found


def test_a_camera_photo_goes_all_the_way(stack: Stack, api: Api, s3: Any, camera_jpeg: bytes) -> None:
    """?wait answers when both jobs are done; original, previews and facts are then where they belong, and right."""
    photo = post(api, camera_jpeg, wait=10)
    assert photo["status"] == "ready"
    assert {job["processor"]: (job["state"], job["outcome"]) for job in photo["jobs"]} == {
        "exif": ("done", "ok"),
        "preview": ("done", "ok"),
    }
    original, _ = get_blob(s3, photo["bucket"], photo["key"])
    assert hashlib.sha256(original).digest() == hashlib.sha256(camera_jpeg).digest() == bytes.fromhex(photo["sha256"])
    assert api.get(photo["links"]["original"]).content == camera_jpeg
    for name, size, kind in (("thumb.webp", (240, 320), "WEBP"), ("preview.jpg", (1080, 1440), "JPEG")):
        data, head = get_blob(s3, "derived", f"{photo['bucket']}/{photo['key']}/{name}")
        assert head["Metadata"]["source-etag"] == photo["etag"]
        assert head["Metadata"]["preset"] == name.partition(".")[0]
        shown = Image.open(io.BytesIO(data))
        assert (shown.size, shown.format) == (size, kind)
        assert shown.getexif().get(0x0112, 1) == 1
        assert api.get(photo["links"]["previews"][name.partition(".")[0]]).content == data


def test_previews_are_upright_and_in_srgb(api: Api) -> None:
    """All eight orientations give a preview whose quadrants lie as they were seen, in the colours of the profile."""
    for orientation in range(1, 9):
        photo = post(api, photos.make_jpeg(640, 480, orientation=orientation), wait=20)
        preview = api.get(photo["links"]["previews"]["thumb"]).content
        assert Image.open(io.BytesIO(preview)).size == (320, 240), orientation
        pairs = zip(photos.corners(preview), photos.QUADRANTS, strict=True)
        assert all(photos.distance(*pair) < 12 for pair in pairs), orientation


def test_facts_are_what_the_camera_wrote(api: Api, camera_jpeg: bytes) -> None:
    """Every fact is the written value, and the list shows time and camera."""
    photo = post(api, camera_jpeg, wait=10)
    exif = api.read(photo["links"]["exif"])
    assert photo["facts"]["exif"] == exif
    expected = EXIF.facts()
    for name in ("gps_lat", "gps_lon"):
        assert exif.pop(name) == pytest.approx(expected.pop(name), abs=1e-6)
    assert {name: exif[name] for name in expected} == expected
    assert (exif["exif_status"], exif["taken_at_utc"]) == ("read", "2021-06-05T12:03:02Z")
    assert (photo["taken_at"], photo["camera"]) == ("2021-06-05T14:03:02", "Lumen Q2")


@pytest.mark.needs_exiftool
def test_facts_are_what_exiftool_reads(api: Api, camera_jpeg: bytes, tmp_path: Path) -> None:
    """An independent reader sees the same values in the file."""
    exif = api.read(post(api, camera_jpeg, wait=10)["links"]["exif"])
    path = tmp_path / "camera.jpg"
    path.write_bytes(camera_jpeg)
    done = subprocess.run(["exiftool", "-n", "-json", str(path)], capture_output=True, check=True, timeout=30)
    (read,) = json.loads(done.stdout)
    for name, fact in EXIFTOOL_NAMES.items():
        assert exif[fact] == (pytest.approx(read[name], rel=1e-9) if isinstance(read[name], float) else read[name]), (
            name
        )
    assert exif["taken_at_local"].replace("-", ":").replace("T", " ") == read["DateTimeOriginal"]


def test_without_wait_the_photo_is_ready_soon(api: Api, camera_jpeg: bytes) -> None:
    """The answer does not wait for the jobs, and three seconds after it they are done."""
    stored = post(api, camera_jpeg)
    answered_at = time.monotonic()
    assert stored["status"] in ("processing", "ready")
    photo = api.settle(stored["id"], seconds=3)
    assert photo["status"] == "ready"
    assert time.monotonic() - answered_at < 3.5
    assert [item["preset"] for item in sorted(photo["artifacts"], key=lambda item: item["preset"])] == [
        "preview",
        "thumb",
    ]


@pytest.mark.parametrize(
    ("name", "content_type", "make"),
    [
        ("a.jpg", "image/jpeg", photos.make_jpeg),
        ("a.png", "image/png", photos.make_png),
        ("a.webp", "image/webp", photos.make_webp),
        ("a.gif", "image/gif", photos.make_gif),
        ("a.tif", "image/tiff", photos.make_tiff),
        ("a.heic", "image/heic", photos.make_heic),
        ("a.avif", "image/avif", photos.make_avif),
    ],
)
def test_every_accepted_format_becomes_ready(api: Api, name: str, content_type: str, make: Any) -> None:
    """The kind is told from the bytes, the original kept, and both previews show the picture."""
    data = make()
    photo = post(api, data, "photo.bin", wait=20)
    assert (photo["status"], photo["content_type"]) == ("ready", content_type)
    for link in photo["links"]["previews"].values():
        pairs = zip(photos.corners(api.get(link).content), photos.QUADRANTS, strict=True)
        assert all(photos.distance(*pair) < 25 for pair in pairs)
    original = api.get(photo["links"]["original"])
    assert (original.content, original.headers["Content-Type"]) == (data, content_type)


@pytest.mark.parametrize(
    "key",
    [
        "with space/a b.jpg",
        "plus+and%percent%20.jpg",
        "Übergröße/日本/🏖.jpg",
        "(paren)[brackets]{braces}'quote'&=;,@!$~.jpg",
        "question?mark#hash.jpg",
        "pipe|pipe^caret`tick.jpg",
    ],
)
def test_awkward_keys_come_back_the_same(stack: Stack, api: Api, s3: Any, bucket: str, key: str) -> None:
    """What a client names a photo is its key in S3, in the answers and, with the preset, in the derived bucket."""
    data = photos.make_jpeg()
    photo = api.put(bucket, quote(key), data)
    assert (photo["bucket"], photo["key"], photo["status"]) == (bucket, key, "ready")
    assert stack.list_keys(bucket) == [key]
    assert get_blob(s3, bucket, key)[0] == data
    assert stack.list_keys("derived", f"{bucket}/") == [f"{bucket}/{key}/preview.jpg", f"{bucket}/{key}/thumb.webp"]
    assert api.get(photo["links"]["original"]).content == data
    assert api.get(photo["links"]["previews"]["thumb"]).status_code == 200
    assert [item["id"] for item in api.read("/v1/photos", bucket=bucket, prefix=key)["photos"]] == [photo["id"]]


@pytest.mark.parametrize(
    "key", ["back%5Cslash.jpg", "nul%00.jpg", "line%0Afeed.jpg", "a//b.jpg", "%2E%2E/up.jpg", "end/"]
)
def test_keys_that_would_not_come_back_are_refused(stack: Stack, bucket: str, key: str) -> None:
    """A key that some storage would change is 400 and stores nothing, under no other key either."""
    url = urlsplit(stack.connection["http_url"])
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=30)
    headers = {"Authorization": f"Bearer {stack.connection['token']}"}
    connection.request("PUT", f"/v1/photos/{bucket}/{key}", photos.make_jpeg(), headers)  # the path as it is
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["code"]) == (400, "invalid_key")
    connection.close()
    assert stack.list_keys(bucket) == []


def test_an_overwritten_key_gets_new_previews(api: Api, s3: Any, bucket: str) -> None:
    """The key shows the new picture everywhere, and the old photo's bytes answer 410."""
    old = api.put(bucket, "one.jpg", photos.make_jpeg(640, 480))
    new = api.put(bucket, "one.jpg", photos.make_jpeg(480, 640))
    assert old["id"] != new["id"]
    data, head = get_blob(s3, "derived", f"{bucket}/one.jpg/thumb.webp")
    assert Image.open(io.BytesIO(data)).size == (240, 320)
    assert head["Metadata"]["source-etag"] == new["etag"]
    for link in (*old["links"]["previews"].values(), old["links"]["original"]):
        gone = api.get(link)
        assert (gone.status_code, gone.json()["code"]) == (410, "photo_superseded")
    assert api.read(old["links"]["self"])["superseded_at"] is not None
    assert [item["id"] for item in api.read("/v1/photos", bucket=bucket)["photos"]] == [new["id"]]


def test_the_same_bytes_again_are_the_same_photo(api: Api, bucket: str) -> None:
    """A PUT that is repeated makes no second photo and no second job."""
    first = api.put(bucket, "one.jpg", photos.make_jpeg())
    again = api.put(bucket, "one.jpg", photos.make_jpeg())
    assert (again["id"], again["jobs"]) == (first["id"], first["jobs"])


def test_delete_takes_original_and_previews(stack: Stack, api: Api, bucket: str) -> None:
    """Nothing of a deleted photo is left in S3 or in any answer."""
    photo = api.put(bucket, "one.jpg", photos.make_jpeg())
    assert stack.list_keys("derived", f"{bucket}/")
    assert api.request("DELETE", photo["links"]["self"]).status_code == 204
    assert stack.list_keys(bucket) == []
    assert stack.list_keys("derived", f"{bucket}/") == []
    for link in (photo["links"]["self"], photo["links"]["original"], photo["links"]["exif"]):
        assert api.get(link).status_code == 404
    assert api.request("DELETE", photo["links"]["self"]).status_code == 404
    assert api.read("/v1/photos", bucket=bucket)["photos"] == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"%PDF-1.7 no photo", "not_an_image"),
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
    ],
)
def test_what_is_no_photo_is_refused_and_not_stored(
    stack: Stack, api: Api, bucket: str, data: bytes, code: str
) -> None:
    """415 with a code at both doors, and the bucket stays empty."""
    for answer in (
        api.request("PUT", f"/v1/photos/{bucket}/file.jpg", data=data),
        api.post("/v1/photos", params={"bucket": bucket}, files={"file": ("file.jpg", data)}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (415, code)
    assert stack.list_keys(bucket) == []
    assert api.read("/v1/photos", bucket=bucket)["photos"] == []


def test_a_truncated_photo_is_rejected_without_a_retry(api: Api, bucket: str) -> None:
    """It is kept and named rejected with a code; its preview job ran once and is done."""
    photo = api.put(bucket, "cut.jpg", photos.make_jpeg(1600, 1200, noise=30)[:60_000])
    assert photo["status"] == "rejected"
    assert photo["rejection"]["code"] == "truncated"
    (job,) = (job for job in photo["jobs"] if job["processor"] == "preview")
    detail = api.read(job["url"])
    assert (detail["state"], detail["outcome"], detail["attempt"]) == ("done", "rejected", 1)
    assert [attempt["outcome"] for attempt in detail["attempts"]] == ["rejected"]
    missing = api.get(photo["links"]["previews"]["thumb"])
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_preview")


def test_an_unknown_bucket_is_404_and_is_not_made(api: Api, s3: Any) -> None:
    """Neither door makes buckets."""
    for answer in (
        api.request("PUT", "/v1/photos/no-such-bucket/a.jpg", data=photos.make_jpeg()),
        api.post("/v1/photos", params={"bucket": "no-such-bucket"}, files={"file": ("a.jpg", photos.make_jpeg())}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_bucket")
    assert "no-such-bucket" not in [item["Name"] for item in s3.list_buckets()["Buckets"]]


def test_a_photo_that_is_too_large_is_refused(stack: Stack, api: Api, bucket: str) -> None:
    """413, whether the length is declared or found out while it comes; nothing is left in the bucket."""
    data = photos.make_jpeg(size_bytes=(16 << 20) + 1)
    pieces = (data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20))
    for answer in (
        api.request("PUT", f"/v1/photos/{bucket}/declared.jpg", data=data),
        api.request("PUT", f"/v1/photos/{bucket}/chunked.jpg", data=pieces),
        api.post("/v1/photos", params={"bucket": bucket}, files={"file": ("form.jpg", data)}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        problem = answer.json()
        assert problem.get("errors", [problem])[0]["max_bytes"] == 16 << 20
    assert stack.list_keys(bucket) == []
    largest = photos.make_jpeg(size_bytes=16 << 20)
    assert api.put(bucket, "largest.jpg", largest)["size_bytes"] == 16 << 20


def test_only_safelight_writes_previews(stack: Stack, api: Api) -> None:
    """The derived bucket is closed to uploads."""
    answer = api.request("PUT", "/v1/photos/derived/mine.jpg", data=photos.make_jpeg())
    assert (answer.status_code, answer.json()["code"]) == (403, "derived_bucket_is_read_only")
    assert "mine.jpg" not in stack.list_keys("derived")


def test_everything_survives_restarts(tmp_path: Path) -> None:
    """After Ctrl-C, and after SIGKILL of every process, photos, previews and keys are there, and open jobs run."""
    stack = Stack(tmp_path, SAFELIGHT_LEASE_SECONDS="3")
    stack.start()
    try:
        data = photos.make_jpeg(exif=EXIF)
        token = stack.make_key("read")["token"]
        before = post(stack.api, data, wait=20)
        for end in (stack.stop, stack.kill):
            with stack.worker_suspended():
                unfinished = post(stack.api, photos.make_png())["id"]
                if end == stack.kill:
                    end()
            if end == stack.stop:
                end()
            stack.start()
            guest = stack.client(token)
            assert guest.read(before["links"]["self"]) == before
            assert guest.get(before["links"]["original"]).content == data
            for link in before["links"]["previews"].values():
                assert guest.get(link).status_code == 200
            assert stack.api.settle(unfinished, seconds=30)["status"] == "ready"
        stack.stop()
    finally:
        stack.end()
