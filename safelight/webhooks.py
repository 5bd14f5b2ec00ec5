"""`safelight webhooks`: who is told of what by HTTP, and what came of it.

Needs Postgres alone, and the master key where a secret is made. Sending is the workers'.
"""

from __future__ import annotations

import getpass
import os
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from processors.webhooks import signing, targets
from processors.webhooks.removal import remove
from processors.webhooks.targets import TargetRefused
from safelight import console, webhook_tables
from safelight.console import MASTER_KEY, AsJson
from safelight.settings import SettingsError, webhook_settings
from storage import deliveries, events, webhooks
from storage.database import Connection
from storage.deliveries import FINISHED, STATES
from storage.sealing import MasterKeys
from storage.webhooks import NewWebhook, TooManyWebhooks

T = TypeVar("T")

WebhookId = Annotated[str, typer.Argument(help="As `safelight webhooks list` shows it; its beginning is enough.")]
DeliveryId = Annotated[int, typer.Argument(help="As `safelight webhooks deliveries` shows it.")]

webhooks_app = typer.Typer(
    no_args_is_help=True,
    help="Webhooks: events sent to others by HTTP, signed by the Standard Webhooks convention.\n\n"
    "Workers send them, each at least once, and try again for about half a day. Gateways, workers and these commands "
    "need the same SAFELIGHT_MASTER_KEY, with which secrets are sealed; addresses that are not public need "
    "SAFELIGHT_WEBHOOK_ALLOW.",
)


@webhooks_app.command("create")
def create_webhook(
    *,
    url: Annotated[str, typer.Argument(help="Where to post, as https://example.org/hook.")],
    name: Annotated[str, typer.Option(help="For people.")] = "",
    types: Annotated[
        str, typer.Option(help=f"Only events of these types, separated by commas: {', '.join(events.TYPES)}.")
    ] = "",
    bucket: Annotated[str | None, typer.Option(help="Only events of photos in this bucket.")] = None,
    prefix: Annotated[str, typer.Option(help="Only events of photos whose key begins so.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a webhook and print its secret, once. It is told of what happens from now on.

      safelight webhooks create https://example.org/hook --types photo.ready,photo.rejected --bucket photos

    Exit code: 0; 2 wrong usage, too many webhooks, or Postgres cannot be used.
    """
    settings = _settings()
    try:
        targets.check_url(url, settings.allowed_networks)
    except TargetRefused as error:
        console.fail(str(error))
    webhook_id, secret = uuid.uuid4(), signing.make_secret()
    new = NewWebhook(
        id=webhook_id,
        url=url,
        name=name,
        types=_types(types),
        bucket=bucket,
        prefix=prefix,
        created_by=_actor(),
        sealed_secret=_masters().seal(secret, access_key=str(webhook_id)),
    )

    async def create(conn: Connection) -> dict[str, Any]:
        await webhooks.create(conn, new, most=settings.max_webhooks)
        return await _find(conn, webhook_id)

    try:
        found = console.with_connection(create)
    except TooManyWebhooks:
        console.fail(f"There may be {settings.max_webhooks} webhooks (SAFELIGHT_MAX_WEBHOOKS). Delete one first.")
    webhook_tables.print_secret(found, secret, as_json=as_json)


@webhooks_app.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List the webhooks, without their secrets, and how their deliveries do.

      safelight webhooks list

    Exit code: 0, with or without webhooks; 2 Postgres cannot be used.
    """
    rows = console.with_connection(webhooks.find_all)
    if as_json:
        console.print_json(rows)
        return
    webhook_tables.print_webhooks(rows)


@webhooks_app.command("show")
def show_webhook(webhook: WebhookId, as_json: AsJson = False) -> None:
    """Show one webhook.

      safelight webhooks show 3f2a

    Exit code: 0; 2 there is no such webhook, or Postgres cannot be used.
    """
    row = _with_webhook(webhook, _find)
    if as_json:
        console.print_json(row)
        return
    webhook_tables.print_webhook(row)


@webhooks_app.command("enable")
def enable_webhook(webhook: WebhookId, as_json: AsJson = False) -> None:
    """Tell it of events again; what had been left to deliver goes on.

      safelight webhooks enable 3f2a

    Exit code: 0; 2 there is no such webhook, or Postgres cannot be used.
    """
    _switch(webhook, enabled=True, as_json=as_json)


@webhooks_app.command("disable")
def disable_webhook(webhook: WebhookId, as_json: AsJson = False) -> None:
    """Tell it of nothing, and deliver nothing that is left, until it is enabled again.

      safelight webhooks disable 3f2a

    Exit code: 0; 2 there is no such webhook, or Postgres cannot be used.
    """
    _switch(webhook, enabled=False, as_json=as_json)


@webhooks_app.command("rotate")
def rotate_secret(
    webhook: WebhookId,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=720, help="How long the old secret signs beside the new one.")
    ] = 24,
    as_json: AsJson = False,
) -> None:
    """Give it another secret and print that, once. For a while requests carry both signatures.

      safelight webhooks rotate 3f2a --overlap-hours 48

    Exit code: 0; 2 there is no such webhook, or Postgres cannot be used.
    """
    masters, secret = _masters(), signing.make_secret()

    async def rotate(conn: Connection, webhook_id: uuid.UUID) -> dict[str, Any]:
        sealed = masters.seal(secret, access_key=str(webhook_id))
        await webhooks.rotate(conn, webhook_id, sealed_secret=sealed, overlap_hours=overlap_hours)
        return await _find(conn, webhook_id)

    webhook_tables.print_secret(_with_webhook(webhook, rotate), secret, as_json=as_json)


@webhooks_app.command("test")
def send_test(webhook: WebhookId, as_json: AsJson = False) -> None:
    """Send it a test event, the way that all others go.

      safelight webhooks test 3f2a

    Exit code: 0; 2 there is no such webhook, or Postgres cannot be used.
    """
    delivery_id = _with_webhook(
        webhook, lambda conn, found: deliveries.send_test(conn, found, signing.make_test_body())
    )
    if as_json:
        console.print_json({"delivery": delivery_id})
    else:
        typer.echo(f"Delivery {delivery_id} is on its way: safelight webhooks delivery {webhook} {delivery_id}")


@webhooks_app.command("deliveries")
def list_deliveries(
    webhook: WebhookId,
    state: Annotated[str | None, typer.Option(help=f"Only those in this state: {', '.join(STATES)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The delivery log, newest first. --state dead lists those that were given up.

      safelight webhooks deliveries 3f2a --state dead

    Exit code: 0; 2 there is no such webhook, or Postgres cannot be used.
    """
    if state is not None and state not in STATES:
        console.fail(f"--state is one of {', '.join(STATES)}.")
    rows = _with_webhook(
        webhook, lambda conn, found: deliveries.find_page(conn, found, state=state, before_id=None, limit=limit)
    )
    if as_json:
        console.print_json(rows)
        return
    webhook_tables.print_deliveries(rows)


@webhooks_app.command("delivery")
def show_delivery(webhook: WebhookId, delivery: DeliveryId, as_json: AsJson = False) -> None:
    """One delivery: what is sent, and every attempt.

      safelight webhooks delivery 3f2a 118

    Exit code: 0; 2 there is no such webhook or delivery, or Postgres cannot be used.
    """
    row = _with_webhook(webhook, lambda conn, found: deliveries.find(conn, found, delivery))
    if row is None:
        console.fail(f"There is no delivery {delivery}. `safelight webhooks deliveries {webhook}` lists them.")
    if as_json:
        console.print_json(row)
        return
    webhook_tables.print_delivery(row)


@webhooks_app.command("redeliver")
def redeliver(
    webhook: WebhookId,
    delivery: Annotated[list[int] | None, typer.Argument(help="Which deliveries.", show_default=False)] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All that were given up, 1000 at a time.")] = False,
    as_json: AsJson = False,
) -> None:
    """Deliver again, with all attempts anew: what you name, or with --dead all that were given up.

    For example:

      safelight webhooks redeliver 3f2a 118 119
      safelight webhooks redeliver 3f2a --dead

    Exit code: 0; 1 some that you named could not be; 2 wrong usage, or Postgres cannot be used.
    """
    if bool(delivery) == dead:
        console.fail("Name deliveries, or give --dead for all that were given up.")
    done = _with_webhook(
        webhook,
        lambda conn, found: deliveries.redeliver(
            conn, found, ids=delivery or None, states=("dead",) if dead else FINISHED, limit=1000
        ),
    )
    if as_json:
        console.print_json({"redelivered": done})
    else:
        typer.echo(f"{len(done)} on their way again.")
    if delivery and len(done) < len(set(delivery)):
        typer.echo("The others are under way, waiting for their next attempt, or not there.", err=True)
        raise typer.Exit(1)


@webhooks_app.command("discard")
def discard(webhook: WebhookId, delivery: DeliveryId, as_json: AsJson = False) -> None:
    """Send a delivery no more.

      safelight webhooks discard 3f2a 118

    Exit code: 0; 2 it is not there or cannot be discarded, or Postgres cannot be used.
    """
    if not _with_webhook(webhook, lambda conn, found: deliveries.discard(conn, found, delivery)):
        console.fail(f"Delivery {delivery} is not there, under way, or delivered: only ready and dead ones can be.")
    if as_json:
        console.print_json({"delivery": delivery, "discarded": True})
    else:
        typer.echo(f"Delivery {delivery} is discarded.")


@webhooks_app.command("delete")
def delete_webhook(webhook: WebhookId, as_json: AsJson = False) -> None:
    """Delete a webhook and its deliveries.

      safelight webhooks delete 3f2a

    Exit code: 0; 2 there is no such webhook, or Postgres cannot be used.
    """
    found = _with_webhook(webhook, _find)
    console.with_database(lambda database: remove(database, found["id"]))
    if as_json:
        console.print_json({"id": found["id"], "deleted": True})
    else:
        typer.echo("It is deleted.")


def _switch(webhook: str, *, enabled: bool, as_json: bool) -> None:
    async def switch(conn: Connection, found: uuid.UUID) -> uuid.UUID:
        await webhooks.change(conn, found, {"enabled": enabled})
        return found

    found = _with_webhook(webhook, switch)
    if as_json:
        console.print_json({"id": found, "enabled": enabled})
    else:
        typer.echo(f"It is {'enabled' if enabled else 'disabled'}.")


def _with_webhook(text: str, action: Callable[[Connection, uuid.UUID], Awaitable[T]]) -> T:
    """Run `action` on the webhook whose id begins so, in one transaction."""

    async def act(conn: Connection) -> T:
        found = [row["id"] for row in await webhooks.find_all(conn) if str(row["id"]).startswith(text.lower())]
        if len(found) != 1 or not text:
            several = f"{len(found)} webhooks' ids begin so" if found and text else "There is no such webhook"
            console.fail(f"{several}. `safelight webhooks list` shows those that there are.")
        return await action(conn, found[0])

    return console.with_connection(act)


async def _find(conn: Connection, webhook_id: uuid.UUID) -> dict[str, Any]:
    found = await webhooks.find(conn, webhook_id)
    assert found is not None, "it was there in this very transaction"
    return found


def _settings() -> Any:
    try:
        return webhook_settings(os.environ)
    except SettingsError as error:
        console.fail("\n".join(error.problems))


def _masters() -> MasterKeys:
    found = console.read_master_keys(os.environ)
    if found is None:
        console.fail(f"{MASTER_KEY} is not set. Secrets are sealed with it; give the one that the workers have.")
    return found


def _types(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    for name in found:
        if name not in events.TYPES:
            console.fail(f"{name!r} is no type of event. There are {', '.join(events.TYPES)}.")
    return found


def _actor() -> str:
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):
        return "command line"
