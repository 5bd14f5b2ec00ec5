"""The storages that the door is compared before, each with more than one user."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safelight.embedded import SeaweedFS
from safelight.embedded.folder import keep_secrets
from safelight.embedded.server import NotReady
from tests.conformance.site import Login
from tests.rgw import Rgw
from tests.servers import S3Backend


@dataclass(frozen=True, kw_only=True)
class Storage:
    """`backend`: what the door itself signs with, which is also the login `main`. `forget`: takes away the
    buckets whose names begin so."""

    name: str
    backend: S3Backend
    logins: Mapping[str, Login]
    forget: Callable[[str], None]
    close: Callable[[], None]


def open_rgw_storage(rgw: Rgw) -> Storage:
    """main and alt, and a user of a tenant, whose buckets are not found by the others."""
    if not rgw.running:
        rgw.start()
    users = {
        "alt": rgw.make_user("alt", email="alt@example.com"),
        "tenant": rgw.make_user("visitor", tenant="tenanted", email="visitor@example.com"),
    }
    logins = {
        name: Login(
            access_key=user.access_key,
            secret_key=user.secret_key,
            canonical_id=user.canonical_id,
            email="alt@example.com" if name == "alt" else "visitor@example.com",
        )
        for name, user in users.items()
    }
    own = rgw.backend
    logins["main"] = Login(access_key=own.access_key, secret_key=own.secret_key, canonical_id="safelight")
    return Storage(
        name="rgw",
        backend=own,
        logins=logins,
        forget=lambda _: None,
        close=lambda: None,  # it lives in memory
    )


class TwoUsers(SeaweedFS):
    """SeaweedFS with a second identity, which may read and list, but not write."""

    def _configuration(self) -> dict[str, str]:
        files = super()._configuration()
        known = json.loads(files["s3.json"])
        made = keep_secrets(self.folder, ["alt_key", "alt_secret"])
        keys = {"accessKey": made["alt_key"], "secretKey": made["alt_secret"]}
        known["identities"].append({"name": "alt", "credentials": [keys], "actions": ["Read", "List"]})
        return {**files, "s3.json": json.dumps(known)}

    @property
    def alt(self) -> Login:
        made = keep_secrets(self.folder, ["alt_key", "alt_secret"])
        return Login(access_key=made["alt_key"], secret_key=made["alt_secret"], canonical_id="alt")


def open_seaweedfs_storage(folder: Path) -> Storage:
    server = TwoUsers(folder / f"seaweedfs-{secrets.token_hex(2)}")
    server.start()
    main = Login(access_key=server.access_key, secret_key=server.secret_key, canonical_id="safelight")

    def forget(prefix: str) -> None:
        listing = server.request("GET", "/").decode()
        for name in listing.split("<Name>")[1:]:
            bucket = name.partition("</Name>")[0]
            if bucket.startswith(prefix):
                with contextlib.suppress(NotReady):  # what is locked stays
                    server.request("DELETE", f"/{bucket}")

    return Storage(
        name="seaweedfs",
        backend=S3Backend(endpoint=server.url, access_key=server.access_key, secret_key=server.secret_key),
        logins={"main": main, "alt": server.alt},
        forget=forget,
        close=server.kill,
    )
