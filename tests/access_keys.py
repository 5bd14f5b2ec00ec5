"""Access keys for the S3 door, as tests need them."""

from __future__ import annotations

from typing import Any

from storage import credentials
from storage.credentials import Credential
from storage.database import Connection
from storage.sealing import MasterKeys


async def make_key(conn: Connection, master_keys: MasterKeys, **terms: Any) -> Credential:
    """Store a key of all scopes whose secret is sealed. `terms`: what of `credentials.create` is to be otherwise."""
    made = credentials.generate()
    sealed = master_keys.seal(made.secret_key, access_key=made.access_key)
    await credentials.create(
        conn, made, **{"name": "test", "scopes": list(credentials.SCOPES), "sealed_secret": sealed, **terms}
    )
    return made
