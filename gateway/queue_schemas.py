"""The shapes of the queue board: what is asked and answered about groups, trends, pauses and actions.

As in gateway.schemas, requests are validated, answers written and the OpenAPI document made with these alone.
"""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from gateway.schemas import MAX_PAGE, Instant, JobCursor, JobFilterFields
from storage.jobfilters import STATES
from storage.trends import MAX_MINUTES


def _time(text: str = "") -> dict[str, Any]:
    return {"description": text, "type": "string", "format": "date-time"}


def _about(text: str) -> dict[str, Any]:
    return {"description": text}


class GroupsQuery(JobFilterFields):
    state = fields.String(
        load_default="dead", validate=validate.OneOf(STATES), metadata=_about("Only jobs in this state.")
    )
    limit = fields.Integer(
        load_default=50, validate=validate.Range(min=1, max=MAX_PAGE), metadata=_about("So many groups at most.")
    )


class HistoryQuery(Schema):
    minutes = fields.Integer(
        load_default=60, validate=validate.Range(min=1, max=MAX_MINUTES), metadata=_about("How far back.")
    )


class ActionsQuery(Schema):
    cursor = JobCursor(metadata={"description": "`next_cursor` of the page before.", "type": "string"})
    limit = fields.Integer(load_default=50, validate=validate.Range(min=1, max=MAX_PAGE), metadata=_about("Page size."))


class GroupSchema(Schema):
    processor = fields.String(required=True)
    error_code = fields.String(required=True)
    error_group = fields.String(required=True, metadata=_about("Filters jobs by this group; may be empty."))
    message = fields.String(allow_none=True, required=True, metadata=_about("Of the newest job."))
    jobs = fields.Integer(required=True)
    first_at = Instant(allow_none=True, required=True, metadata=_time())
    last_at = Instant(allow_none=True, required=True, metadata=_time())
    sample_job_ids = fields.List(fields.Integer(), required=True, metadata=_about("The newest, five at most."))


class GroupListSchema(Schema):
    groups = fields.List(fields.Nested(GroupSchema), required=True)


class ProcessorTrendSchema(Schema):
    ok = fields.List(fields.Integer(), required=True, metadata=_about("Runs that ended a job well."))
    failed = fields.List(fields.Integer(), required=True, metadata=_about("Runs that will be repeated."))
    dead = fields.List(fields.Integer(), required=True, metadata=_about("Jobs given up."))
    p95_seconds = fields.List(fields.Float(allow_none=True), required=True, metadata=_about("Of good runs."))


class HistorySchema(Schema):
    start = Instant(required=True, data_key="from", metadata=_time("When the first step began."))
    end = Instant(required=True, data_key="to", metadata=_time("Now; the last step is under way."))
    step_seconds = fields.Integer(required=True)
    processors = fields.Dict(keys=fields.String(), values=fields.Nested(ProcessorTrendSchema), required=True)


class ProcessorSchema(Schema):
    processor = fields.String(required=True)
    changed = fields.Boolean(required=True, metadata=_about("Whether this request did it."))
    paused = fields.Nested("PauseSchema", allow_none=True, required=True, metadata=_about("null: its jobs run."))


class ProcessorsSchema(Schema):
    processors = fields.List(fields.Nested(ProcessorSchema), required=True)


class RedisSchema(Schema):
    """null stands for what the server does not tell."""

    server = fields.String(required=True, metadata=_about("redis or valkey."))
    version = fields.String(allow_none=True, required=True)
    mode = fields.String(allow_none=True, required=True, metadata=_about("standalone, cluster or sentinel."))
    role = fields.String(allow_none=True, required=True)
    os = fields.String(allow_none=True, required=True)
    port = fields.Integer(allow_none=True, required=True)
    uptime_seconds = fields.Integer(allow_none=True, required=True)
    used_memory_bytes = fields.Integer(allow_none=True, required=True)
    peak_memory_bytes = fields.Integer(allow_none=True, required=True)
    max_memory_bytes = fields.Integer(allow_none=True, required=True, metadata=_about("null: no limit is set."))
    system_memory_bytes = fields.Integer(allow_none=True, required=True)
    fragmentation_ratio = fields.Float(allow_none=True, required=True)
    eviction_policy = fields.String(allow_none=True, required=True)
    append_only_file = fields.Boolean(allow_none=True, required=True)
    connected_clients = fields.Integer(allow_none=True, required=True)
    blocked_clients = fields.Integer(allow_none=True, required=True)
    evicted_keys = fields.Integer(allow_none=True, required=True)
    stream_messages = fields.Integer(required=True, metadata=_about("Job ids that nobody has taken."))
    stream_pending = fields.Integer(required=True, metadata=_about("Taken, and not acknowledged."))
    stream_consumers = fields.Integer(required=True)


class RedisAnswerSchema(Schema):
    redis = fields.Nested(RedisSchema, allow_none=True, required=True, metadata=_about("null: it does not answer."))


class DoneSchema(Schema):
    """What somebody did."""

    id = fields.Integer(required=True)
    action = fields.String(required=True, metadata=_about("replay, discard, promote, pause or resume."))
    actor = fields.String(required=True)
    note = fields.String(allow_none=True, required=True)
    processor = fields.String(allow_none=True, required=True, metadata=_about("Of a pause or resume."))
    filter = fields.Dict(allow_none=True, required=True, metadata=_about("Which jobs; null: they were named."))
    jobs = fields.Integer(required=True, metadata=_about("How many were changed."))
    job_ids = fields.List(fields.Integer(), required=True, metadata=_about("The first of them."))
    at = Instant(required=True, metadata=_time())


class DonePageSchema(Schema):
    actions = fields.List(fields.Nested(DoneSchema), required=True)
    next_cursor = fields.String(allow_none=True, required=True)
