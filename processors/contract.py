"""The seam between the work and everything around it: what a processor is given and what it gives back.

A processor is a pure function: bytes in, artifacts and facts out. It does no I/O, reads no clock and no settings, and
runs in a sandboxed child process, so everything here can be sent as JSON and bytes. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = Any  # what json.dumps accepts


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named preview setting. Its `version` changes whenever its result would."""

    name: str
    max_side_px: int
    format: Literal["jpeg", "webp"]
    quality: int
    pipeline: int = 1  # raised when the code that renders previews changes what it makes

    @property
    def version(self) -> str:
        return f"{self.format}-{self.max_side_px}-q{self.quality}-p{self.pipeline}"

    @property
    def extension(self) -> str:
        return {"jpeg": "jpg", "webp": "webp"}[self.format]

    @property
    def content_type(self) -> str:
        return f"image/{self.format}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a photo may be at most. Checked from its header, before anything is decoded."""

    max_pixels: int = 50_000_000
    max_side_px: int = 20_000
    max_exif_bytes: int = 1 << 20
    max_icc_bytes: int = 4 << 20
    max_jpeg_scans: int = 64
    max_frames: int = 10_000  # of an animation, pages of a TIFF; only the first is ever decoded
    max_text_bytes: int = 4 << 20  # all texts of a PNG together, as stored: deflated ones are not inflated


@dataclass(frozen=True, kw_only=True)
class Source:
    """The bytes of an object: all of them, or only its head."""

    data: bytes | memoryview
    size_bytes: int  # of the whole object
    complete: bool = True  # False: `data` is only the head; raise Incomplete where that is not enough


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One derived object, ready to be stored."""

    preset: str
    preset_version: str
    data: bytes
    content_type: str
    extension: str  # without a dot
    width_px: int
    height_px: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a processor made of a source. `facts` must survive json.dumps; no NaN, no NUL in strings."""

    artifacts: tuple[Artifact, ...] = ()
    facts: Mapping[str, Json] | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """The configuration that a processor may see."""

    presets: tuple[Preset, ...] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A named, versioned piece of work.

    `reads="head"` asks for the first bytes only; the runner fetches the whole when the function raises Incomplete.
    """

    name: str
    version: int
    run: Callable[[Source, Options], Outcome]
    reads: Literal["head", "whole"] = "whole"


class Unprocessable(Exception):
    """The bytes can never be processed. `code` is stable and shown to people; `detail` is our own sentence about it,
    never a library's text."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Incomplete(Exception):
    """The head of the source does not hold what the processor needs: call again with the whole."""
