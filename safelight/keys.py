"""`safelight keys`: access keys, the doors that they open and the places that they are limited to.

Secrets come from the environment or are made here; none is ever an argument, which every user of a machine can read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gateway.reach import parse_place
from safelight import console
from safelight.console import MASTER_KEY, AsJson
from storage import credentials, sealing, webhooks
from storage.credentials import Credential, Resealed
from storage.database import Connection
from storage.sealing import MasterKeys

STORAGE_SECRET = "SAFELIGHT_STORAGE_SECRET_KEY"  # noqa: S105 - the name of a variable
_TIMES = ("created_at", "expires_at", "revoked_at")
_REST_ONLY = (
    f"It opens REST only: {MASTER_KEY} is not set, so its secret cannot be kept for checking S3 signatures. "
    "Set it (`safelight keys master` makes one) and make the key again."
)

Name = Annotated[str, typer.Option(help="Whose it is, for the audit.")]
Scopes = Annotated[str, typer.Option(help="Of read, write, admin; separated by commas.")]
Places = Annotated[
    list[str] | None,
    typer.Option(
        "--place",
        help="Limit it to a bucket, or to the keys of a bucket that begin with a prefix: photos, photos/weddings/. "
        "Prefixes are taken literally, so end a folder with a slash. Its previews are included. Repeat it for more; "
        "leave it out for no limit.",
        show_default=False,
    ),
]
StorageAccessKey = Annotated[
    str | None,
    typer.Option(
        help="Send what this key asks at the S3 door to the storage with these credentials instead of Safelight's own; "
        f"their secret key is read from {STORAGE_SECRET}.",
        show_default=False,
    ),
]

keys_app = typer.Typer(
    no_args_is_help=True,
    help="Access keys: who may use Safelight, by which door, and where.\n\n"
    "Every key opens REST. It opens the S3 door too where SAFELIGHT_MASTER_KEY is set when it is made: S3's signatures "
    "can only be checked with the secret itself, which is kept sealed with the master key.",
)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a key is made with, checked and sealed."""

    scopes: tuple[str, ...]
    places: tuple[str, ...]
    storage_access_key: str | None
    sealed_secret: bytes | None = field(repr=False)
    sealed_storage_secret: bytes | None = field(repr=False)


@keys_app.command("master")
def make_master_key(as_json: AsJson = False) -> None:
    """Print a fresh master key, for SAFELIGHT_MASTER_KEY. It changes nothing by itself.

    Give it to the gateways and to these commands, by the environment alone.
    Who has it and the database has every secret; without it no key opens the S3 door.

    To change it: set it to new,old and restart the gateways; run `safelight keys reseal`; take the old one away.

      export SAFELIGHT_MASTER_KEY="$(safelight keys master 2>/dev/null)"
    """
    made = sealing.generate()
    if as_json:
        console.print_json({"master_key": made})
    else:
        typer.echo(made)
    typer.echo(
        f"Keep it as you keep passwords, and set it as {MASTER_KEY} for the gateways and for `safelight keys`:\n"
        f'  export {MASTER_KEY}="$(safelight keys master 2>/dev/null)"',
        err=True,
    )


@keys_app.command("create")
def create_key(
    *,
    name: Name,
    scopes: Scopes = "read,write",
    expires_days: Annotated[float | None, typer.Option(help="Valid for that many days; for ever if left out.")] = None,
    place: Places = None,
    storage_access_key: StorageAccessKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, once.

    It opens REST, and the S3 door too where SAFELIGHT_MASTER_KEY is set.

      safelight keys create --name importer --scopes write --place photos/incoming/
      safelight keys create --name "on call" --scopes read,write,admin --expires-days 90
    """
    credential = credentials.generate()
    terms = _read_terms(credential, scopes, place or (), storage_access_key)
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days is not None else None
    _store(credential, name, terms, expires_at)
    if as_json:
        console.print_json(_describe(credential, terms, expires_at))
    else:
        typer.echo(f"Access key  {credential.access_key}")
        typer.echo(f"Secret key  {credential.secret_key}")
        typer.echo(f"Limited to  {', '.join(terms.places) or 'nothing'}")
        typer.echo(f"Send it as  Authorization: Bearer {credential.token}")
        typer.echo("It is not shown again: note it now.")
    _say_doors(terms)


@keys_app.command("ensure")
def ensure_key(
    name: Name,
    scopes: Scopes = "read,write",
    place: Places = None,
    storage_access_key: StorageAccessKey = None,
    as_json: AsJson = False,
) -> None:
    """Store a key that you made: SAFELIGHT_KEY holds it as access_key.secret_key. Safe to repeat.

    A key that is there already becomes what is asked for now, its limits and its doors included.

      SAFELIGHT_KEY="$ACCESS_KEY.$SECRET_KEY" safelight keys ensure --name importer --scopes write --place photos
    """
    credential = credentials.parse_token(os.environ.get("SAFELIGHT_KEY", ""))
    if credential is None or credential.access_key.upper() != credential.access_key:
        console.fail(
            "SAFELIGHT_KEY must hold <access key>.<secret key>: 16 to 40 capital letters and digits, a dot, and "
            "16 to 128 characters."
        )
    terms = _read_terms(credential, scopes, place or (), storage_access_key)
    _store(credential, name, terms, None)
    if as_json:
        told = _describe(credential, terms, None)
        del told["secret_key"], told["token"]  # who made them has them
        console.print_json(told)
    else:
        typer.echo(f"The key {credential.access_key} is there.")
    _say_doors(terms)


@keys_app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, without their secrets: where they open what.

    For example:

      safelight keys list
      safelight keys list --json | jq -r '.[] | select(.revoked_at == null) | .name'

    Exit code: 0, with or without keys; 2 Postgres cannot be used.
    """
    rows = console.with_connection(credentials.list_keys)
    if as_json:
        console.print_json(rows)
        return
    titles = ("Access key", "Name", "Scopes", "Limited to", "Doors", "Created", "Expires", "Revoked")
    table = Table(*titles, box=None, header_style="bold")
    for row in rows:
        times = [row[column].strftime("%Y-%m-%d %H:%M") if row[column] else "" for column in _TIMES]
        table.add_row(
            row["access_key"], row["name"], ", ".join(row["scopes"]), "\n".join(row["places"]), _doors(row), *times
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@keys_app.command("reseal")
def reseal_keys(as_json: AsJson = False) -> None:
    """Seal every secret, of keys and of webhooks, with the first master key, whichever of them it was sealed with.

    For a change of the master key: set SAFELIGHT_MASTER_KEY to new,old, here and for the gateways and workers.

      SAFELIGHT_MASTER_KEY="$NEW,$OLD" safelight keys reseal

    Exit code 1: a secret could not be opened with any of them; it is named, and left as it was.
    """
    masters = console.read_master_keys(os.environ)
    if masters is None:
        console.fail(f"{MASTER_KEY} is not set. Set it to the new master key and the old one, separated by a comma.")

    async def reseal(conn: Connection) -> Resealed:
        ours, theirs = await credentials.reseal(conn, masters), await webhooks.reseal(conn, masters)
        return Resealed(
            resealed=ours.resealed + theirs.resealed,
            kept=ours.kept + theirs.kept,
            broken={**ours.broken, **theirs.broken},
        )

    done = console.with_connection(reseal)
    if as_json:
        console.print_json({"resealed": done.resealed, "kept": done.kept, "broken": done.broken})
    else:
        typer.echo(
            f"Sealed anew: {done.resealed}; with the first already: {done.kept}; not opened: {len(done.broken)}."
        )
    for access_key, why in done.broken.items():
        typer.echo(f"{access_key} cannot be opened: {why}.", err=True)
    if done.broken:
        raise typer.Exit(1)


@keys_app.command("revoke")
def revoke_key(
    access_key: Annotated[str, typer.Argument(help="As `safelight keys list` shows it.")], as_json: AsJson = False
) -> None:
    """Revoke a key. It opens nothing any more within a second.

      safelight keys revoke SLXK3N5QW7R2T4V6Y8ZB

    Exit code: 0 it is revoked; 2 there is no such key, or Postgres cannot be used.
    """
    if not console.with_connection(lambda conn: credentials.revoke(conn, access_key)):
        console.fail(f"There is no key {access_key}. `safelight keys list` shows those that there are.")
    if as_json:
        console.print_json({"access_key": access_key, "revoked": True})
    else:
        typer.echo(f"The key {access_key} is revoked.")


def _read_terms(credential: Credential, scopes: str, places: Sequence[str], storage_access_key: str | None) -> Terms:
    masters = console.read_master_keys(os.environ)
    storage_secret = _storage_secret(storage_access_key, masters)

    def seal(secret: str | None) -> bytes | None:
        return masters.seal(secret, access_key=credential.access_key) if masters and secret else None

    return Terms(
        scopes=_scopes(scopes),
        places=_places(places),
        storage_access_key=storage_access_key,
        sealed_secret=seal(credential.secret_key),
        sealed_storage_secret=seal(storage_secret),
    )


def _store(credential: Credential, name: str, terms: Terms, expires_at: datetime | None) -> None:
    console.with_connection(
        lambda conn: credentials.create(
            conn,
            credential,
            name=name,
            scopes=terms.scopes,
            expires_at=expires_at,
            sealed_secret=terms.sealed_secret,
            places=terms.places,
            storage_access_key=terms.storage_access_key,
            sealed_storage_secret=terms.sealed_storage_secret,
        )
    )


def _storage_secret(storage_access_key: str | None, masters: MasterKeys | None) -> str | None:
    if storage_access_key is None:
        return None
    if masters is None:
        console.fail(f"--storage-access-key needs {MASTER_KEY}: its secret is kept sealed with that.")
    secret = os.environ.get(STORAGE_SECRET, "")
    if not storage_access_key or not secret:
        console.fail(f"--storage-access-key needs its secret key in the environment variable {STORAGE_SECRET}.")
    return secret


def _scopes(text: str) -> tuple[str, ...]:
    wanted = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted(set(wanted) - set(credentials.SCOPES))
    if unknown or not wanted:
        console.fail(f"Scopes are {', '.join(credentials.SCOPES)}; not {', '.join(unknown) or 'none'}.")
    return wanted


def _places(texts: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(parse_place(text) for text in texts))
    except ValueError as error:
        console.fail(f"A --place is a bucket, or a bucket, a slash and a prefix, but {error}.")


def _describe(credential: Credential, terms: Terms, expires_at: datetime | None) -> dict[str, Any]:
    return {
        "access_key": credential.access_key,
        "secret_key": credential.secret_key,
        "token": credential.token,
        "scopes": terms.scopes,
        "places": terms.places,
        "opens_s3": terms.sealed_secret is not None,
        "storage_access_key": terms.storage_access_key,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }


def _say_doors(terms: Terms) -> None:
    if terms.sealed_secret is None:
        typer.echo(_REST_ONLY, err=True)


def _doors(row: dict[str, Any]) -> str:
    if not row["opens_s3"]:
        return "REST"
    return f"REST, S3 (as {row['storage_access_key']})" if row["storage_access_key"] else "REST, S3"
