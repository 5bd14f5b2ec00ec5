"""What is taken for a photo, and with which code the rest is rejected."""

from __future__ import annotations

import subprocess
import sys

import pytest

from processors.contract import Incomplete, Limits, Source, Unprocessable
from processors.photos import formats, jpeg
from processors.photos.headers import read_header
from processors.photos.window import Window
from tests import hostile_photos, photos

MADE = {
    "jpeg": photos.make_jpeg(128, 96),
    "png": photos.make_png(128, 96),
    "webp": photos.make_webp(128, 96),
    "gif": photos.make_gif(128, 96),
    "tiff": photos.make_tiff(128, 96),
    "heic": photos.make_heic(128, 96),
    "avif": photos.make_avif(128, 96),
}


def source(data: bytes, head: int | None = None) -> Source:
    if head is None or head >= len(data):
        return Source(data=data, size_bytes=len(data))
    return Source(data=data[:head], size_bytes=len(data), complete=False)


def code_of(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(Unprocessable) as caught:
        read_header(source(data), limits or Limits())
    return caught.value.code


@pytest.mark.parametrize("name", MADE)
def test_every_accepted_format_is_told_from_its_first_64_bytes(name: str) -> None:
    """The first 64 bytes tell the format, whatever the file is called."""
    found = formats.sniff(MADE[name][: formats.SNIFF_BYTES])
    assert found is not None and found.name == name
    assert found.content_type == f"image/{name}"


@pytest.mark.parametrize("name", MADE)
def test_size_is_read_without_decoding(name: str) -> None:
    """Width and height come from the header of every format."""
    header = read_header(source(MADE[name]), Limits())
    assert (header.width_px, header.height_px) == (128, 96)


@pytest.mark.parametrize("name", hostile_photos.not_photos())
def test_what_is_no_accepted_photo_is_rejected_by_code(name: str) -> None:
    """Scripts, pages, vector graphics and unknown bytes never reach a decoder."""
    data, code = hostile_photos.not_photos()[name]
    assert formats.sniff(data[:64]) is None
    assert code_of(data) == code


def test_sniffing_imports_no_imaging_library() -> None:
    """The gateway can sniff and list processors without paying for, or risking, a decoder."""
    script = (
        "import sys; import processors.registry, processors.photos.formats;"
        "processors.registry.available();"
        "sys.exit(any(name.split('.')[0] in ('pyvips', 'PIL', 'exifread', 'pillow_heif') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_rejection_has_a_sentence() -> None:
    """Each code used anywhere in the source is in the table that people are shown, and the reverse."""
    from pathlib import Path
    from re import findall

    folder = Path(formats.__file__).parent
    files = [*folder.glob("*.py"), folder.parent / "runner.py"]
    used = {code for file in files for code in findall(r'(?:rejection|Unprocessable)\(\s*"(\w+)"', file.read_text())}
    assert used == set(formats.CODES)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(max_pixels=128 * 96 - 1), "too_many_pixels"),
        (Limits(max_side_px=127), "side_too_long"),
        (Limits(max_exif_bytes=50), "metadata_too_large"),
        (Limits(max_icc_bytes=50), "metadata_too_large"),
    ],
)
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "heic", "avif"])
def test_limits_are_held_by_the_header_alone(name: str, limits: Limits, code: str) -> None:
    """A photo over a limit is rejected by its code; exactly at the size limit it passes."""
    make = getattr(photos, f"make_{name}")
    data = make(128, 96, exif=photos.Exif(), icc=photos.srgb_profile())
    assert code_of(data, limits) == code
    read_header(source(data), Limits(max_pixels=128 * 96, max_side_px=128))


def test_scans_are_counted_and_capped() -> None:
    """A baseline JPEG has one scan, a progressive one several, and a scan bomb is refused before it is
    decoded.
    """
    assert jpeg.count_scans(Window(source(MADE["jpeg"])), 64) == 1
    progressive = photos.make_jpeg(128, 96, progressive=True)
    assert 2 <= jpeg.count_scans(Window(source(progressive)), 64) <= 14
    with pytest.raises(Unprocessable, match="too_many_scans"):
        jpeg.count_scans(Window(source(hostile_photos.scan_bomb(100, 100))), 64)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "heic", "avif"])
def test_a_head_says_incomplete_where_the_whole_file_would_do(name: str) -> None:
    """Cut anywhere, a head is either enough for the same header or Incomplete, never a rejection."""
    make = getattr(photos, f"make_{name}")
    data = make(128, 96, exif=photos.Exif())
    whole = read_header(source(data), Limits())
    answers = set()
    for size in range(formats.SNIFF_BYTES, len(data), 37):
        try:
            assert read_header(source(data, size), Limits()) == whole
            answers.add("enough")
        except Incomplete:
            answers.add("incomplete")
    assert "incomplete" in answers
    assert name in ("webp", "heic") or "enough" in answers  # their EXIF comes last


@pytest.mark.parametrize("name", MADE)
def test_no_cut_header_escapes_as_another_error(name: str) -> None:
    """A whole file cut anywhere in its first kilobyte is read or rejected by code; nothing else is ever
    raised.
    """
    answers: set[str] = set()
    for size in range(min(1024, len(MADE[name]))):
        try:
            read_header(source(MADE[name][:size]), Limits())
        except Unprocessable as error:
            answers.add(error.code)
    assert answers <= set(formats.CODES)
