"""What is written straight to the storage of `safelight up`, behind the gateway's back, is a photo at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.stack import Stack, wait_for
from tests.photos import make_jpeg


@pytest.fixture
def hearing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Safelight as `safelight up` starts it, with no setting but free ports."""
    made = Stack(tmp_path_factory.mktemp("hearing"))
    try:
        made.start()
        yield made
        made.stop()
    finally:
        made.end()


def find(stack: Stack, key: str) -> dict[str, Any] | None:
    """The photo under that key, once it is ready."""
    photos = stack.api.read("/v1/photos", bucket="photos", prefix=key)["photos"]
    return next((photo for photo in photos if photo["key"] == key and photo["status"] == "ready"), None)


def test_a_photo_put_by_s3_into_the_storage_is_ready_and_gone_with_its_object(hearing: Stack) -> None:
    """boto3 puts a photo into the storage itself: its previews are there within seconds; overwritten it is another
    photo; deleted there, it is none any more. No setting was made for this."""
    key = "straight/my cat+dog ü.jpg"
    hearing.s3.put_object(Bucket="photos", Key=key, Body=make_jpeg(640, 480))
    first = wait_for(lambda: find(hearing, key), "the photo is ready")
    assert f"photos/{key}/thumb.webp" in hearing.list_keys("derived", "photos/straight/")
    hearing.s3.put_object(Bucket="photos", Key=key, Body=make_jpeg(480, 640))

    def replaced() -> bool:
        now = find(hearing, key)
        return now is not None and now["id"] != first["id"]

    wait_for(replaced, "the other photo is ready")
    hearing.s3.delete_object(Bucket="photos", Key=key)
    wait_for(lambda: not hearing.api.read("/v1/photos", bucket="photos", prefix=key)["photos"], "the photo is gone")
