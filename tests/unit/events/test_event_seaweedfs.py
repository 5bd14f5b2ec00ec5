"""SeaweedFS' filer tells of files: which of them are objects, and what happened to those."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.events.bucket_event import Reason
from gateway.events.reading import Reading, read_events
from tests.unit.events.shapes import ETAG, filer_entry, notification

VERSION = "671512ac50c5f8b82960b87caedac258"


def created(path: str, **changes: Any) -> Reading:
    parent = path.rpartition("/")[0]
    return read_events(
        notification("create", path, new_entry=filer_entry(path, **changes), new_parent_path=parent, delete_chunks=True)
    )


def moved(kind: str, old: str, new: str) -> Reading:
    entries = {"old_entry": filer_entry(old), "new_entry": filer_entry(new)}
    return read_events(notification(kind, old, **entries, new_parent_path=new.rpartition("/")[0]))


@pytest.mark.parametrize(
    ("path", "changes", "reason"),
    [
        ("/buckets/photos/dir", {"is_directory": True}, Reason.DIRECTORY),
        ("/buckets/photos", {"is_directory": True}, Reason.DIRECTORY),
        ("/buckets/.system/multipart.log", {}, Reason.SYSTEM_PATH),
        ("/topics/.system/log/1", {}, Reason.SYSTEM_PATH),
        ("/etc/iam/identity.json", {}, Reason.SYSTEM_PATH),
        ("/bucketsphotos/a", {}, Reason.SYSTEM_PATH),
        ("/buckets/photos/.uploads/bab3_1bfe/0001_dd10.part", {}, Reason.UPLOAD_PART),
        ("/buckets/photos", {}, Reason.MISSING_KEY),
        ("/buckets//a", {}, Reason.BAD_BUCKET),
        ("/buckets/photos/" + "k" * 1025, {}, Reason.LONG_KEY),
    ],
)
def test_files_that_are_no_objects(path: str, changes: dict[str, Any], reason: Reason) -> None:
    """Directories, the filer's own files and the parts of multipart uploads give no event."""
    reading = created(path, **changes)
    assert (reading.events, reading.ignored) == ((), {reason: 1})


@pytest.mark.parametrize(
    "path", ["/buckets/photos/a/.uploads/b", "/buckets/photos/.uploadsx", "/buckets/photos/a.part"]
)
def test_objects_that_only_look_like_parts(path: str) -> None:
    """`.uploads/` means parts at the top of a bucket only."""
    assert [event.key for event in created(path).events] == [path.removeprefix("/buckets/photos/")]


@pytest.mark.parametrize("kind", ["update", "rename"])
def test_overwrites(kind: str) -> None:
    """An old and a new entry at one path are an overwrite, whichever of its two names the release gives it."""
    (event,) = moved(kind, "/buckets/photos/a.png", "/buckets/photos/a.png").events
    assert (event.kind, event.key, event.etag, event.size_bytes) == ("created", "a.png", ETAG, 200)


def test_renames() -> None:
    """A rename takes one key away and brings another, in that order, also into another bucket."""
    events = moved("rename", "/buckets/photos/a b.png", "/buckets/other/d/c+d.png").events
    assert [(event.kind, event.bucket, event.key) for event in events] == [
        ("removed", "photos", "a b.png"),
        ("created", "other", "d/c+d.png"),
    ]


def test_renames_out_of_a_buckets_sight() -> None:
    """Each side of a rename is judged alone: what moves from the parts into the bucket is created."""
    reading = moved("rename", "/buckets/photos/.uploads/x/1.part", "/buckets/photos/a.png")
    assert [(event.kind, event.key) for event in reading.events] == [("created", "a.png")]
    assert reading.ignored == {Reason.UPLOAD_PART: 1}


@pytest.mark.parametrize("key", ["v.png", "d/" + "k" * 1022])
def test_versions(key: str) -> None:
    """A version's file is told as its object, however long the key; a delete marker takes the object away."""
    path = f"/buckets/photos/{key}.versions/v_{VERSION}"
    (event,) = created(path).events
    assert (event.kind, event.key, event.version_id) == ("created", key, VERSION)
    marker = {"Seaweed-X-Amz-Delete-Marker": "dHJ1ZQ==", "Seaweed-X-Amz-Version-Id": "NjcxNTEyYWM1"}
    (event,) = created(path, extended=marker).events
    assert (event.kind, event.key, event.version_id, event.size_bytes) == ("removed", key, VERSION, None)


@pytest.mark.parametrize(
    ("changes", "etag"),
    [
        ({"extended": None, "attributes": {"md5": "0Vtv+IW06qtg+u6AfCTcFg=="}}, ETAG),
        ({"extended": {"Seaweed-X-Amz-ETag": "YS0y"}, "attributes": {"md5": "0Vtv+IW06qtg+u6AfCTcFg=="}}, "a-2"),
        ({"extended": {"Seaweed-X-Amz-ETag": "not base64"}, "attributes": {"md5": "AAAA"}}, None),
        ({"extended": {"Seaweed-X-Amz-ETag": "/w=="}, "attributes": {"md5": 7}}, None),
        ({"extended": {"Seaweed-X-Amz-ETag": "ü"}}, None),
        ({"extended": [], "attributes": []}, None),
    ],
)
def test_etags(changes: dict[str, Any], etag: str | None) -> None:
    """The ETag is what S3 gave it, else the file's MD5; what is neither is absent."""
    (event,) = created("/buckets/photos/a", **changes).events
    assert event.etag == etag


@pytest.mark.parametrize("message", [{}, {"new_entry": None}, {"new_entry": [1]}, {"old_entry": "x"}])
def test_notifications_of_nothing(message: dict[str, Any]) -> None:
    """A notification that names no entry is counted as malformed."""
    reading = read_events(notification("update", "/buckets/photos/a", **message))
    assert (reading.events, reading.ignored, reading.unusable) == ((), {Reason.MALFORMED: 1}, None)


def test_paths_that_are_none() -> None:
    """A path that is no text is ignored."""
    body = notification("create", "PATH", new_entry={"name": "a"}).replace(b'"PATH"', b"7")
    assert read_events(body).ignored == {Reason.MISSING_KEY: 1}
