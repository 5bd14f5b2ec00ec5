"""Webhooks and their delivery log, for people and programs with the scope admin. Sending is the workers'."""

from __future__ import annotations

import uuid
from typing import Any

import structlog
from aiohttp import web

from gateway import rendering
from gateway.errors import Problem
from gateway.routing import Call
from gateway.schemas import encode_cursor
from gateway.webhooks.schemas import (
    DeliveryDetailSchema,
    DeliveryPageSchema,
    RedeliveredSchema,
    WebhookListSchema,
    WebhookSchema,
    WebhookSecretSchema,
)
from processors.webhooks import signing, targets
from processors.webhooks.removal import remove
from processors.webhooks.targets import TargetRefused
from storage import deliveries, webhooks
from storage.database import Connection
from storage.sealing import MasterKeys
from storage.webhooks import NewWebhook, TooManyWebhooks

log = structlog.get_logger(__name__)


async def create_webhook(call: Call) -> web.StreamResponse:
    body, context = call.body, call.context
    masters = _masters(call)
    _check_url(call, body["url"])
    webhook_id, secret = uuid.uuid4(), signing.make_secret()
    new = NewWebhook(
        id=webhook_id,
        **body,
        created_by=call.actor,
        sealed_secret=masters.seal(secret, access_key=str(webhook_id)),
    )
    async with context.database.transaction() as conn:
        try:
            await webhooks.create(conn, new, most=context.webhooks.max_webhooks)
        except TooManyWebhooks:
            raise Problem(
                "too_many_webhooks",
                f"There may be {context.webhooks.max_webhooks} (SAFELIGHT_MAX_WEBHOOKS). Delete one that is idle.",
            ) from None
        found = await _find(conn, webhook_id)
    log.info("webhook.created", message="A webhook was made.", webhook_id=str(webhook_id), actor=call.actor)
    headers = {"Location": f"/v1/webhooks/{webhook_id}"}
    return rendering.answer(WebhookSecretSchema, {**found, "secret": secret}, status=201, headers=headers)


async def list_webhooks(call: Call) -> web.StreamResponse:
    async with call.context.database.connection() as conn:
        return rendering.answer(WebhookListSchema, {"webhooks": await webhooks.find_all(conn)})


async def get_webhook(call: Call) -> web.StreamResponse:
    async with call.context.database.connection() as conn:
        return rendering.answer(WebhookSchema, await _find(conn, _webhook_id(call)))


async def change_webhook(call: Call) -> web.StreamResponse:
    webhook_id = _webhook_id(call)
    if "url" in call.body:
        _check_url(call, call.body["url"])
    async with call.context.database.transaction() as conn:
        await webhooks.change(conn, webhook_id, call.body)
        found = await _find(conn, webhook_id)
    log.info("webhook.changed", message="A webhook was changed.", webhook_id=str(webhook_id), actor=call.actor)
    return rendering.answer(WebhookSchema, found)


async def delete_webhook(call: Call) -> web.StreamResponse:
    webhook_id = _webhook_id(call)
    if not await remove(call.context.database, webhook_id):
        raise _no_such_webhook()
    log.info("webhook.deleted", message="A webhook was deleted.", webhook_id=str(webhook_id), actor=call.actor)
    return web.Response(status=204)


async def rotate_secret(call: Call) -> web.StreamResponse:
    webhook_id, secret = _webhook_id(call), signing.make_secret()
    sealed = _masters(call).seal(secret, access_key=str(webhook_id))
    async with call.context.database.transaction() as conn:
        await webhooks.rotate(conn, webhook_id, sealed_secret=sealed, overlap_hours=call.body["overlap_hours"])
        found = await _find(conn, webhook_id)
    log.info("webhook.rotated", message="A webhook got another secret.", webhook_id=str(webhook_id), actor=call.actor)
    return rendering.answer(WebhookSecretSchema, {**found, "secret": secret})


async def test_webhook(call: Call) -> web.StreamResponse:
    webhook_id = _webhook_id(call)
    async with call.context.database.transaction() as conn:
        await _find(conn, webhook_id)
        delivery_id = await deliveries.send_test(conn, webhook_id, signing.make_test_body())
        found = await deliveries.find(conn, webhook_id, delivery_id)
    return rendering.answer(DeliveryDetailSchema, found, status=202)


async def list_deliveries(call: Call) -> web.StreamResponse:
    webhook_id, query = _webhook_id(call), call.query
    async with call.context.database.connection() as conn:
        await _find(conn, webhook_id)
        rows = await deliveries.find_page(
            conn, webhook_id, state=query["state"], before_id=query["cursor"], limit=query["limit"] + 1
        )
    page = rows[: query["limit"]]
    cursor = encode_cursor(str(page[-1]["id"])) if len(rows) > len(page) else None
    return rendering.answer(DeliveryPageSchema, {"deliveries": page, "next_cursor": cursor})


async def get_delivery(call: Call) -> web.StreamResponse:
    async with call.context.database.connection() as conn:
        return rendering.answer(DeliveryDetailSchema, await _find_delivery(conn, call))


async def redeliver_many(call: Call) -> web.StreamResponse:
    webhook_id, body = _webhook_id(call), call.body
    async with call.context.database.transaction() as conn:
        await _find(conn, webhook_id)
        ids = await deliveries.redeliver(
            conn, webhook_id, ids=body["ids"], states=(body["state"],), limit=body["limit"]
        )
    _acted(call, "redelivered", len(ids))
    return rendering.answer(RedeliveredSchema, {"redelivered": len(ids), "ids": ids})


async def redeliver_one(call: Call) -> web.StreamResponse:
    webhook_id, delivery_id = _webhook_id(call), _delivery_id(call)
    async with call.context.database.transaction() as conn:
        done = await deliveries.redeliver(conn, webhook_id, ids=[delivery_id], limit=1)
        found = await _find_delivery(conn, call)
    if not done:
        raise Problem("delivery_not_finished", f"It is {found['state']}: it is sent anyway.", state=found["state"])
    _acted(call, "redelivered", 1)
    return rendering.answer(DeliveryDetailSchema, found, status=202)


async def discard_one(call: Call) -> web.StreamResponse:
    async with call.context.database.transaction() as conn:
        done = await deliveries.discard(conn, _webhook_id(call), _delivery_id(call))
        found = await _find_delivery(conn, call)
    if not done:
        raise Problem(
            "delivery_not_discardable", f"It is {found['state']}; ready and dead ones can be.", state=found["state"]
        )
    _acted(call, "discarded", 1)
    return rendering.answer(DeliveryDetailSchema, found)


async def _find(conn: Connection, webhook_id: uuid.UUID) -> dict[str, Any]:
    found = await webhooks.find(conn, webhook_id)
    if found is None:
        raise _no_such_webhook()
    return found


async def _find_delivery(conn: Connection, call: Call) -> dict[str, Any]:
    found = await deliveries.find(conn, _webhook_id(call), _delivery_id(call))
    if found is None:
        raise Problem("no_such_delivery", "GET /v1/webhooks/{webhook_id}/deliveries lists those that are kept.")
    return found


def _masters(call: Call) -> MasterKeys:
    if not call.context.settings.master_key:
        raise Problem(
            "no_master_key", "Set SAFELIGHT_MASTER_KEY for gateways and workers: webhooks' secrets are sealed with it."
        )
    return MasterKeys.parse(call.context.settings.master_key)


def _check_url(call: Call, url: str) -> None:
    try:
        targets.check_url(url, call.context.webhooks.allowed_networks)
    except TargetRefused as error:
        raise Problem("invalid_request", "`errors` says why.", errors={"url": [str(error)]}) from None


def _webhook_id(call: Call) -> uuid.UUID:
    try:
        return uuid.UUID(call.request.match_info["webhook_id"])
    except ValueError:
        raise _no_such_webhook() from None


def _delivery_id(call: Call) -> int:
    text = call.request.match_info["delivery_id"]
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) < 2**63):
        raise Problem("no_such_delivery", "A delivery's id is a number.")
    return int(text)


def _no_such_webhook() -> Problem:
    return Problem("no_such_webhook", "GET /v1/webhooks lists those that there are.")


def _acted(call: Call, what: str, number: int) -> None:
    log.info(
        f"deliveries.{what}",
        message="Deliveries were acted on.",
        webhook_id=call.request.match_info["webhook_id"],
        deliveries=number,
        actor=call.actor,
    )
