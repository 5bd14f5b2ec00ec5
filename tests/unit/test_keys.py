"""Object keys and ids: what is accepted, what is built, and that it always fits S3."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import keys
from storage.keys import MAX_KEY_BYTES, InvalidKey

NOW = datetime(2026, 5, 17, 23, 30, tzinfo=UTC)
BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", fullmatch=True)
PRESETS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)


def is_key(text: str) -> bool:
    try:
        keys.check_key(text)
    except InvalidKey:
        return False
    return True


@given(at_ms=st.integers(0, (1 << 48) - 1), randomness=st.binary(min_size=10, max_size=10))
def test_ids_are_version_7_and_tell_their_time(at_ms: int, randomness: bytes) -> None:
    """Any time and randomness give an RFC 9562 UUID of version 7 whose first 48 bits are the time."""
    made = keys.make_id(at_ms, randomness)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == at_ms


@given(st.lists(st.integers(0, 1 << 47), min_size=2, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_ids_sort_by_time(times_ms: list[int], chance: object) -> None:
    """Ids of different milliseconds sort as their times, in text and as numbers, whatever their randomness."""
    made = [keys.make_id(at_ms, chance.randbytes(10)) for at_ms in sorted(times_ms)]  # type: ignore[attr-defined]
    assert made == sorted(made)
    assert [str(item) for item in made] == sorted(str(item) for item in made)


def test_ids_of_one_moment_differ() -> None:
    """A thousand ids of one millisecond are all different."""
    assert len({keys.new_id(NOW) for _ in range(1000)}) == 1000


def test_an_upload_without_a_key_is_filed_by_day() -> None:
    """The day is UTC's, the id is in the path, and a name is kept or replaced by one of the format."""
    photo_id = keys.new_id(NOW)
    local = NOW.astimezone(tz=None) + timedelta(hours=1)
    assert keys.upload_key(photo_id, "sea.jpg", "png", NOW) == f"uploads/2026/05/17/{photo_id}/sea.jpg"
    assert keys.upload_key(photo_id, "../..", "png", local) == f"uploads/2026/05/18/{photo_id}/photo.png"


def test_artifacts_lie_under_their_source() -> None:
    """An artifact's key can be told from its source by anyone."""
    assert keys.artifact_key("photos", "a/b c.jpg", "thumb", "webp") == "photos/a/b c.jpg/thumb.webp"


@pytest.mark.parametrize("letter", ["k", "ü", "海"])
def test_artifact_keys_change_their_rule_exactly_at_the_limit(letter: str) -> None:
    """A key of exactly 1,024 bytes is spelled out; one byte more, and the source's hash stands for it."""
    room = MAX_KEY_BYTES - len("photos//thumb.webp")
    width = len(letter.encode())
    source = letter * (room // width) + "x" * (room % width)
    fits = keys.artifact_key("photos", source, "thumb", "webp")
    assert (len(fits.encode()), fits) == (MAX_KEY_BYTES, f"photos/{source}/thumb.webp")
    hashed = keys.artifact_key("photos", source + "x", "thumb", "webp")
    assert hashed.startswith("photos/sha256-")
    assert len(hashed) == len("photos/sha256-") + 64 + len("/thumb.webp")
    assert hashed != keys.artifact_key("photos", source + "y", "thumb", "webp")


@given(bucket=BUCKETS, source=st.text(min_size=1, max_size=1100).filter(is_key), preset=PRESETS)
def test_artifact_keys_can_always_be_stored(bucket: str, source: str, preset: str) -> None:
    """Whatever key was accepted, its artifacts' keys are accepted too."""
    key = keys.artifact_key(bucket, source, preset, "webp")
    assert keys.check_key(key) == key
    assert len(key.encode()) <= MAX_KEY_BYTES


@given(st.text())
def test_a_safe_filename_is_a_key_of_its_own(name: str) -> None:
    """Whatever a client calls its file, what is kept of it fits a key, is one part of it, and stays the same."""
    safe = keys.safe_filename(name)
    if safe is None:
        return
    assert keys.check_key(f"uploads/{safe}") == f"uploads/{safe}"
    assert "/" not in safe
    assert len(safe.encode()) <= 200
    assert keys.safe_filename(safe) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        (None, None),
        ("", None),
        ("...", None),
        ("/", None),
        ("sea.jpg", "sea.jpg"),
        ("C:\\photos\\sea.jpg", "sea.jpg"),
        ("../../etc/passwd", "passwd"),
        (" .sea.jpg. ", "sea.jpg"),
        ("a\0b\nc.jpg", "a_b_c.jpg"),
        ("a\u2028b.jpg", "a_b.jpg"),
        ("u\u0308.jpg", "ü.jpg"),
        ("s" * 300 + ".jpeg", "s" * 180 + ".jpeg"),
        ("海" * 100 + ".jpg", "海" * 60 + ".jpg"),
        ("s" * 300, "s" * 200),
    ],
)
def test_file_names_are_made_safe(name: str | None, safe: str | None) -> None:
    """Paths, control characters and dots at the ends go; the extension stays."""
    assert keys.safe_filename(name) == safe


@pytest.mark.parametrize(
    "key", ["a", "a/b/c.jpg", "ü 海.jpg", "k" * 1024, "...", "a..b", ".hidden", "a/.../b", "%2e%2e", "?x=1#y"]
)
def test_ordinary_keys_are_taken_as_they_are(key: str) -> None:
    """Everything that each storage keeps as it is comes back unchanged."""
    assert keys.check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        *("", "k" * 1025, "ü" * 513, "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "../a", "a/.."),
        *("a\0b", "a\nb", "a\x7fb", "a\x85b", "a\ud800b", "a\u2028b", "a\ufffeb", "a\\b"),
    ],
)
def test_keys_that_some_storage_would_change_are_refused(key: str) -> None:
    """Each key that would be refused, collapsed or mangled somewhere is refused here, with a reason."""
    with pytest.raises(InvalidKey, match=r"^a key (must|has)"):
        keys.check_key(key)


@pytest.mark.parametrize("bucket", ["abc", "a-b.c", "0photos9", "b" * 63, "1.2.3", "1.2.3.4.5"])
def test_bucket_names_of_s3_are_taken(bucket: str) -> None:
    """Names that S3 allows pass."""
    assert keys.check_bucket(bucket) == bucket


@pytest.mark.parametrize(
    "bucket",
    [
        "",
        "ab",
        "b" * 64,
        "Abc",
        "a_b",
        "-ab",
        "ab-",
        ".ab",
        "ab.",
        "a..b",
        "192.168.0.1",
        "xn--abc",
        "a/b",
        "abc\n",
        "äbc",
    ],
)
def test_other_bucket_names_are_refused(bucket: str) -> None:
    """Names that S3 does not allow, or that lead elsewhere, are refused."""
    with pytest.raises(InvalidKey):
        keys.check_bucket(bucket)


def test_quarantined_photos_lie_under_their_id() -> None:
    """Two photos that had the same key one after the other do not meet, the file's name is kept, and the longest key
    still fits."""
    one, other = uuid.uuid4(), uuid.uuid4()
    assert keys.quarantine_key("photos", "trip/a b.jpg", one) == f"photos/{one}/a b.jpg"
    assert keys.quarantine_key("photos", "trip/a b.jpg", other) != keys.quarantine_key("photos", "trip/a b.jpg", one)
    assert len(keys.quarantine_key("b" * 63, "ü" * 512, one).encode()) <= keys.MAX_KEY_BYTES
