"""What is read from EXIF, in every container, and what hostile values become."""

from __future__ import annotations

import json
import math
import struct
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.contract import Incomplete, Options, Source, Unprocessable
from processors.photos import exif
from tests import hostile_photos, photos
from tests.hostile_photos import jpeg_with_exif
from tests.photos import Exif, Gps

FULL = Exif(
    artist="A. Weiss",
    copyright="(c) 2021 A. Weiss",
    description="Four quadrants",
    exposure=Fraction(10, 3),
    flash=25,
    gps=Gps(latitude=-33.8568, longitude=151.2153, altitude_m=-3.5),
    offset="+10:00",
    subsec="042",
)
FORMATS = ("jpeg", "png", "webp", "tiff", "heic", "avif")


def read(data: bytes, head: int | None = None) -> dict[str, Any]:
    complete = head is None or head >= len(data)
    source = Source(data=data if complete else data[:head], size_bytes=len(data), complete=complete)
    facts = exif.run(source, Options()).facts
    assert facts is not None
    json.dumps(facts, allow_nan=False).encode()
    return dict(facts)


def assert_says(facts: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if isinstance(value, float):
            assert math.isclose(facts[name], value, rel_tol=1e-9, abs_tol=1e-7), name
        else:
            assert facts[name] == value, name


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_facts(name: str) -> None:
    """The EXIF block is found in every container that can hold one, and every fact equals what was written."""
    facts = read(getattr(photos, f"make_{name}")(128, 96, exif=FULL))
    assert_says(facts, FULL.facts())
    assert (facts["width"], facts["height"], facts["exif_status"]) == (128, 96, "read")
    assert facts["flash_fired"] is True


def test_head_is_enough_for_a_jpeg() -> None:
    """A 3 MB JPEG's facts are read from its first 64 kB alone."""
    data = photos.make_jpeg(128, 96, exif=FULL) + bytes(3_000_000)
    assert_says(read(data, head=65_536), FULL.facts())


def test_a_head_without_the_end_of_the_exif_is_incomplete() -> None:
    """A head that ends inside the EXIF block asks for the whole instead of giving half the facts."""
    with pytest.raises(Incomplete):
        read(photos.make_jpeg(128, 96, exif=FULL), head=200)
    with pytest.raises(Incomplete):
        read(photos.make_tiff(640, 480, exif=FULL), head=10_000)


@pytest.mark.parametrize("name", [*FORMATS, "gif"])
def test_a_photo_without_exif_has_its_size_and_nulls(name: str) -> None:
    """No EXIF is no error: size and orientation are known, everything else is null."""
    facts = read(getattr(photos, f"make_{name}")(128, 96))
    assert (facts["width"], facts["height"], facts["orientation"]) == (128, 96, 1)
    for fact in ("make", "lens", "taken_at_local", "taken_at_utc", "iso", "gps_lat", "flash", "flash_fired"):
        assert facts[fact] is None


@pytest.mark.parametrize(
    ("offset", "utc"),
    [("+02:00", "2021-06-05T12:03:02Z"), ("-09:30", "2021-06-05T23:33:02Z"), ("Z", "2021-06-05T14:03:02Z")],
)
def test_an_offset_gives_utc(offset: str, utc: str) -> None:
    """UTC is the local time less the file's own offset, and the sources name both tags."""
    facts = read(photos.make_jpeg(128, 96, exif=Exif(offset=offset)))
    assert facts["taken_at_local"] == "2021-06-05T14:03:02"
    assert facts["taken_at_utc"] == utc
    assert facts["taken_at_sources"]["local"] == "EXIF DateTimeOriginal"
    assert facts["taken_at_sources"]["offset"] == "EXIF OffsetTimeOriginal"


@pytest.mark.parametrize(("hours", "late", "known"), [(2, 7, True), (5.75, 90, True), (2, 400, True), (30, 0, False)])
def test_gps_time_gives_utc_where_it_is_plausible(hours: float, late: int, known: bool) -> None:
    """GPS time is UTC, a fix of another day is not believed, and no offset is guessed from it."""
    gps = Gps(time=photos.gps_moment("2021-06-05T14:03:02", hours, late))
    facts = read(photos.make_jpeg(128, 96, exif=Exif(gps=gps)))
    assert facts["taken_at_offset"] is None
    assert (facts["taken_at_utc"] is not None) == known
    if known:
        assert gps.time is not None
        assert facts["taken_at_utc"] == gps.time.isoformat() + "Z"
        assert "GPS" in facts["taken_at_sources"]["utc"]


def test_without_offset_and_gps_time_utc_is_unknown() -> None:
    """Nothing is guessed from the place or from the server's own zone."""
    facts = read(photos.make_jpeg(128, 96, exif=Exif(gps=Gps())))
    assert (facts["taken_at_utc"], facts["taken_at_offset"]) == (None, None)
    assert facts["taken_at_sources"] == {"local": "EXIF DateTimeOriginal", "offset": None, "utc": None}


def tiff_block(tag: int, kind: int, count: int, value: bytes, *, pointer: int | None = None) -> bytes:
    """One entry in IFD0, or behind the pointer tag; its value stands at offset 64."""
    inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", 64)
    entry = struct.pack("<HHHI", 1, tag, kind, count) + inline + bytes(4)
    if pointer is None:
        return (b"II*\0\x08\0\0\0" + entry).ljust(64, b"\0") + value
    first = struct.pack("<HHHII", 1, pointer, 4, 1, 32) + bytes(4)
    return (b"II*\0\x08\0\0\0" + first).ljust(32, b"\0") + entry.ljust(32, b"\0") + value


@pytest.mark.parametrize(
    ("block", "fact", "expected"),
    [
        (tiff_block(0x829A, 5, 1, struct.pack("<II", 1, 0), pointer=0x8769), "exposure_time_s", None),
        (tiff_block(0x829D, 5, 1, struct.pack("<II", 0, 0), pointer=0x8769), "f_number", None),
        (tiff_block(0x829D, 12, 1, struct.pack("<d", math.nan), pointer=0x8769), "f_number", None),
        (tiff_block(0x9003, 2, 20, b"0000:00:00 00:00:00\0", pointer=0x8769), "taken_at_local", None),
        (tiff_block(0x9003, 2, 20, b"2021:13:45 99:00:00\0", pointer=0x8769), "taken_at_local", None),
        (tiff_block(0x9003, 2, 20, b"    :  :     :  :  \0", pointer=0x8769), "taken_at_local", None),
        (tiff_block(0x010F, 2, 12, b"Lumen\0hidden"), "make", "Lumen"),
        (tiff_block(0x010F, 2, 9, b"Lumen   \0"), "make", "Lumen"),
        (tiff_block(0x010F, 2, 6, b"Lu\x1bmen"), "make", "Lu men"),
        (
            tiff_block(0x013B, 2, 12, "Zo\N{LATIN SMALL LETTER E WITH DIAERESIS} \u5199\u771f".encode()),
            "artist",
            "Zo\xeb \u5199\u771f",
        ),
        (tiff_block(0x010F, 2, 4, b"\0\0\0\0"), "make", None),
        (tiff_block(0x010E, 2, 5000, b"x" * 5000), "description", "x" * 1024),
        (tiff_block(0x0112, 3, 1, struct.pack("<H", 9)), "orientation", 1),
        (tiff_block(0x0112, 3, 1, struct.pack("<H", 6)), "orientation", 6),
        (tiff_block(0x8827, 3, 1, struct.pack("<H", 0), pointer=0x8769), "iso", None),
        (tiff_block(2, 5, 3, struct.pack("<6I", 91, 1, 0, 1, 0, 1), pointer=0x8825), "gps_lat", None),
        (tiff_block(6, 5, 1, struct.pack("<II", 4_000_000_000, 1), pointer=0x8825), "gps_alt", None),
    ],
)
def test_impossible_values_become_null(block: bytes, fact: str, expected: object) -> None:
    """Zero denominators, NaN, dates of nothing, NULs, control characters and ranges: null or trimmed, never
    passed on.
    """
    facts = read(jpeg_with_exif(block))
    assert facts["exif_status"] == "read"
    assert facts[fact] == expected


def test_bytes_that_are_no_text_are_still_json() -> None:
    """A make in an unknown charset is replaced, not raised."""
    assert "\N{REPLACEMENT CHARACTER}" in read(jpeg_with_exif(tiff_block(0x010F, 2, 6, b"Lum\xe9n\0")))["make"]


@pytest.mark.parametrize(
    "data",
    [
        hostile_photos.makernote_bomb(),
        hostile_photos.makernote_bomb(7),
        hostile_photos.makernote_bomb(5, 100_000_000),
        hostile_photos.huge_text_count(),
        hostile_photos.pointer_bomb(),
        hostile_photos.exif_bomb(),
        jpeg_with_exif(hostile_photos.circular_tiff()),
        jpeg_with_exif(b"II*\0\xff\xff\xff\xff"),
        jpeg_with_exif(b"garbage"),
    ],
    ids=[
        "long makernote",
        "undefined makernote",
        "rational makernote",
        "text",
        "pointers",
        "entries",
        "circle",
        "far",
        "junk",
    ],
)
@pytest.mark.timeout(5)
def test_hostile_blocks_end_quickly_and_the_photo_stays_a_photo(data: bytes) -> None:
    """An EXIF bomb costs milliseconds, and its photo still has its size."""
    facts = read(data)
    assert facts["width"] in (10, 64)
    assert facts["taken_at_local"] is None


def test_raw_tags_are_kept_but_capped() -> None:
    """All tags are in `raw` by name; thousands of them, or of values, do not make the facts large."""
    raw = read(photos.make_jpeg(128, 96, exif=FULL))["raw"]
    assert raw["EXIF DateTimeOriginal"] == "2021:06:05 14:03:02"
    assert raw["EXIF ISOSpeedRatings"] == 400
    entries = b"".join(struct.pack("<HHII", 0xC000 + n, 3, 90, 0) for n in range(500))
    crowded = read(jpeg_with_exif(b"II*\0\x08\0\0\0" + struct.pack("<H", 500) + entries + bytes(4)))
    assert 10 < len(crowded["raw"]) <= 400
    assert len(json.dumps(crowded)) < 100_000


def test_a_heic_that_lies_about_its_exif_is_rejected_by_code() -> None:
    """A stated length of 2 GB is compared with the limit, not allocated."""
    with pytest.raises(Unprocessable, match="metadata_too_large"):
        read(hostile_photos.heic_that_lies())


@settings(deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_any_block_gives_json_facts(block: bytes, start: bytes) -> None:
    """Whatever bytes stand where EXIF should be, the answer is plain JSON with the photo's size."""
    assert read(jpeg_with_exif(start + block))["width"] == 64
