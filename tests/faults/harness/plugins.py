"""Interpreters for programs that differ from the installed ones: with third-party processors, or with a wrong clock.

Each is a virtual environment in the test's folder that sees everything of ours and adds a package of its own, as an
operator's plugin would. Nothing outside the folder changes.
"""

from __future__ import annotations

import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.faults.harness.programs import ROOT

_CLOCK = """
import datetime, time

_SHIFT_SECONDS = {seconds!r}
_time, _datetime = time.time, datetime.datetime


class _Shifted(_datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(_time() + _SHIFT_SECONDS, tz)

    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(_time() + _SHIFT_SECONDS, datetime.timezone.utc).replace(tzinfo=None)


time.time = lambda: _time() + _SHIFT_SECONDS
datetime.datetime = _Shifted
"""


def make_python_with_processors(folder: Path, names: Sequence[str]) -> str:
    """An interpreter where these processors of tests/unit/sandbox/hostile.py are installed as a plugin."""
    packages, python = _make(folder)
    lines = [f"{_constant(name)} = next(item for item in PROCESSORS if item.name == {name!r})" for name in names]
    source = "\n".join(["from tests.unit.sandbox.hostile import PROCESSORS", *lines])
    (packages / "hostile_plugin.py").write_text(source + "\n")
    about = packages / "hostile_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile-plugin\nVersion: 1.0\n")
    entries = "\n".join(f"{name} = hostile_plugin:{_constant(name)}" for name in names)
    (about / "entry_points.txt").write_text(f"[safelight.processors]\n{entries}\n")
    return python


def make_python_with_clock(folder: Path, *, shift_seconds: float) -> str:
    """An interpreter whose wall clock (time.time, datetime) is wrong by so much; the monotonic clock is right."""
    packages, python = _make(folder)
    (packages / "sitecustomize.py").write_text(_CLOCK.format(seconds=shift_seconds))
    return python


def _make(folder: Path) -> tuple[Path, str]:
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    ours = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    lines = [f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(ours)]
    (packages / "ours.pth").write_text("\n".join([*lines, str(ROOT)]) + "\n")
    return packages, str(folder / "bin" / "python")


def _constant(name: str) -> str:
    return name.upper().replace("-", "_")
