"""moto as a server in a process of its own. It knows much of S3, keeps everything in memory, checks no signature."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.clients.waiting import wait_until_listening
from tests.servers import S3Backend


class Moto:
    """Listens once it is made, on a free port of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "moto.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"),
                env={"PATH": os.defpath, "PYTHONUNBUFFERED": "1", "AWS_EC2_METADATA_DISABLED": "true"},
                stdout=output,
                stderr=output,
            )
        try:
            self.backend = S3Backend(endpoint=self._wait_for_url(), access_key="storage", secret_key="storage-secret")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _wait_for_url(self) -> str:
        def find() -> re.Match[str] | None:
            return re.search(r"Running on (http://\S+)", self._log.read_text("utf-8"))

        return str(wait_until_listening("moto", find, self._process, self._log)[1])
