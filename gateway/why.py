"""GET /v1/explain: gathers what rows and storage tell about one photo, and has it explained (gateway.explaining)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from gateway import explaining, rendering
from gateway.context import Context
from gateway.errors import Problem
from gateway.explaining import Evidence, Stored
from gateway.routing import Call
from gateway.schemas import STATUSES, Text
from processors import registry
from storage import deadletters, evidence, facts, pauses, reconciliation, workers
from storage.blobs import BlobRefused, BlobsUnavailable, NoSuchBlob, NoSuchBucket
from storage.database import Connection


class ExplainQuery(Schema):
    bucket = Text(maximum=63, metadata={"description": "With `key`."})
    key = Text(minimum=1, metadata={"description": "The photo's key, exactly; with `bucket`."})
    photo_id = fields.UUID(metadata={"description": "Instead of bucket and key."})
    job_id = fields.Integer(
        validate=validate.Range(min=1, max=2**63 - 1), metadata={"description": "Instead: the photo of that job."}
    )

    @validates_schema
    def _one_photo(self, data: Mapping[str, Any], **_: Any) -> None:
        if sorted(data) not in (["bucket", "key"], ["photo_id"], ["job_id"]):
            raise ValidationError("Give bucket and key, or photo_id, or job_id.", "key")


class FindingSchema(Schema):
    verdict = fields.String(required=True, validate=validate.OneOf(tuple(explaining.VERDICTS)))
    said = fields.String(required=True, metadata={"description": "What is the case, as a sentence."})
    do = fields.String(allow_none=True, required=True, metadata={"description": "What to do about it."})


class ExplanationSchema(Schema):
    bucket = fields.String(required=True)
    key = fields.String(required=True)
    photo_id = fields.UUID(allow_none=True, required=True)
    status = fields.String(allow_none=True, required=True, validate=validate.OneOf(STATUSES))
    verdict = fields.String(required=True, validate=validate.OneOf(tuple(explaining.VERDICTS)))
    summary = fields.String(required=True)
    findings = fields.List(fields.Nested(FindingSchema), required=True, metadata={"description": "The worst first."})


async def explain_photo(call: Call) -> web.StreamResponse:
    context = call.context
    async with context.database.connection() as conn:
        photo = await _find(conn, call.query)
        bucket, key = (photo["bucket"], photo["key"]) if photo else (call.query["bucket"], call.query["key"])
        if not call.reach.covers(bucket, key):
            raise _no_such_photo()
        told = await _gather(context, conn, photo, bucket, key)
    stored = await _look(context, bucket, key)
    gone = [item["preset"] for item in told["artifacts"] if not await _is_there(context, item)]
    found = explaining.explain(Evidence(bucket=bucket, key=key, photo=photo, original=stored, gone=gone, **told))
    return rendering.answer(
        ExplanationSchema,
        {
            "bucket": bucket,
            "key": key,
            "photo_id": photo["id"] if photo else None,
            "status": photo["status"] if photo else None,
            "verdict": found.verdict,
            "summary": explaining.VERDICTS[found.verdict],
            "findings": found.findings,
        },
    )


async def _find(conn: Connection, query: Mapping[str, Any]) -> dict[str, Any] | None:
    if "key" in query:
        return await evidence.find_by_key(conn, query["bucket"], query["key"])
    photo = (
        await evidence.find_by_id(conn, query["photo_id"])
        if "photo_id" in query
        else await evidence.find_by_job(conn, query["job_id"])
    )
    if photo is None:
        raise _no_such_photo()
    return photo


async def _gather(
    context: Context, conn: Connection, photo: Mapping[str, Any] | None, bucket: str, key: str
) -> dict[str, Any]:
    ids: list[uuid.UUID] = [photo["id"]] if photo else []
    jobs = await deadletters.list_of_objects(conn, ids)
    job_ids = [job["id"] for job in jobs]
    alive = await workers.list_alive(conn, alive_seconds=context.jobs.alive_seconds)
    current = await evidence.find_by_key(conn, bucket, key)
    return {
        "now": await reconciliation.ask_time(conn),
        "jobs": jobs,
        "watched_by": [item.name for item in context.jobs.processors_for(bucket, key)],
        "known": {item.name: item.version for item in registry.available()},
        "paused": await pauses.list_paused(conn),
        "workers": [worker["id"] for worker in alive],
        "ahead": await evidence.count_ahead(conn, job_ids),
        "discards": await evidence.list_discards(conn, job_ids),
        "artifacts": await facts.list_artifacts(conn, ids),
        "current_id": str(current["id"]) if current and current["superseded_at"] is None else None,
        "alike": [] if photo else await evidence.list_alike(conn, bucket, key),
    }


async def _look(context: Context, bucket: str, key: str) -> Stored:
    try:
        head = await context.blobs.head(bucket, key)
    except NoSuchBlob:
        bucket_there = await context.blobs.has_bucket(bucket, fresh=True)
        return Stored(state="missing" if bucket_there else "no_bucket")
    except (NoSuchBucket, BlobRefused):  # refused: a name that no bucket or key can have
        return Stored(state="no_bucket")
    except BlobsUnavailable:
        return Stored(state="unavailable")
    return Stored(state="there", size_bytes=head.size_bytes, etag=head.etag)


async def _is_there(context: Context, artifact: Mapping[str, Any]) -> bool:
    """Unless the storage says that it is not."""
    try:
        await context.blobs.head(artifact["bucket"], artifact["key"])
    except (NoSuchBlob, NoSuchBucket):
        return False
    except (BlobRefused, BlobsUnavailable):
        return True
    return True


def _no_such_photo() -> Problem:
    return Problem("no_such_photo", "GET /v1/photos lists those that there are; ?bucket=&key= explains a key.")
