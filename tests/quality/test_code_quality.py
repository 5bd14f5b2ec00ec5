"""ruff and mypy, as tests, so that whatever runs the tests holds them too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, check=False, capture_output=True, text=True, timeout=240
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache"), ("mypy",)],
    ids=["ruff check", "ruff format", "mypy --strict"],
)
def test_the_code_passes(command: tuple[str, ...]) -> None:
    """The whole tree is clean by the rules of pyproject.toml."""
    code, output = run(*command)
    assert code == 0, output


def test_a_violation_is_found(tmp_path: Path) -> None:
    """The rules are really read: code that breaks them fails."""
    bad = tmp_path / "bad.py"
    bad.write_text("import os\n\n\ndef f(x):\n    return x\n")
    assert run("ruff", "check", "--no-cache", "--config", str(ROOT / "pyproject.toml"), str(bad))[0] == 1
    assert run("mypy", "--config-file", str(ROOT / "pyproject.toml"), str(bad))[0] == 1
