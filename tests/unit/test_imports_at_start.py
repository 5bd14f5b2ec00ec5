"""What a command loads before it does anything: time of whoever types it, and memory of the S3 door."""

import subprocess
import sys

import pytest

from safelight import __main__, serving

COMMAND_LINE = {"typer", "pydantic"}
LARGE = {"aioboto3", "boto3", "botocore", "taskiq", "redis", "marshmallow", "apispec", "PIL", "pyvips", "exifread"}


def test_neither_the_command_line_nor_the_s3_door_loads_what_others_need() -> None:
    """No queue, no S3 library, no schemas, no imaging: each costs a process of the door megabytes for nothing."""
    assert LARGE & loaded_by("safelight.cli", "gateway.door.app") == set()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("gateway.door.app", LARGE | COMMAND_LINE), ("gateway.app", {"typer"}), ("processors.worker", {"typer"})],
)
def test_what_serves_loads_nothing_of_the_command_line(module: str, unwanted: set[str]) -> None:
    """What reads options would take time at each start, and stay in memory while it serves."""
    assert unwanted & loaded_by("safelight.__main__", "safelight.serving", module) == set()


def test_what_serves_is_known_by_the_same_names_twice() -> None:
    assert set(__main__.SERVING) == set(serving.SERVING)


def loaded_by(*modules: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after these imports."""
    statement = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True)
    return set(run.stdout.split())
