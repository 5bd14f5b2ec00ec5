"""The map of the world is what the packaged data give, so that anybody can make it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import find_tool

SCRIPT = Path(__file__).parent / "js" / "make_world.mjs"
INSTALLED = Path(sys.prefix, "browser")
DRAWN = Path(__file__).parents[2] / "gateway" / "ui" / "static" / "world.js"


@pytest.mark.needs_node
def test_the_map_is_made_of_the_package() -> None:
    """The script, run on the locked release of world-atlas, writes the very file that is served."""
    if not (INSTALLED / "node_modules").exists():
        reason = f"{INSTALLED} is absent: `make test` installs it where npm is."
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    command = [find_tool("needs_node") or "node", str(SCRIPT)]
    made = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout == DRAWN.read_text("utf-8")
    path = made.stdout.split('"')[1]
    assert path.count("M") == path.count("z") > 100  # continents and islands, each closed
