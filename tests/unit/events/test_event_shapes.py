"""Every shape of a bucket event, with every awkward key, reads as exactly the event that it tells of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.bucket_event import BucketEvent, Kind, Reason
from gateway.events.reading import read_events
from tests.unit.events.shapes import KEYS, SHAPES, dump, event_bridge, record, records

S3_SHAPES = [name for name in SHAPES if name != "seaweedfs webhook"]  # which tells of files
ANY_KEY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda key: len(key.encode()) <= 1024
)


def only(body: bytes) -> BucketEvent:
    reading = read_events(body)
    assert (reading.unusable, reading.ignored) == (None, {})
    (event,) = reading.events
    return event


@pytest.mark.parametrize("kind", ["created", "removed"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("name", S3_SHAPES)
def test_shapes(name: str, key: str, kind: Kind) -> None:
    """Each field of the event is what the message says, the key decoded by its source's own rule."""
    shape = SHAPES[name]
    assert only(shape.body(key, kind)) == shape.event(key, kind)


@pytest.mark.parametrize("kind", ["created", "removed"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_the_shape_of_seaweedfs(key: str, kind: Kind) -> None:
    """The filer's path becomes bucket and key; it has no empty parts, and what ends with a slash is a directory."""
    shape = SHAPES["seaweedfs webhook"]
    reading = read_events(shape.body(key, kind))
    if key.endswith("/"):
        assert (reading.events, reading.ignored) == ((), {Reason.DIRECTORY: 1})
    else:
        assert reading.events == (shape.event(key.replace("//", "/"), kind),)


@given(key=ANY_KEY, name=st.sampled_from(S3_SHAPES))
def test_any_key_survives(key: str, name: str) -> None:
    """What a source's encoder wrote, the reader gives back, whatever the key."""
    assert only(SHAPES[name].body(key, "created")).key == key


@given(key=ANY_KEY.filter(lambda key: "/" not in key))
def test_any_name_survives_the_filer(key: str) -> None:
    """A file's name is taken as it is."""
    assert only(SHAPES["seaweedfs webhook"].body(key, "created")).key == key


@pytest.mark.parametrize(
    ("source", "field", "value", "expected"),
    [
        ("aws", "versionId", "null", {"version_id": None}),
        ("aws", "eTag", '"abc-2"', {"etag": "abc-2"}),
        ("aws", "eTag", "", {"etag": None}),
        ("aws", "size", "300", {"size_bytes": 300}),
        ("aws", "size", -1, {"size_bytes": None}),
        ("aws", "size", True, {"size_bytes": None}),
        ("aws", "size", 1 << 63, {"size_bytes": None}),
        ("aws", "size", 1e300, {"size_bytes": None}),
        ("aws", "sequencer", ["1"], {"sequencer": None}),
        ("aws", "versionId", "a\0b", {"version_id": None}),
        (
            "minio",
            "userMetadata",
            {"X-Amz-Meta-Ü": "☃", "x-amz-meta-": "1", "x-amz-meta-n": 1},
            {"metadata": {"ü": "☃"}},
        ),
        ("minio", "userMetadata", ["x-amz-meta-a"], {"metadata": {}}),
        (
            "ceph",
            "metadata",
            [None, {"key": "x-amz-meta-a"}, {"key": "X-Amz-Meta-B", "val": ""}],
            {"metadata": {"b": ""}},
        ),
        ("ceph", "metadata", {"x-amz-meta-a": "b"}, {"metadata": {}}),
    ],
)
def test_odd_fields(source: Any, field: str, value: Any, expected: dict[str, Any]) -> None:
    """An optional field that cannot be used reads as absent, and costs nothing else."""
    event = only(records(record(source, "a", **{field: value})))
    assert {name: getattr(event, name) for name in expected} == expected
    assert (event.key, event.bucket, event.kind) == ("a", "photos", "created")


def test_the_size_of_a_removal() -> None:
    """A size told of what was removed (some servers say 0) is the size of nothing."""
    event = only(records(record("aws", "a", "removed", size=0, eTag="")))
    assert (event.kind, event.size_bytes, event.etag) == ("removed", None, None)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-11-24T02:51:49.498236Z", "2026-11-24T02:51:49.498236+00:00"),
        ("2026-11-24T02:51:49.123456789Z", "2026-11-24T02:51:49.123456+00:00"),
        ("2026-11-24T04:51:49+02:00", "2026-11-24T02:51:49+00:00"),
        ("2026-11-24T02:51:49", "2026-11-24T02:51:49+00:00"),
        (1795488709, "2026-11-24T02:51:49+00:00"),
        ("0001-01-01T00:00:00+23:00", "None"),
        (1e300, "None"),
        (10**30, "None"),
        (True, "None"),
        ("yesterday", "None"),
        (None, "None"),
    ],
)
def test_times(at: Any, expected: str) -> None:
    """A time is read as UTC from every form that a source writes; what is none is no time."""
    event = only(records(record("aws", "a") | {"eventTime": at}))
    assert (event.occurred_at.isoformat() if event.occurred_at else "None") == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("s3:ObjectCreated:Put", "created"),
        ("ObjectCreated:Post", "created"),
        ("ObjectCreated:Copy", "created"),
        ("s3:ObjectCreated:CompleteMultipartUpload", "created"),
        ("ObjectRemoved:DeleteMarkerCreated", "removed"),
        ("s3:ObjectRemoved:DeleteAllVersions", "removed"),
        ("s3:ObjectRemoved:NoOP", "removed"),
        ("LifecycleExpiration:Delete", "removed"),
        ("LifecycleExpiration:DeleteMarkerCreated", "removed"),
        ("ObjectLifecycle:Expiration:Current", "removed"),
        ("s3:ObjectCreated:PutTagging", None),
        ("s3:ObjectCreated:PutRetention", None),
        ("s3:ObjectCreated:PutLegalHold", None),
        ("s3:ObjectCreated:DeleteTagging", None),
        ("s3:ObjectAccessed:Get", None),
        ("ObjectRestore:Completed", None),
        ("s3:ObjectCreated:*", None),
        ("", None),
    ],
)
def test_kinds(name: str, kind: Kind | None) -> None:
    """Only what brings or takes bytes counts; MinIO's tags and retention, which it calls ObjectCreated, do not."""
    reading = read_events(records(record("minio", "a") | {"eventName": name}))
    assert [event.kind for event in reading.events] == ([kind] if kind else [])
    assert reading.ignored == ({} if kind else {Reason.UNWANTED_KIND: 1})


def test_other_messages_of_eventbridge() -> None:
    """EventBridge's tags, tiers and restores are ignored as such."""
    body = event_bridge("a", "created").replace(b"Object Created", b"Object Tags Added")
    assert read_events(body).ignored == {Reason.UNWANTED_KIND: 1}


@pytest.mark.parametrize(
    ("source", "key", "reason"),
    [
        ("aws", "", Reason.MISSING_KEY),
        ("aws", None, Reason.MISSING_KEY),
        ("ceph", 7, Reason.MISSING_KEY),
        ("aws", "k" * 1025, Reason.LONG_KEY),
        ("ceph", "ü" * 513, Reason.LONG_KEY),
        ("aws", "%00", Reason.UNSTORABLE_KEY),
        ("ceph", "a\0", Reason.UNSTORABLE_KEY),
        ("minio", "%FF", Reason.UNDECODABLE_KEY),
        ("minio", "%ED%A0%80", Reason.UNDECODABLE_KEY),  # a surrogate, in what would be its UTF-8
        ("rustfs", "100%", Reason.UNDECODABLE_KEY),
        ("aws", "%2", Reason.UNDECODABLE_KEY),
        ("aws", "%zz", Reason.UNDECODABLE_KEY),
    ],
)
def test_bad_keys(source: Any, key: Any, reason: Reason) -> None:
    """A key that cannot be one is ignored by name; it is never guessed at."""
    reading = read_events(records(record(source, key), record(source, "good")))
    assert ([event.key for event in reading.events], reading.ignored) == (["good"], {reason: 1})


@pytest.mark.parametrize("source", ["aws", "minio", "rustfs", "ceph"])
def test_lone_surrogates(source: Any) -> None:
    """JSON can spell a lone surrogate, which no UTF-8 has: such a key is ignored."""
    body = records(record(source, "SURROGATE")).replace(b"SURROGATE", rb"a\ud800")
    assert read_events(body).ignored == {Reason.UNSTORABLE_KEY: 1}


@pytest.mark.parametrize("bucket", [None, "", "a/b", "a\0b", "b" * 256, 7, {}])
def test_bad_buckets(bucket: Any) -> None:
    """A bucket's name that cannot be one is ignored by name."""
    item = record("ceph", "a")
    item["s3"]["bucket"]["name"] = bucket
    assert read_events(records(item)).ignored == {Reason.BAD_BUCKET: 1}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (None, Reason.MALFORMED),
        ([], Reason.MALFORMED),
        ({}, Reason.UNKNOWN_SOURCE),
        ({"eventSource": ["aws:s3"]}, Reason.UNKNOWN_SOURCE),
        (record("aws", "a") | {"eventSource": "other:s3"}, Reason.UNKNOWN_SOURCE),
        (record("aws", "a") | {"eventVersion": "3.0"}, Reason.UNKNOWN_VERSION),
        (record("aws", "a") | {"eventVersion": 2}, Reason.UNKNOWN_VERSION),
        (record("aws", "a") | {"eventName": None}, Reason.MALFORMED),
        (record("aws", "a") | {"s3": []}, Reason.BAD_BUCKET),
    ],
)
def test_bad_records(item: Any, reason: Reason) -> None:
    """One bad record does not take the others of its message with it, whichever source it claims."""
    reading = read_events(dump({"Records": [record("ceph", "x"), item, item, record("aws", "y")]}))
    assert [event.key for event in reading.events] == ["x", "y"]
    assert reading.ignored == {reason: 2}
