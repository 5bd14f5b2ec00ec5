"""API keys: an access key, a secret of which only the SHA-256 is kept, and scopes. Functions take a connection
first."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.database import Connection

SCOPES = ("read", "write", "admin")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A key as it is given out, once. The bearer token is `access_key.secret_key`."""

    access_key: str
    secret_key: str

    @property
    def token(self) -> str:
        return f"{self.access_key}.{self.secret_key}"


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    access_key: str
    secret_hash: bytes
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None

    def opens(self, secret_key: str, now: datetime) -> bool:
        """Whether this secret belongs to the key and the key is valid. Takes the same time whatever the secret."""
        matches = hmac.compare_digest(self.secret_hash, hash_secret(secret_key))
        return matches and self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


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
    conn: Connection, credential: Credential, *, name: str, scopes: list[str], expires_at: datetime | None = None
) -> bool:
    """Store a key. Where that access key exists already, its secret, name and scopes are set. True: it was new."""
    return bool(
        await conn.fetchval(
            """
            insert into api_key (access_key, secret_hash, name, scopes, expires_at) values ($1, $2, $3, $4, $5)
            on conflict (access_key) do update set
              secret_hash = excluded.secret_hash, name = excluded.name, scopes = excluded.scopes,
              expires_at = excluded.expires_at, revoked_at = null
            returning xmax = 0
            """,
            credential.access_key,
            hash_secret(credential.secret_key),
            name,
            scopes,
            expires_at,
        )
    )


async def find(conn: Connection, access_key: str) -> KeyRecord | None:
    row = await conn.fetchrow(
        "select access_key, secret_hash, name, scopes, expires_at, revoked_at from api_key where access_key = $1",
        access_key,
    )
    return KeyRecord(**{**dict(row), "scopes": frozenset(row["scopes"])}) if row else None


async def list_keys(conn: Connection) -> list[dict[str, Any]]:
    rows = await conn.fetch(
        "select access_key, name, scopes, created_at, expires_at, revoked_at from api_key order by created_at"
    )
    return [dict(row) for row in rows]


async def revoke(conn: Connection, access_key: str) -> bool:
    """True where the key exists; revoking twice keeps the first time."""
    return bool(
        await conn.fetchval(
            "update api_key set revoked_at = coalesce(revoked_at, now()) where access_key = $1 returning true",
            access_key,
        )
    )
