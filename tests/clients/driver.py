"""A client that is a library: a process that uses it, in the environment that it is installed in.

The process gets the endpoint and then one call a line, as JSON, and answers each with a line. It ends with its input.
"""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.clients.client import ClientFailed, Description
from tests.clients.endpoints import Endpoint

CALL_SECONDS = 120


class Driver:
    """See Client. `command` starts the process."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, endpoint: Endpoint) -> None:
        self._log_path = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        self._send(endpoint.as_message())

    def put(
        self, bucket: str, key: str, path: Path, *, content_type: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        self._ask("put", bucket, key, str(path), content_type, dict(metadata or {}))

    def put_stream(self, bucket: str, key: str, path: Path) -> None:
        self._ask("put_stream", bucket, key, str(path))

    def get(self, bucket: str, key: str, path: Path) -> None:
        self._ask("get", bucket, key, str(path))

    def get_range(self, bucket: str, key: str, path: Path, *, first: int, last: int) -> None:
        self._ask("get_range", bucket, key, str(path), first, last)

    def list(self, bucket: str, prefix: str) -> list[str]:
        keys: list[str] = self._ask("list_keys", bucket, prefix)
        return keys

    def delete(self, bucket: str, key: str) -> None:
        self._ask("delete", bucket, key)

    def describe(self, bucket: str, key: str) -> Description:
        content_type, metadata = self._ask("describe", bucket, key)
        return Description(content_type=content_type, metadata={k.lower(): v for k, v in metadata.items()})

    def copy(self, bucket: str, source: str, target: str) -> None:
        self._ask("copy", bucket, source, target)

    def presign_get(self, bucket: str, key: str) -> str:
        return str(self._ask("presign_get", bucket, key))

    def presign_put(self, bucket: str, key: str) -> str:
        return str(self._ask("presign_put", bucket, key))

    def put_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        files = {prefix + str(path.relative_to(folder)): str(path) for path in folder.rglob("*") if path.is_file()}
        self._ask("put_many", bucket, files)

    def get_tree(self, bucket: str, prefix: str, folder: Path) -> None:
        files = {key: folder / key.removeprefix(prefix) for key in self.list(bucket, prefix)}
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._ask("get_many", bucket, {key: str(path) for key, path in files.items()})

    def delete_tree(self, bucket: str, prefix: str) -> None:
        self._ask("delete_tree", bucket, prefix, self.list(bucket, prefix))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, method: str, *arguments: Any) -> Any:
        self._send({"method": method, "arguments": arguments})
        answer = self._receive(method)
        if "error" in answer:
            raise ClientFailed(answer["error"])
        return answer["result"]

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ClientFailed(f"the client's process has ended:\n{self._log()}") from None

    def _receive(self, method: str) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], CALL_SECONDS)[0]:
            self._process.kill()
            raise ClientFailed(f"{method} took longer than {CALL_SECONDS} s:\n{self._log()}")
        line = self._process.stdout.readline()
        if not line:
            raise ClientFailed(f"the client's process ended during {method}:\n{self._log()}")
        return json.loads(line)

    def _log(self) -> str:
        return self._log_path.read_text("utf-8", "replace")[-4000:]
