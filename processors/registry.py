"""The processors there are: the built-in ones as a visible tuple, others by entry point.

Importing this module imports no imaging library: each built-in processor imports its own when it runs. A
package adds processors with an entry point in the group `safelight.processors` that names a Processor; it
should import as lightly.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Final

from processors.contract import Options, Outcome, Processor, Source

ENTRY_POINT_GROUP: Final = "safelight.processors"


def _run_preview(source: Source, options: Options) -> Outcome:
    from processors.photos import preview

    return preview.run(source, options)


def _run_exif(source: Source, options: Options) -> Outcome:
    from processors.photos import exif

    return exif.run(source, options)


PREVIEW: Final = Processor(name="preview", version=1, run=_run_preview)
EXIF: Final = Processor(name="exif", version=1, run=_run_exif, reads="head")
BUILTIN: Final = (PREVIEW, EXIF)


@cache
def available() -> tuple[Processor, ...]:
    """The built-in processors, then the installed third-party ones by name.

    Raises TypeError for an entry point that names no Processor, ValueError for a name that is already taken.
    """
    found = list(BUILTIN)
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        processor = entry.load()
        if not isinstance(processor, Processor):
            raise TypeError(f"entry point {entry.name!r} of {ENTRY_POINT_GROUP} is not a Processor")
        if any(processor.name == other.name for other in found):
            raise ValueError(f"entry point {entry.name!r}: there is already a processor {processor.name!r}")
        found.append(processor)
    return tuple(found)


def get(name: str) -> Processor:
    """The processor of that name. Raises KeyError."""
    for processor in available():
        if processor.name == name:
            return processor
    raise KeyError(name)
