"""CPU seconds per photo: our previews (libvips, one decode) beside Pillow, on the same photos in the same
run.

python -m benchmarks.previews [--photos 4] [--rounds 2]

Generated 12 MP JPEGs with grain, two presets (1440 px JPEG, 320 px WebP), one thread, both sides upright
and stripped. The sides take turns photo by photo, so a busy machine slows both.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
from collections.abc import Callable

import pyvips
from PIL import Image, ImageOps

from processors.contract import Options, Preset, Source
from processors.photos import preview
from tests import photos

PRESETS = (
    Preset(name="thumb", max_side_px=320, format="webp", quality=80),
    Preset(name="preview", max_side_px=1440, format="jpeg", quality=80),
)
LARGEST_FIRST = sorted(PRESETS, key=lambda preset: -preset.max_side_px)
Render = Callable[[bytes], int]


def safelight(data: bytes) -> int:
    outcome = preview.run(Source(data=data, size_bytes=len(data)), Options(presets=PRESETS))
    return sum(len(artifact.data) for artifact in outcome.artifacts)


def pillow_draft(data: bytes) -> int:
    """Pillow at its best: shrink-on-load, each smaller size from the one above."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.draft("RGB", (LARGEST_FIRST[0].max_side_px,) * 2)
    return _pillow(ImageOps.exif_transpose(image))


def pillow_plain(data: bytes) -> int:
    """Pillow as most code uses it: decoded whole for every size."""
    total = 0
    for preset in LARGEST_FIRST:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=("JPEG",)))
        total += len(_saved(image, preset))
    return total


def _pillow(image: Image.Image) -> int:
    total = 0
    for preset in LARGEST_FIRST:
        total += len(_saved(image, preset))
    return total


def _saved(image: Image.Image, preset: Preset) -> bytes:
    image.thumbnail((preset.max_side_px,) * 2, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    stripped = image.convert("RGB")
    stripped.info.clear()
    if preset.format == "jpeg":
        stripped.save(file, "JPEG", quality=preset.quality, optimize=True)
    else:
        stripped.save(file, "WEBP", quality=preset.quality, method=4)
    return file.getvalue()


SIDES: dict[str, Render] = {
    "safelight (libvips)": safelight,
    "Pillow, draft": pillow_draft,
    "Pillow, plain": pillow_plain,
}


def cpu_seconds(render: Render, data: bytes) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    if render(data) < 1:
        raise RuntimeError("nothing was rendered")
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    pyvips.concurrency_set(1)
    made = [
        photos.make_jpeg(4000, 3000, orientation=1 + 5 * (n % 2), noise=25, seed=n, quality=90)
        for n in range(arguments.photos)
    ]
    spent: dict[str, list[float]] = {name: [] for name in SIDES}
    for render in SIDES.values():
        render(made[0])  # first use pays for plugins and tables
    for _ in range(arguments.rounds):
        for data in made:
            for name, render in SIDES.items():
                spent[name].append(cpu_seconds(render, data))
    base = statistics.median(spent["safelight (libvips)"])
    size_mb = sum(map(len, made)) / len(made) / 1e6
    print(f"{len(made)} JPEGs of 12 MP, {size_mb:.1f} MB each, {arguments.rounds} rounds; median CPU seconds per photo")
    print(f"{'':22}{'CPU s':>8}{'ratio':>8}")
    for name, times in spent.items():
        print(f"{name:22}{statistics.median(times):8.3f}{statistics.median(times) / base:8.2f}")


if __name__ == "__main__":
    main()
