"""What counts as a photo here, told from its first bytes, and the list of reasons for which a photo is
rejected.

Names and magic bytes only: nothing is decoded, no header is trusted further than its signature. Standard
library only, because the gateway looks at the first 64 bytes of every upload before it stores anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from processors.contract import Unprocessable

SNIFF_BYTES: Final = 64  # `sniff` never needs more


@dataclass(frozen=True, kw_only=True)
class Format:
    """One accepted kind of file. `extension` is without a dot."""

    name: str
    content_type: str
    extension: str


JPEG: Final = Format(name="jpeg", content_type="image/jpeg", extension="jpg")
PNG: Final = Format(name="png", content_type="image/png", extension="png")
WEBP: Final = Format(name="webp", content_type="image/webp", extension="webp")
GIF: Final = Format(name="gif", content_type="image/gif", extension="gif")
TIFF: Final = Format(name="tiff", content_type="image/tiff", extension="tif")
AVIF: Final = Format(name="avif", content_type="image/avif", extension="avif")
HEIC: Final = Format(name="heic", content_type="image/heic", extension="heic")
HEIF: Final = Format(name="heif", content_type="image/heif", extension="heif")

FORMATS: Final = (JPEG, PNG, WEBP, GIF, TIFF, AVIF, HEIC, HEIF)

# Every code that a photo may be rejected with, and the sentence that people are shown.
CODES: Final[dict[str, str]] = {
    "empty": "The file has no bytes.",
    "not_an_image": "The file does not begin like any image.",
    "unsupported_format": "The file is an image of a kind that is not accepted.",
    "too_large": "The file has more bytes than are allowed.",
    "truncated": "The file ends before its image does.",
    "malformed": "The file's structure or its compressed image is damaged.",
    "too_many_pixels": "The image has more pixels than are allowed.",
    "side_too_long": "The image is wider or higher than is allowed.",
    "too_many_scans": "The JPEG has more scans than any camera or program writes.",
    "too_many_frames": "The file has more frames or pages than are allowed.",
    "too_many_samples": "The image has more samples per pixel, or more bits per sample, than can be decoded.",
    "too_many_parts": "The file is split into more segments, chunks or boxes than any program writes.",
    "metadata_too_large": "The file's EXIF block, colour profile or texts are larger than is allowed.",
}

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
)
_BRANDS: Final = {
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), HEIC),
}
_GENERIC_BRANDS: Final = (b"mif1", b"msf1")
_IMAGES_NOT_ACCEPTED: Final = (
    b"BM",
    b"8BPS",
    b"%!PS",
    b"\x00\x00\x01\x00",
    b"\x00\x00\x02\x00",
    b"II+\x00",
    b"MM\x00+",
    b"\x00\x00\x00\x0cJXL ",
    b"\xff\x0a",
    b"\x00\x00\x00\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"SIMPLE  =",
    b"gimp xcf",
    b"FUJIFILMCCD-RAW",
    b"IIRO",
    b"IIU\x00",
    b"\x76\x2f\x31\x01",
    b"qoif",
    b"DDS ",
    b"<svg",
)


def sniff(head: bytes) -> Format | None:
    """The accepted format whose signature `head` (the first 64 bytes or more) begins with, or None."""
    for signature, found in _SIGNATURES:
        if head.startswith(signature):
            return found
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[4:8] == b"ftyp":
        return _sniff_brands(head)
    return None


def recognise(head: bytes) -> Format:
    """Like `sniff`, but raises Unprocessable `empty`, `unsupported_format` or `not_an_image` in place of
    None.
    """
    found = sniff(head)
    if found is not None:
        return found
    if not head:
        raise rejection("empty")
    if head.startswith(_IMAGES_NOT_ACCEPTED) or (head.startswith(b"<?xml") and b"<svg" in head):
        raise rejection("unsupported_format")
    raise rejection("not_an_image")


def rejection(code: str, note: str = "") -> Unprocessable:
    """The error for one of CODES; `note` is our own addition to its sentence, never a library's text."""
    return Unprocessable(code, f"{CODES[code]} {note}".rstrip())


def _sniff_brands(head: bytes) -> Format | None:
    """An ISO file names its major brand first; `mif1` alone says only that a compatible brand tells more."""
    box_end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, box_end - 3, 4))]
    if brands[0] not in _BRANDS and brands[0] not in _GENERIC_BRANDS:
        return None
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    return HEIF
