"""Access keys: a secret, of which the SHA-256 is kept, scopes, and the places that the key is limited to. Functions
take a connection first.

A key that opens the S3 door has its secret kept sealed as well. Nothing here opens a seal but `reseal`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from storage.database import Connection
from storage.sealing import MasterKeys, SealBroken

SCOPES = ("read", "write", "admin")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A key as it is given out, once. The bearer token is `access_key.secret_key`."""

    access_key: str
    secret_key: str = field(repr=False)

    @property
    def token(self) -> str:
        return f"{self.access_key}.{self.secret_key}"


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """A key as it is kept. Both sealed secrets were sealed for `access_key`; the two fields of the storage are both
    there or both not."""

    access_key: str
    secret_hash: bytes = field(repr=False)
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None
    sealed_secret: bytes | None = field(default=None, repr=False)  # None: opens the REST door only
    places: tuple[str, ...] = ()  # `bucket` or `bucket/prefix`; none: not limited
    storage_access_key: str | None = None  # None: requests go to the storage with Safelight's own credentials
    sealed_storage_secret: bytes | None = field(default=None, repr=False)

    def opens(self, secret_key: str, now: datetime) -> bool:
        """Whether this secret belongs to the key and the key is valid. Takes the same time whatever the secret."""
        matches = hmac.compare_digest(self.secret_hash, hash_secret(secret_key))
        return matches and self.is_valid(now)

    def is_valid(self, now: datetime) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, kw_only=True)
class Resealed:
    """What `reseal` did: how many keys it sealed anew, how many had the first master key already, and which cannot be
    opened, each with the reason."""

    resealed: int
    kept: int
    broken: dict[str, str]


def generate() -> Credential:
    """A fresh key: 20 characters of base32, and 40 characters (240 bits) of secret."""
    access_key = "SL" + "".join(secrets.choice(_ALPHABET) for _ in range(18))
    return Credential(access_key=access_key, secret_key=secrets.token_urlsafe(30))


def parse_token(token: str) -> Credential | None:
    """The two halves of a bearer token; None where it is not one of ours."""
    access_key, dot, secret_key = token.partition(".")
    if not dot or not (access_key.isascii() and access_key.isalnum() and 16 <= len(access_key) <= 40):
        return None
    if not 16 <= len(secret_key) <= 128:
        return None
    return Credential(access_key=access_key, secret_key=secret_key)


def hash_secret(secret_key: str) -> bytes:
    return hashlib.sha256(secret_key.encode("utf-8", "surrogatepass")).digest()


async def create(
    conn: Connection,
    credential: Credential,
    *,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
    sealed_secret: bytes | None = None,
    places: Sequence[str] = (),
    storage_access_key: str | None = None,
    sealed_storage_secret: bytes | None = None,
) -> bool:
    """Store a key. Where that access key exists already, everything about it is set to what is given, and what is left
    out is taken away. True: it was new."""
    return bool(
        await conn.fetchval(
            """
            insert into api_key (access_key, secret_hash, name, scopes, expires_at,
                                 sealed_secret, places, storage_access_key, sealed_storage_secret)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            on conflict (access_key) do update set
              secret_hash = excluded.secret_hash, name = excluded.name, scopes = excluded.scopes,
              expires_at = excluded.expires_at, revoked_at = null, sealed_secret = excluded.sealed_secret,
              places = excluded.places, storage_access_key = excluded.storage_access_key,
              sealed_storage_secret = excluded.sealed_storage_secret
            returning xmax = 0
            """,
            credential.access_key,
            hash_secret(credential.secret_key),
            name,
            list(scopes),
            expires_at,
            sealed_secret,
            list(places),
            storage_access_key,
            sealed_storage_secret,
        )
    )


async def find(conn: Connection, access_key: str) -> KeyRecord | None:
    row = await conn.fetchrow(
        """
        select access_key, secret_hash, name, scopes, expires_at, revoked_at,
               sealed_secret, places, storage_access_key, sealed_storage_secret
        from api_key where access_key = $1
        """,
        access_key,
    )
    if row is None:
        return None
    return KeyRecord(**{**dict(row), "scopes": frozenset(row["scopes"]), "places": tuple(row["places"])})


async def list_keys(conn: Connection) -> list[dict[str, Any]]:
    """Every key, oldest first, without its secrets. `opens_s3`: its secret is kept sealed."""
    rows = await conn.fetch(
        """
        select access_key, name, scopes, places, sealed_secret is not null as opens_s3, storage_access_key,
               created_at, expires_at, revoked_at
        from api_key order by created_at
        """
    )
    return [dict(row) for row in rows]


async def reseal(conn: Connection, masters: MasterKeys) -> Resealed:
    """Seal every secret with the first master key, whichever of them it was sealed with. A key that none of them opens
    is left as it is. Must run in a transaction."""
    rows = await conn.fetch(
        """
        select access_key, sealed_secret, sealed_storage_secret from api_key
        where sealed_secret is not null or sealed_storage_secret is not null
        order by access_key for update
        """
    )
    resealed, broken = 0, {}
    for access_key, *sealed in rows:
        try:
            fresh = [reseal_one(masters, item, access_key) for item in sealed]
        except SealBroken as error:
            broken[access_key] = str(error)
            continue
        if fresh != sealed:
            await conn.execute(
                "update api_key set sealed_secret = $2, sealed_storage_secret = $3 where access_key = $1",
                access_key,
                *fresh,
            )
            resealed += 1
    return Resealed(resealed=resealed, kept=len(rows) - resealed - len(broken), broken=broken)


def reseal_one(masters: MasterKeys, sealed: bytes | None, access_key: str) -> bytes | None:
    """The same secret, sealed with the first master key. Raises SealBroken."""
    if sealed is None:
        return None
    secret = masters.open(sealed, access_key=access_key)  # also where nothing changes: it must be known to open
    return sealed if masters.sealed_by_first(sealed) else masters.seal(secret, access_key=access_key)


async def revoke(conn: Connection, access_key: str) -> bool:
    """True where the key exists; revoking twice keeps the first time."""
    return bool(
        await conn.fetchval(
            "update api_key set revoked_at = coalesce(revoked_at, now()) where access_key = $1 returning true",
            access_key,
        )
    )
