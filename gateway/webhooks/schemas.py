"""The shapes of webhooks and their deliveries. As in gateway.schemas, there is no second description."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from gateway.schemas import MAX_PAGE, Flag, Instant, JobCursor, Text
from processors.webhooks.targets import MAX_URL_CHARS
from storage import events
from storage.deliveries import STATES

_MAX_ID = 2**63 - 1


def _about(text: str, **more: Any) -> dict[str, Any]:
    return {"description": text, **more}


def _time(text: str) -> dict[str, Any]:
    return _about(text, type="string", format="date-time")


class _Wishes(Schema):
    name = Text(maximum=200, metadata=_about("For people.", example="Gallery"))
    types = fields.List(
        fields.String(validate=validate.OneOf(events.TYPES)),
        validate=validate.Length(max=len(events.TYPES)),
        metadata=_about("Only events of these types; [] means all.", example=["photo.ready"]),
    )
    bucket = Text(maximum=63, allow_none=True, metadata=_about("Only events of photos in this bucket; null: any."))
    prefix = Text(metadata=_about("Only events of photos whose key begins so."))


class NewWebhookBody(_Wishes):
    url = Text(
        required=True,
        minimum=1,
        maximum=MAX_URL_CHARS,
        metadata=_about(
            "Where to post. https and a public address, unless SAFELIGHT_WEBHOOK_ALLOW opens more.",
            example="https://example.org/hook",
        ),
    )


class ChangeWebhookBody(_Wishes):
    url = Text(minimum=1, maximum=MAX_URL_CHARS, metadata=_about("Where to post from now on."))
    enabled = Flag(metadata=_about("false: it is told of nothing. true: what had been left goes on."))


class RotateBody(Schema):
    overlap_hours = fields.Float(
        load_default=24.0,
        allow_nan=False,
        validate=validate.Range(min=0, max=24 * 30),
        metadata=_about("How long the old secret signs beside the new one."),
    )


class DeliveriesQuery(Schema):
    state = fields.String(
        load_default=None, validate=validate.OneOf(STATES), metadata=_about("Only deliveries in this state.")
    )
    cursor = JobCursor(load_default=None, metadata=_about("`next_cursor` of the page before.", type="string"))
    limit = fields.Integer(load_default=50, validate=validate.Range(min=1, max=MAX_PAGE), metadata=_about("Page size."))


class RedeliverBody(Schema):
    state = fields.String(
        load_default="dead",
        validate=validate.OneOf(("dead", "discarded", "delivered")),
        metadata=_about("Which finished deliveries; the oldest first."),
    )
    ids = fields.List(
        fields.Integer(strict=True, validate=validate.Range(min=1, max=_MAX_ID)),
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=1000),
        metadata=_about("Only these of them."),
    )
    limit = fields.Integer(
        strict=True, load_default=1000, validate=validate.Range(min=1, max=1000), metadata=_about("So many at most.")
    )


class WebhookSchema(Schema):
    id = fields.UUID(required=True)
    name = fields.String(required=True)
    url = fields.String(required=True)
    types = fields.List(fields.String(), required=True, metadata=_about("Empty: all."))
    bucket = fields.String(allow_none=True, required=True)
    prefix = fields.String(required=True)
    enabled = fields.Boolean(required=True)
    disabled_at = Instant(allow_none=True, required=True, metadata=_time("null while it is enabled."))
    disabled_reason = fields.String(
        allow_none=True, required=True, metadata=_about("asked: by somebody; gone: it answered 410.")
    )
    failing_since = Instant(
        allow_none=True, required=True, metadata=_time("The first failure since its last success; null: none.")
    )
    old_secret_until = Instant(
        allow_none=True, required=True, metadata=_time("Until then the secret before the last rotation signs as well.")
    )
    created_by = fields.String(required=True)
    created_at = Instant(required=True, metadata=_time(""))
    updated_at = Instant(required=True, metadata=_time(""))
    deliveries = fields.Dict(
        keys=fields.String(), values=fields.Integer(), required=True, metadata=_about("Kept deliveries by state.")
    )


class WebhookSecretSchema(WebhookSchema):
    secret = fields.String(required=True, metadata=_about("Shown this once. Receivers verify with it."))


class WebhookListSchema(Schema):
    webhooks = fields.List(fields.Nested(WebhookSchema), required=True)


class DeliverySchema(Schema):
    id = fields.Integer(required=True)
    webhook_id = fields.UUID(required=True)
    event_id = fields.String(required=True, metadata=_about("Sent as webhook-id, the same at each attempt."))
    type = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    attempt = fields.Integer(required=True, metadata=_about("Attempts since it was made or last redelivered."))
    attempts_in_all = fields.Integer(required=True)
    run_at = Instant(required=True, metadata=_time("When the next attempt is due, or the last one was."))
    status_code = fields.Integer(allow_none=True, required=True, metadata=_about("Of the last answer."))
    error_code = fields.String(allow_none=True, required=True, metadata=_about("Of the last failure."))
    error = fields.String(allow_none=True, required=True)
    created_at = Instant(required=True, metadata=_time(""))
    finished_at = Instant(allow_none=True, required=True, metadata=_time("null while it is not finished."))


class DeliveryAttemptSchema(Schema):
    number = fields.Integer(required=True)
    worker = fields.String(required=True)
    started_at = Instant(required=True, metadata=_time(""))
    ended_at = Instant(allow_none=True, required=True, metadata=_time(""))
    seconds = fields.Float(allow_none=True, required=True)
    outcome = fields.String(
        allow_none=True,
        required=True,
        metadata=_about("delivered, failed, dead, snoozed, released or expired; null: it is under way."),
    )
    status_code = fields.Integer(allow_none=True, required=True)
    error_code = fields.String(allow_none=True, required=True)
    error = fields.String(allow_none=True, required=True)
    response = fields.String(allow_none=True, required=True, metadata=_about("How the answer's body began."))
    retry_at = Instant(allow_none=True, required=True, metadata=_time("When the next attempt was planned for."))


class DeliveryDetailSchema(DeliverySchema):
    body = fields.Dict(required=True, metadata=_about("What is sent."))
    attempts = fields.List(fields.Nested(DeliveryAttemptSchema), required=True)


class DeliveryPageSchema(Schema):
    deliveries = fields.List(fields.Nested(DeliverySchema), required=True)
    next_cursor = fields.String(allow_none=True, required=True)


class RedeliveredSchema(Schema):
    redelivered = fields.Integer(required=True)
    ids = fields.List(fields.Integer(), required=True)
