"""What a limited key covers, place by place, and what it never covers."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.reach import Reach, parse_place
from storage import keys

UNLIMITED = Reach(derived_bucket="derived")
NAMES = st.text("abs/2.-", min_size=1, max_size=8)


def reach(*places: str) -> Reach:
    return Reach(places=places, derived_bucket="derived")


def test_a_key_without_places_covers_all() -> None:
    """No places means no limit, whatever the key looks like."""
    assert not UNLIMITED.is_limited
    assert UNLIMITED.covers("any", "a/../b")
    assert UNLIMITED.covers_prefix("any", "")
    assert UNLIMITED.covers_bucket("derived")
    assert UNLIMITED.touches("any")


@pytest.mark.parametrize(
    ("places", "bucket", "key", "covered"),
    [
        (["photos"], "photos", "a.jpg", True),
        (["photos"], "photos2", "a.jpg", False),
        (["photos"], "photo", "s/a.jpg", False),
        (["photos/weddings/"], "photos", "weddings/a.jpg", True),
        (["photos/weddings/"], "photos", "weddings", False),
        (["photos/weddings/"], "photos", "weddings2/a.jpg", False),
        (["photos/weddings/"], "photos", "Weddings/a.jpg", False),
        (["photos/wed"], "photos", "wednesday.jpg", True),
        (["photos/wed"], "photos", "we", False),
        (["photos/a/", "archive"], "archive", "x/y", True),
        (["photos/a/", "archive"], "photos", "b/x", False),
        (["photos/a/", "photos/b/"], "photos", "b/x", True),
    ],
)
def test_places_cover_their_keys(places: list[str], bucket: str, key: str, covered: bool) -> None:
    """A bucket covers all of it and no other, a prefix the keys that literally begin with it."""
    assert reach(*places).covers(bucket, key) is covered


@pytest.mark.parametrize(
    ("places", "key", "covered"),
    [
        (["photos"], "photos/a.jpg/thumb.webp", True),
        (["photos"], "photos2/a.jpg/thumb.webp", False),
        (["photos/weddings/"], "photos/weddings/a.jpg/thumb.webp", True),
        (["photos/weddings/"], "photos/parties/a.jpg/thumb.webp", False),
        (["photos/weddings/"], "archive/weddings/a.jpg/thumb.webp", False),
        (["photos/weddings/"], "photos", False),
        (["photos/weddings/"], "photos/", False),
        (["derived"], "photos/weddings/a.jpg/thumb.webp", True),
        (["derived/photos/weddings/"], "photos/weddings/a.jpg/thumb.webp", True),
        (["derived/photos/weddings/"], "photos/parties/a.jpg/thumb.webp", False),
    ],
)
def test_previews_are_judged_by_their_source(places: list[str], key: str, covered: bool) -> None:
    """A key sees the previews of the photos that it covers; a place may also name the derived bucket itself."""
    assert reach(*places).covers("derived", key) is covered


def test_hashed_previews_are_for_those_who_see_the_whole_bucket() -> None:
    """The preview of too long a key does not tell its source, so no prefix covers it, however it begins."""
    hashed = keys.artifact_key("photos", "private/" + "x" * 1010, "thumb", "webp")
    assert hashed.startswith("photos/sha256-")
    assert reach("photos").covers("derived", hashed)
    for prefix in ("private/", "s", "sha256-", hashed.partition("/")[2][:20]):
        assert not reach(f"photos/{prefix}").covers("derived", hashed)
    assert not reach("photos/s").covers_prefix("derived", "photos/s")
    assert reach("photos/s").covers_prefix("derived", "photos/su")


@pytest.mark.parametrize("key", ["weddings/../x", "weddings/./x", "weddings/..", r"weddings/..\x", r"weddings\..\x"])
def test_dots_do_not_climb_out(key: str) -> None:
    """Keys that a storage could resolve to others are out of a limited key's reach, by prefix and by bucket."""
    for place in ("photos/weddings", "photos"):
        assert not reach(place).covers("photos", key)
        assert not reach(place).covers_prefix("photos", key)
    assert not reach("photos/weddings").covers("derived", f"photos/{key}/thumb.webp")


@pytest.mark.parametrize(
    ("bucket", "prefix", "covered"),
    [
        ("photos", "weddings/", True),
        ("photos", "weddings/2026", True),
        ("photos", "weddings", False),
        ("photos", "", False),
        ("archive", "", True),
        ("derived", "", False),
        ("derived", "photos/", False),
        ("derived", "photos/weddings/", True),
        ("derived", "archive/", True),
        ("derived", "archive", False),
        ("other", "weddings/", False),
    ],
)
def test_a_listing_shows_nothing_outside(bucket: str, prefix: str, covered: bool) -> None:
    """A listing is covered where its prefix lies within a place, not where a place lies within its prefix."""
    assert reach("photos/weddings/", "archive").covers_prefix(bucket, prefix) is covered


def test_buckets_are_whole_or_touched() -> None:
    """Only a place without prefix covers a bucket; any place touches its own and the derived one."""
    limited = reach("photos/weddings/", "archive")
    names = ("photos", "archive", "derived", "other")
    assert [limited.covers_bucket(name) for name in names] == [False, True, False, False]
    assert [limited.touches(name) for name in names] == [True, True, True, False]


@given(place=NAMES, below=st.one_of(st.just(""), NAMES), more=NAMES, bucket=st.sampled_from(["photos", "derived"]))
def test_what_a_covered_listing_shows_is_covered(place: str, below: str, more: str, bucket: str) -> None:
    """Whatever lies below a prefix that may be listed may be read, but for names that climb."""
    limited = reach(f"photos/{place}")
    asked = place + below if bucket == "photos" else f"photos/{place}{below}"
    assume(limited.covers_prefix(bucket, asked))
    assume(not {".", ".."} & {*f"{asked}{more}".split("/")})
    assert limited.covers(bucket, asked + more)


@given(tail=NAMES, place=NAMES, inside=st.booleans(), long=st.booleans())
def test_no_preview_is_seen_whose_source_is_not(tail: str, place: str, inside: bool, long: bool) -> None:
    """Where the preview of a photo is covered, the photo is."""
    source = (place if inside else "") + tail + ("x" * 1010 if long else "")
    limited, key = reach(f"photos/{place}"), keys.artifact_key("photos", source, "thumb", "webp")
    # A prefix may reach past the source's end into the preview's own name: then it names that preview alone.
    assume(not f"{source}/thumb.webp".startswith(place) or source.startswith(place))
    assert not limited.covers("derived", key) or limited.covers("photos", source)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        *(("photos", "photos"), ("photos/", "photos"), ("photos/weddings/", "photos/weddings/")),
        *(("photos/wed", "photos/wed"), ("photos/a b/\u00e9", "photos/a b/\u00e9"), ("photos/a*b", "photos/a*b")),
    ],
)
def test_places_are_read(text: str, place: str) -> None:
    """A bucket, with or without a prefix; an empty prefix is none."""
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "/photos", "ph", "Photos", "photos_", "*", "s3://photos/a", "photos/*", "photos/a/*", "a/b"),
        *("photos//", "photos/a//", "photos/a/../b", "photos/../", "photos/./", "photos/a\0b", "photos/\udcff"),
        *("photos/a\\b", "photos/" + "x" * 1025),
    ],
)
def test_other_places_are_refused(text: str) -> None:
    """A bad bucket name, and a prefix that no stored key begins with, are refused with a reason."""
    with pytest.raises(ValueError, match=r"^(a|an) [a-z]"):
        parse_place(text)
