"""What a preview looks like: upright, in sRGB, the right size, no metadata; and which photos get none."""

from __future__ import annotations

import io
from typing import Any

import pytest
import pyvips
from PIL import Image, ImageCms

from processors.contract import Limits, Options, Preset, Source, Unprocessable
from processors.photos import preview
from tests import hostile_photos, photos
from tests.hostile_structures import structures
from tests.photos import Exif, Gps

SMALL = Preset(name="small", max_side_px=160, format="webp", quality=90)
LARGE = Preset(name="large", max_side_px=300, format="jpeg", quality=90)


def render(data: bytes, *presets: Preset, limits: Limits | None = None) -> tuple[Any, ...]:
    options = Options(presets=presets or (LARGE,), limits=limits or Limits())
    return preview.run(Source(data=data, size_bytes=len(data)), options).artifacts


def code_of(data: bytes) -> str:
    with pytest.raises(Unprocessable) as caught:
        render(data)
    return caught.value.code


def assert_upright(data: bytes, tolerance: int = 12) -> None:
    for seen, meant in zip(photos.corners(data), photos.QUADRANTS, strict=True):
        assert photos.distance(seen, meant) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    """All eight EXIF orientations show the four quadrants in their places, and the sides exchanged where
    needed.
    """
    for artifact in render(photos.make_jpeg(orientation=orientation), SMALL, LARGE):
        assert_upright(artifact.data)
        assert (artifact.width_px, artifact.height_px) == (artifact.width_px, artifact.width_px * 3 // 4)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("name", ["png", "webp", "tiff", "heic", "avif"])
def test_other_formats_are_turned_exactly_once(name: str, orientation: int) -> None:
    """EXIF orientation is honoured outside JPEG, and HEIF's own rotation is not applied a second time."""
    data = getattr(photos, f"make_{name}")(160, 120, exif=Exif(orientation=orientation))
    (artifact,) = render(data)
    assert (artifact.width_px, artifact.height_px) == (160, 120)
    assert_upright(artifact.data)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, (300, 225)),
        (480, 640, (225, 300)),
        (300, 10, (300, 10)),
        (40, 30, (40, 30)),
        (2000, 1, (300, 1)),
    ],
)
def test_previews_fit_and_are_never_enlarged(width: int, height: int, expected: tuple[int, int]) -> None:
    """A preview fits into the preset's square, keeps the aspect, and a smaller photo keeps its size."""
    (artifact,) = render(photos.make_png(width, height))
    assert (artifact.width_px, artifact.height_px) == expected
    assert Image.open(io.BytesIO(artifact.data)).size == expected


def test_artifacts_keep_the_order_of_the_presets_and_say_what_they_are() -> None:
    """Artifacts come in the presets' order, in the presets' formats, whichever is the largest."""
    small, large = render(photos.make_jpeg(), SMALL, LARGE)
    assert (small.preset, small.extension, small.content_type) == ("small", "webp", "image/webp")
    assert (large.preset, large.extension, large.content_type) == ("large", "jpg", "image/jpeg")
    assert large.preset_version == LARGE.version
    assert (Image.open(io.BytesIO(small.data)).format, Image.open(io.BytesIO(large.data)).format) == (
        "WEBP",
        "JPEG",
    )


def test_colours_of_a_wide_gamut_profile_are_converted() -> None:
    """A Display P3 photo looks as a colour-managed viewer shows it, which is not what its raw numbers say."""
    profile = photos.wide_gamut_profile()
    (artifact,) = render(photos.make_jpeg(icc=profile, quality=95))
    tagged = Image.open(io.BytesIO(photos.make_png(40, 40, icc=profile)))
    managed = ImageCms.profileToProfile(
        tagged,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert managed is not None
    wanted = [managed.getpixel(place) for place in ((5, 5), (35, 5), (5, 35))]
    for seen, meant, untouched in zip(photos.corners(artifact.data), wanted, photos.QUADRANTS, strict=False):
        assert photos.distance(seen, meant) <= 8  # type: ignore[arg-type]
        assert photos.distance(seen, untouched) > photos.distance(seen, meant)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [photos.make_jpeg(mode="CMYK"), photos.make_tiff(mode="CMYK")], ids=["adobe", "tiff"])
def test_cmyk_keeps_its_colours(data: bytes) -> None:
    """Inverted (Adobe JPEG) and plain CMYK (TIFF) become the colours they mean, not their negatives."""
    red, green, blue, white = photos.corners(render(data)[0].data)
    assert red[0] > 150 and max(red[1:]) < 120
    assert green[1] > max(green[0], green[2]) + 30
    assert blue[2] > max(blue[:2]) + 30
    assert min(white) > 220


@pytest.mark.parametrize(
    "data",
    [
        photos.make_png(bits=16),
        photos.make_tiff(bits=16),
        photos.make_png(mode="P"),
        photos.make_jpeg(progressive=True),
        photos.make_gif(frames=3),
        photos.make_webp(frames=3),
    ],
    ids=["png16", "tiff16", "palette", "progressive", "gif animation", "webp animation"],
)
def test_depths_palettes_and_animations_show_the_picture(data: bytes) -> None:
    """16 bit, palette and progressive files show the picture; of an animation, its first frame alone."""
    for artifact in render(data, SMALL, LARGE):
        assert_upright(artifact.data, tolerance=20)
        assert getattr(Image.open(io.BytesIO(artifact.data)), "n_frames", 1) == 1


@pytest.mark.parametrize("data", [photos.make_png(mode="RGBA"), photos.make_png(mode="RGBA", bits=16)])
def test_transparency_is_white_in_jpeg_and_kept_in_webp(data: bytes) -> None:
    """The transparent quadrant (black underneath) is white as JPEG and still transparent as WebP."""
    small, large = render(data, SMALL, LARGE)
    assert photos.distance(photos.corners(large.data)[3], (255, 255, 255)) <= 2
    webp = Image.open(io.BytesIO(small.data))
    assert webp.mode == "RGBA"
    assert webp.getpixel((140, 100))[3] == 0  # type: ignore[index]
    assert webp.getpixel((20, 20))[3] == 255  # type: ignore[index]


def test_grey_photos_stay_grey() -> None:
    """A grey JPEG has equal channels everywhere in its preview."""
    for colour in photos.corners(render(photos.make_jpeg(mode="L"))[0].data):
        assert max(colour) - min(colour) <= 2


def test_no_metadata_is_left() -> None:
    """EXIF, GPS, profile, comment and appended bytes of the original are nowhere in the artifacts."""
    exif = Exif(make="SECRETMAKE", description="SECRETTEXT", gps=Gps())
    data = photos.make_jpeg(exif=exif, icc=photos.wide_gamut_profile(), comment=b"SECRETCOMMENT") + b"SECRETTAIL"
    for artifact in render(data, SMALL, LARGE):
        assert b"SECRET" not in artifact.data
        shown = Image.open(io.BytesIO(artifact.data))
        assert not shown.getexif()
        assert not {"icc_profile", "exif", "xmp", "comment"} & set(shown.info)
        fields = pyvips.Image.new_from_buffer(artifact.data, "").get_fields()
        assert not [name for name in fields if name.startswith(("exif", "icc", "xmp", "iptc"))]


@pytest.mark.parametrize("name", hostile_photos.polyglots())
def test_polyglots_lose_their_other_half(name: str) -> None:
    """A JPEG that is also a page, an archive or a document comes out as a JPEG alone."""
    (artifact,) = render(hostile_photos.polyglots()[name])
    assert b"script" not in artifact.data and b"PK\x03\x04" not in artifact.data


def test_the_same_photo_gives_the_same_bytes() -> None:
    """Rendering twice gives identical artifacts, so a repeated job overwrites with the same."""
    data = photos.make_jpeg(800, 600, noise=30, orientation=6)
    assert render(data, SMALL, LARGE) == render(data, SMALL, LARGE)


@pytest.mark.parametrize("data", [photos.make_jpeg(), photos.make_png()], ids=["jpeg", "png"])
def test_all_presets_come_from_one_decode(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all libvips operations of a run with three presets, one alone takes pixels from the source's bytes.

    libvips decodes lazily: an opened image that no operation ever takes has had only its header read.
    """
    opened: list[Any] = []
    taken: set[int] = set()
    shrunk_from_source = 0
    original = pyvips.Operation.call

    def record(name: str, *arguments: Any, **options: Any) -> Any:
        nonlocal shrunk_from_source
        shrunk_from_source += name == "thumbnail_buffer"
        taken.update(id(image) for image in opened if any(image is argument for argument in arguments))
        result = original(name, *arguments, **options)
        if "load" in name.lower():
            opened.append(result)
        return result

    monkeypatch.setattr(pyvips.Operation, "call", staticmethod(record))
    middle = Preset(name="middle", max_side_px=200, format="jpeg", quality=80)
    assert len(render(data, SMALL, middle, LARGE)) == 3
    assert opened
    assert len(taken) + shrunk_from_source == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (photos.make_jpeg(noise=30)[:-2000], "truncated"),
        (photos.make_png(noise=30)[:-2000], "truncated"),
        (photos.make_webp()[:-500], "truncated"),
        (photos.make_gif(frames=1)[:-500], "truncated"),
        (photos.make_tiff()[:-5000], "truncated"),
        (photos.make_heic()[:-500], "truncated"),
        (photos.make_avif()[:-500], "truncated"),
    ],
    ids=["jpeg", "png", "webp", "gif", "tiff", "heic", "avif"],
)
def test_truncated_photos_get_no_preview(data: bytes, code: str) -> None:
    """A photo that ends early is rejected as truncated in every format, never half shown."""
    assert code_of(data) == code


def test_a_jpeg_with_a_hole_gets_no_half_grey_preview() -> None:
    """A JPEG that lost its middle but has its end, baseline or progressive, is refused."""
    for progressive in (False, True):
        data = photos.make_jpeg(1200, 900, noise=40, progressive=progressive)
        assert code_of(data[: len(data) // 2] + data[len(data) * 3 // 4 :]) in ("malformed", "truncated")
        assert code_of(data[: len(data) // 2] + b"\xff\xd9") in ("malformed", "truncated")


def test_damaged_compressed_data_is_refused() -> None:
    """Checksums and codes that do not fit are refused by code, not reported as a bug."""
    for data in (photos.make_png(noise=30), photos.make_webp(), photos.make_avif()):
        damaged = bytearray(data)
        for place in range(len(data) // 2, len(data) // 2 + 40):
            damaged[place] ^= 0x55
        assert code_of(bytes(damaged)) in ("malformed", "truncated")


def test_a_lying_header_does_not_open_the_door() -> None:
    """A size that only libvips sees is held to the limits too."""
    data = photos.make_gif(640, 480, frames=1)
    lying = data[:6] + (10).to_bytes(2, "little") + (10).to_bytes(2, "little") + data[10:]
    with pytest.raises(Unprocessable) as caught:
        render(lying, limits=Limits(max_pixels=10_000))
    assert caught.value.code in ("too_many_pixels", "malformed", "truncated")


@pytest.mark.parametrize("name", structures())
@pytest.mark.timeout(10)
def test_structures_that_multiply_or_lie_are_refused_before_the_decode(name: str) -> None:
    """Each hostile structure is refused by its code, and its ordinary like gets a preview, in a moment."""
    make, expected = structures()[name]
    data = make()
    if expected == "read":
        assert render(data)
    else:
        assert code_of(data) == expected
