"""The S3 door as a process of the tests: started on a free port, stopped by its handle."""

from __future__ import annotations

import base64
import json
import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from storage import credentials
from storage.credentials import Credential
from storage.sealing import MasterKeys
from tests.clients.endpoints import Endpoint
from tests.clients.waiting import wait_until_listening
from tests.integration.programs import Program
from tests.servers import S3Backend, run_apart

STOP_SECONDS = 20
DOMAIN = "s3.safelight.test"  # its subdomains are buckets; no name server knows it


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """PEM files: a CA, and a certificate for localhost, 127.0.0.1 and DOMAIN with its key."""

    ca_file: str
    certificate_file: str
    key_file: str


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a door stands between."""

    postgres_dsn: str
    redis_url: str
    backend: S3Backend
    derived_bucket: str = "derived"
    master_key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode(), repr=False)

    def environment(self) -> dict[str, str]:
        """What programs are told of it."""
        return {
            "SAFELIGHT_POSTGRES_DSN": self.postgres_dsn,
            "SAFELIGHT_REDIS_URL": self.redis_url,
            "SAFELIGHT_S3_ENDPOINT": self.backend.endpoint,
            "SAFELIGHT_S3_ACCESS_KEY": self.backend.access_key,
            "SAFELIGHT_S3_SECRET_KEY": self.backend.secret_key,
            "SAFELIGHT_DERIVED_BUCKET": self.derived_bucket,
            "SAFELIGHT_MASTER_KEY": self.master_key,
            "SAFELIGHT_LOG_FORMAT": "json",
        }


class Door:
    """`safelight door`, once it listens, and a key of all scopes for it. Must be opened in the main thread."""

    def __init__(
        self,
        folder: Path,
        around: Surroundings,
        certificates: Certificates | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir()
        self._around = around
        self._postgres_dsn = around.postgres_dsn
        self._log, ports = folder / "door.log", folder / "ports.json"
        environment = {
            **around.environment(),
            "SAFELIGHT_S3_PORT": "0",
            "SAFELIGHT_S3_DOMAINS": DOMAIN,
            "SAFELIGHT_PORTS_FILE": str(ports),
            **(settings or {}),
        }
        if certificates:
            environment["SAFELIGHT_S3_TLS_CERT"] = certificates.certificate_file
            environment["SAFELIGHT_S3_TLS_KEY"] = certificates.key_file
        self._program = Program("door", environment, self._log)
        try:
            url = self._wait_for_url(ports)
            credential = self.make_key(name="clients")
        except BaseException:
            self._program.kill()
            raise
        self.endpoint = Endpoint(
            url=url,
            access_key=credential.access_key,
            secret_key=credential.secret_key,
            ca_file=certificates.ca_file if certificates else None,
        )

    def make_key(self, *, name: str, storage_access_key: str | None = None, storage_secret_key: str = "") -> Credential:
        """A key of all scopes for it, with credentials of the storage's own where they are given."""
        return run_apart(_make_key(self._around, name, storage_access_key, storage_secret_key))

    @property
    def log(self) -> str:
        """The end of what it has logged."""
        return self._log.read_text("utf-8", "replace")[-6000:]

    @property
    def pid(self) -> int:
        return self._program.process.pid

    @property
    def peak_memory_bytes(self) -> int:
        """The most that it ever had resident."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def recorded(self, bucket: str, key: str) -> dict[str, Any] | None:
        """What Postgres knows of the object that is current under a key, None for nothing."""

        async def read() -> asyncpg.Record | None:
            connection = await asyncpg.connect(self._postgres_dsn)
            try:
                return await connection.fetchrow(
                    """
                    select etag, size_bytes, array_agg(job.processor order by job.processor) as processors
                    from object join job on job.object_id = object.id
                    where bucket = $1 and key = $2 and superseded_at is null and deleted_at is null
                    group by object.id
                    """,
                    bucket,
                    key,
                )
            finally:
                await connection.close()

        row = run_apart(read())
        return dict(row) if row else None

    def stop(self) -> None:
        """Orderly; fails where it does not end with code 0."""
        self._program.process.send_signal(signal.SIGTERM)
        try:
            code = self._program.process.wait(STOP_SECONDS)
        finally:
            self._program.kill()
        assert code == 0, f"the door ended with code {code}:\n{self.log}"

    def _wait_for_url(self, ports: Path) -> str:
        wait_until_listening("the door", ports.exists, self._program.process, self._log)
        return str(json.loads(ports.read_text("utf-8"))["s3_url"])


async def _make_key(
    around: Surroundings, name: str, storage_access_key: str | None, storage_secret_key: str
) -> Credential:
    master_keys, made = MasterKeys.parse(around.master_key), credentials.generate()
    sealed_storage = master_keys.seal(storage_secret_key, access_key=made.access_key) if storage_access_key else None
    connection = await asyncpg.connect(around.postgres_dsn)
    try:
        await credentials.create(
            connection,
            made,
            name=name,
            scopes=credentials.SCOPES,
            sealed_secret=master_keys.seal(made.secret_key, access_key=made.access_key),
            storage_access_key=storage_access_key,
            sealed_storage_secret=sealed_storage,
        )
    finally:
        await connection.close()
    return made
