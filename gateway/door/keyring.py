"""The keys that open the S3 door: found in Postgres, unsealed, remembered for a second."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from gateway.door.access import Rights
from gateway.reach import Reach
from gateway.remembering import Remembered
from gateway.s3.scope import Signer
from storage import credentials
from storage.credentials import KeyRecord
from storage.database import Database
from storage.sealing import MasterKeys, SealBroken

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Principal(Rights):
    """Whose key signed. `signer`: what its requests to the storage are signed with."""

    access_key: str
    signer: Signer
    secret_key: str = field(repr=False)


class Keyring:
    """The keys of one process. `own`: signs for every key that has no credentials of the storage's own."""

    def __init__(self, database: Database, master_keys: MasterKeys, *, own: Signer, derived_bucket: str) -> None:
        self._database = database
        self._master_keys = master_keys
        self._own = own
        self._derived_bucket = derived_bucket
        self._principals = Remembered(self._ask)

    async def find(self, access_key: str) -> Principal | None:
        """None: unknown, revoked, expired, or not made for this door. Raises DatabaseUnavailable."""
        return await self._principals.find(access_key)

    async def _ask(self, access_key: str) -> Principal | None:
        async with self._database.connection() as conn:
            record = await credentials.find(conn, access_key)
        return self._unseal(record) if record is not None else None

    def _unseal(self, record: KeyRecord) -> Principal | None:
        if not record.is_valid(datetime.now(UTC)) or record.sealed_secret is None:
            return None
        try:
            return Principal(
                access_key=record.access_key,
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
