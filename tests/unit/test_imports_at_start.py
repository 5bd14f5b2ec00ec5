"""What a command loads before it does anything: time of whoever types it, and memory of the S3 door."""

import subprocess
import sys

COMMAND_LINE = {"typer", "pydantic"}
LARGE = {"aioboto3", "boto3", "botocore", "taskiq", "redis", "marshmallow", "apispec", "PIL", "pyvips", "exifread"}


def test_neither_the_command_line_nor_the_s3_door_loads_what_others_need() -> None:
    """No queue, no S3 library, no schemas, no imaging: each costs a process of the door megabytes for nothing."""
    statement = "import sys, safelight.cli, gateway.door.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True).stdout
    assert LARGE & set(loaded.split()) == set()


def test_the_process_of_the_s3_door_loads_nothing_of_the_command_line() -> None:
    """`safelight door` becomes another program: what reads options would stay in memory while it serves."""
    statement = "import sys, safelight.doorway; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True).stdout
    assert (LARGE | COMMAND_LINE) & set(loaded.split()) == set()
