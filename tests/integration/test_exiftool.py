"""Our facts against ExifTool's, on the same files."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import photos
from tests.unit.photos.test_photo_exif import FORMATS, FULL, read


@pytest.mark.needs_exiftool
@pytest.mark.parametrize("name", FORMATS)
def test_facts_equal_exiftools(name: str, tmp_path: Path) -> None:
    """ExifTool, run on the same file, reads the same values."""
    tool = shutil.which("exiftool")
    assert tool is not None
    file = tmp_path / f"photo.{name}"
    file.write_bytes(getattr(photos, f"make_{name}")(128, 96, exif=FULL))
    said = json.loads(subprocess.run([tool, "-j", "-n", str(file)], capture_output=True, check=True).stdout)[0]
    facts = read(file.read_bytes())
    names = {
        "make": "Make",
        "model": "Model",
        "lens": "LensModel",
        "software": "Software",
        "artist": "Artist",
        "copyright": "Copyright",
        "description": "ImageDescription",
        "exposure_time_s": "ExposureTime",
        "f_number": "FNumber",
        "iso": "ISO",
        "focal_length_mm": "FocalLength",
        "focal_length_35mm": "FocalLengthIn35mmFormat",
        "flash": "Flash",
        "orientation": "Orientation",
        "width": "ImageWidth",
        "height": "ImageHeight",
        "gps_lat": "GPSLatitude",
        "gps_lon": "GPSLongitude",
        "gps_alt": "GPSAltitude",
    }
    for fact, tag in names.items():
        if isinstance(facts[fact], float):
            assert math.isclose(facts[fact], said[tag], rel_tol=1e-9), fact
        else:
            assert facts[fact] == said.get(tag, 1 if fact == "orientation" else None), fact
    assert facts["taken_at_local"] == said["DateTimeOriginal"].replace(":", "-", 2).replace(" ", "T")
    assert facts["taken_at_offset"] == said["OffsetTimeOriginal"]
