"""The shapes of direct uploads, in and out."""

from __future__ import annotations

from typing import Final

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from gateway.schemas import MAX_PAGE, STATUSES, ErrorSchema, Instant, PhotoCursor, Text

METHODS: Final = ("put", "multipart", "post")
UPLOAD_STATUSES: Final = ("open", "stored", "expired")
MIN_PART_BYTES: Final = 5 << 20  # S3's limits
MAX_PART_BYTES: Final = 5 << 30
MAX_PARTS: Final = 10_000
PARTS_PER_PAGE: Final = 100
_MAX_BYTES: Final = 48 << 30


class OpenUploadBody(Schema):
    method = fields.String(
        load_default="put",
        validate=validate.OneOf(METHODS),
        metadata={"description": "One PUT, a multipart upload for large files, or a form to be posted."},
    )
    bucket = Text(maximum=63, minimum=3, metadata={"description": "Default: the default bucket."})
    key = Text(minimum=1, metadata={"description": "Default: one is made. A key that is taken is refused."})
    filename = Text(minimum=1, metadata={"description": "The file's name, kept with the photo.", "example": "sea.jpg"})
    content_type = Text(
        maximum=100,
        minimum=1,
        metadata={
            "description": "The photo must be of this kind; left out, its bytes decide.",
            "example": "image/jpeg",
        },
    )
    size_bytes = fields.Integer(
        strict=True,
        validate=validate.Range(min=1, max=_MAX_BYTES),
        metadata={"description": "The storage then takes exactly so many. Needed but for a form."},
    )
    part_bytes = fields.Integer(
        strict=True,
        validate=validate.Range(min=MIN_PART_BYTES, max=MAX_PART_BYTES),
        metadata={"description": "Size of every part but the last. Default: 8 MiB, or what makes 10,000 parts."},
    )


class PartNumbersBody(Schema):
    numbers = fields.List(
        fields.Integer(strict=True, validate=validate.Range(min=1, max=MAX_PARTS)),
        validate=validate.Length(min=1, max=1000),
        metadata={"description": "These parts; in place of `after` and `limit`."},
    )
    after = fields.Integer(
        strict=True,
        load_default=0,
        validate=validate.Range(min=0, max=MAX_PARTS),
        metadata={"description": "Parts behind this number."},
    )
    limit = fields.Integer(
        strict=True,
        load_default=PARTS_PER_PAGE,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "So many of them at most."},
    )


class StatedPartSchema(Schema):
    number = fields.Integer(strict=True, required=True, validate=validate.Range(min=1, max=MAX_PARTS))
    etag = Text(
        required=True,
        maximum=200,
        minimum=1,
        metadata={"description": "As the storage answered the part, quoted or not."},
    )


class CompleteUploadBody(Schema):
    parts = fields.List(
        fields.Nested(StatedPartSchema),
        validate=validate.Length(max=MAX_PARTS),
        metadata={"description": "Parts of a multipart upload to be compared with what arrived. May be left out."},
    )

    @validates_schema
    def _check_numbers(self, data: dict[str, list[dict[str, object]]], **_: object) -> None:
        numbers = [part["number"] for part in data.get("parts", ())]
        if len(set(numbers)) != len(numbers):
            raise ValidationError("Name each part once.", "parts")


class UploadsQuery(Schema):
    status = fields.String(
        validate=validate.OneOf(UPLOAD_STATUSES), metadata={"description": "Only uploads in this status."}
    )
    bucket = Text(maximum=63, metadata={"description": "Only uploads to this bucket."})
    prefix = Text(metadata={"description": "Only uploads whose key begins so."})
    cursor = PhotoCursor(metadata={"description": "`next_cursor` of the page before.", "type": "string"})
    limit = fields.Integer(
        load_default=50, validate=validate.Range(min=1, max=MAX_PAGE), metadata={"description": "Page size."}
    )


class PartAddressSchema(Schema):
    number = fields.Integer(required=True)
    size_bytes = fields.Integer(required=True, metadata={"description": "What the address takes, to the byte."})
    url = fields.String(required=True, metadata={"description": "PUT the part's bytes here."})


class PartAddressesSchema(Schema):
    parts = fields.List(fields.Nested(PartAddressSchema), required=True)
    next_after = fields.Integer(
        allow_none=True, required=True, metadata={"description": "`after` of the next page; null at the end."}
    )
    expires_at = Instant(required=True, metadata={"type": "string", "format": "date-time"})


class ArrivedPartSchema(Schema):
    number = fields.Integer(required=True)
    size_bytes = fields.Integer(required=True)
    etag = fields.String(required=True)


class QuarantineSchema(Schema):
    bucket = fields.String(required=True)
    key = fields.String(required=True)


class UploadSchema(Schema):
    id = fields.UUID(required=True)
    method = fields.String(required=True, validate=validate.OneOf(METHODS))
    status = fields.String(required=True, validate=validate.OneOf(UPLOAD_STATUSES))
    bucket = fields.String(required=True)
    key = fields.String(required=True)
    filename = fields.String(allow_none=True)
    content_type = fields.String(allow_none=True)
    size_bytes = fields.Integer(allow_none=True)
    part_bytes = fields.Integer(allow_none=True)
    part_count = fields.Integer(allow_none=True)
    created_at = Instant(required=True, metadata={"type": "string", "format": "date-time"})
    expires_at = Instant(
        required=True, metadata={"description": "Of the addresses.", "type": "string", "format": "date-time"}
    )
    photo_id = fields.UUID(allow_none=True, attribute="object_id", metadata={"description": "Once it is stored."})
    links = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class OpenedUploadSchema(UploadSchema):
    """With the addresses; without them where they have expired since."""

    url = fields.String(metadata={"description": "PUT the bytes here, or POST the form."})
    headers = fields.Dict(
        keys=fields.String(), values=fields.String(), metadata={"description": "To be sent with the PUT, all of them."}
    )
    fields_ = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        data_key="fields",
        metadata={"description": "Of the form, all of them, before the field `file`."},
    )
    parts = fields.List(
        fields.Nested(PartAddressSchema), metadata={"description": f"The first {PARTS_PER_PAGE} parts' addresses."}
    )
    next_after = fields.Integer(allow_none=True, metadata={"description": "See POST /v1/uploads/{id}/parts."})


class UploadDetailSchema(UploadSchema):
    arrived_parts = fields.List(
        fields.Nested(ArrivedPartSchema),
        metadata={"description": "Of an open multipart upload: what needs no resending."},
    )
    photo_status = fields.String(allow_none=True, validate=validate.OneOf(STATUSES))
    rejection = fields.Nested(ErrorSchema, allow_none=True)
    quarantine = fields.Nested(
        QuarantineSchema, allow_none=True, metadata={"description": "Where a rejected photo's bytes were moved to."}
    )


class UploadPageSchema(Schema):
    uploads = fields.List(fields.Nested(UploadSchema), required=True)
    next_cursor = fields.String(allow_none=True, required=True)
