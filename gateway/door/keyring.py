"""The keys that open the S3 door: found in Postgres, unsealed, remembered for a second.

So revoking a key takes effect within that second. A key that is unknown is remembered as such as long.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from gateway.reach import Reach
from gateway.s3.scope import Signer
from storage import credentials
from storage.credentials import KeyRecord
from storage.database import Database
from storage.sealing import MasterKeys, SealBroken

log = structlog.get_logger(__name__)

_REMEMBERED_SECONDS = 1.0
_REMEMBERED_KEYS = 10_000


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Whose key signed. `signer`: what its requests to the storage are signed with."""

    access_key: str
    name: str
    scopes: frozenset[str]
    reach: Reach
    signer: Signer
    secret_key: str = field(repr=False)


class Keyring:
    """The keys of one process. `own`: signs for every key that has no credentials of the storage's own."""

    def __init__(self, database: Database, master_keys: MasterKeys, *, own: Signer, derived_bucket: str) -> None:
        self._database = database
        self._master_keys = master_keys
        self._own = own
        self._derived_bucket = derived_bucket
        self._remembered: dict[str, tuple[float, Principal | None]] = {}
        self._asking: dict[str, asyncio.Task[Principal | None]] = {}

    async def find(self, access_key: str) -> Principal | None:
        """None: unknown, revoked, expired, or not made for this door. Raises DatabaseUnavailable."""
        known = self._remembered.get(access_key)
        if known and known[0] > time.monotonic():
            return known[1]
        asking = self._asking.get(access_key)
        if asking is None:
            asking = self._asking[access_key] = asyncio.create_task(self._ask(access_key))
            asking.add_done_callback(lambda _: self._asking.pop(access_key, None))
        return await asyncio.shield(asking)

    async def _ask(self, access_key: str) -> Principal | None:
        asked_at = time.monotonic()  # what was read is as old as the question
        async with self._database.connection() as conn:
            record = await credentials.find(conn, access_key)
        principal = self._unseal(record) if record is not None else None
        if len(self._remembered) >= _REMEMBERED_KEYS:
            self._remembered.clear()
        self._remembered[access_key] = (asked_at + _REMEMBERED_SECONDS, principal)
        return principal

    def _unseal(self, record: KeyRecord) -> Principal | None:
        expired = record.expires_at is not None and record.expires_at <= datetime.now(UTC)
        if record.revoked_at is not None or expired or record.sealed_secret is None:
            return None
        try:
            return Principal(
                access_key=record.access_key,
                name=record.name,
                scopes=record.scopes,
                reach=Reach(places=record.places, derived_bucket=self._derived_bucket),
                signer=self._signer(record),
                secret_key=self._master_keys.open(record.sealed_secret, access_key=record.access_key),
            )
        except SealBroken as error:
            log.error(  # noqa: TRY400 - the message says all
                "key.sealed_otherwise",
                message="A key's secret cannot be opened. Is SAFELIGHT_MASTER_KEY the one it was sealed with?",
                access_key=record.access_key,
                error=str(error),
            )
            return None

    def _signer(self, record: KeyRecord) -> Signer:
        if record.storage_access_key is None or record.sealed_storage_secret is None:
            return self._own
        secret_key = self._master_keys.open(record.sealed_storage_secret, access_key=record.access_key)
        return Signer(access_key=record.storage_access_key, secret_key=secret_key, region=self._own.region)
