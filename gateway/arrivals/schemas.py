"""What the API says of bucket events."""

from __future__ import annotations

from marshmallow import Schema, fields

from gateway.schemas import Instant


class UnusableMessageSchema(Schema):
    id = fields.Integer(required=True)
    origin = fields.String(required=True, metadata={"description": "The way it came: webhook, minio-redis or sqs."})
    reason = fields.String(required=True, metadata={"description": "A stable code, such as not_json."})
    size_bytes = fields.Integer(required=True)
    body = fields.String(required=True, metadata={"description": "Its first 4,096 bytes, as far as they are text."})
    received_at = Instant(required=True, metadata={"type": "string", "format": "date-time"})


class UnusableMessagesSchema(Schema):
    messages = fields.List(fields.Nested(UnusableMessageSchema), required=True)
