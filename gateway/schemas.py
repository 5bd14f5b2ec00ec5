"""The shapes of what goes in and out. Requests are validated with these, answers are written with these, and the
OpenAPI document is made of these: there is no second description that could be wrong.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, post_dump, validate

from storage import events, jobfilters
from storage.deadletters import ACTS_ON, Action

STATES = ("ready", "running", "done", "dead", "discarded")
STATUSES = ("processing", "ready", "partial", "rejected")
MAX_PAGE = 200
_MAX_ID = 2**63 - 1


class Text(fields.String):
    """A string that Postgres can hold: no NUL, no lone surrogate, bounded."""

    def __init__(
        self, *, maximum: int = 1024, minimum: int = 0, metadata: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            validate=[validate.Length(min=minimum, max=maximum), _check_storable],
            # The document's pattern leaves surrogates out: most regular expression engines cannot name them.
            metadata={"pattern": r"^[^\x00]*$", **(metadata or {})},
            **kwargs,
        )


class Flag(fields.Boolean):
    """true or false and nothing that resembles them: who means `dry_run` must not be misread."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Instant(fields.Field[datetime]):
    """A moment, ISO 8601 with an offset (UTC where it has none)."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        parsed = _parse_time(value)
        aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        try:
            return aware.astimezone(UTC)
        except OverflowError:  # the first or last day of time itself
            return aware.replace(tzinfo=UTC)


class LocalTime(fields.Field[datetime]):
    """What a camera's clock showed, ISO 8601; an offset is passed over, because photos are compared by local time."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else value.isoformat()

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        return _parse_time(value).replace(tzinfo=None)


class Hex(fields.Field[bytes]):
    """Bytes as lower-case hexadecimal digits."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else bytes(value).hex()


class PhotoCursor(fields.Field[tuple[datetime, uuid.UUID]]):
    """Where the last page ended. Opaque to clients."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> tuple[datetime, uuid.UUID]:
        at, _, photo_id = _decode_cursor(value).partition("|")
        try:
            return datetime.fromisoformat(at).astimezone(UTC), uuid.UUID(photo_id)
        except (ValueError, OverflowError):
            raise ValidationError("This is no cursor of ours. Leave it out to begin anew.") from None


class JobCursor(fields.Field[int]):
    """Where the last page ended. Opaque to clients."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        text = _decode_cursor(value)
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _MAX_ID):
            raise ValidationError("This is no cursor of ours. Leave it out to begin anew.")
        return int(text)


class EventId(fields.Field[int]):
    """The place in the events that an id names."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        try:
            return events.read_id(str(value))
        except ValueError:
            raise ValidationError("This is no event's id. Leave it out to begin with what comes next.") from None


class Words(fields.Field[tuple[str, ...]]):
    """Several of a few words, separated by commas."""

    def __init__(self, words: Sequence[str], *, metadata: Mapping[str, Any], **kwargs: Any) -> None:
        self._words = words
        one = "|".join(re.escape(word) for word in words)
        super().__init__(metadata={"type": "string", "pattern": f"^({one})(,({one}))*$", **metadata}, **kwargs)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> tuple[str, ...]:
        found = tuple(str(value).split(","))
        if not set(found) <= set(self._words):
            raise ValidationError(f"Name some of {', '.join(self._words)}, separated by commas.")
        return found


def _check_storable(text: str) -> None:
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
        raise ValidationError("NUL and lone surrogates cannot be stored.")


def encode_cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(value: Any) -> str:
    text = str(value)
    try:
        return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        raise ValidationError("This is no cursor of ours. Leave it out to begin anew.") from None


def _parse_time(value: Any) -> datetime:
    text = value if isinstance(value, str) else ""
    try:
        return datetime.fromisoformat(text.strip().replace(" ", "+", 1) if "T" in text else text)
    except ValueError:
        raise ValidationError("Write a time as 2026-05-17T09:30:00Z.") from None


def _about(text: str, **extra: Any) -> dict[str, Any]:
    return {"description": text, **extra}


# --- what goes in ---------------------------------------------------------------------------------------------------


class WaitQuery(Schema):
    wait = fields.Float(
        load_default=0.0,
        allow_nan=False,
        validate=validate.Range(min=0, max=600),
        metadata=_about("Answer when previews and EXIF are ready, or after that many seconds.", example=10),
    )


class FormQuery(WaitQuery):
    bucket = Text(
        maximum=63,
        minimum=3,
        metadata=_about("Bucket to store into. Default: the default bucket.", pattern="^[a-z0-9][a-z0-9.-]*[a-z0-9]$"),
    )


class PhotosQuery(Schema):
    bucket = Text(maximum=63, metadata=_about("Only photos of this bucket."))
    prefix = Text(metadata=_about("Only photos whose key begins so."))
    key = Text(metadata=_about("Only the photo under this key, exactly."))
    status = fields.String(validate=validate.OneOf(STATUSES), metadata=_about("Only photos in this status."))
    taken_after = LocalTime(metadata=_about("Taken at this local time or later.", type="string", format="date-time"))
    taken_before = LocalTime(metadata=_about("Taken before this local time.", type="string", format="date-time"))
    camera = Text(maximum=200, metadata=_about("Part of the camera's make and model, in any case."))
    cursor = PhotoCursor(metadata=_about("`next_cursor` of the page before.", type="string"))
    limit = fields.Integer(load_default=50, validate=validate.Range(min=1, max=MAX_PAGE), metadata=_about("Page size."))


class EventsQuery(Schema):
    types = Words(
        events.TYPES, load_default=None, metadata=_about("Only events of these types.", example="photo.ready")
    )
    bucket = Text(maximum=63, load_default=None, metadata=_about("Only events of photos in this bucket."))
    prefix = Text(load_default="", metadata=_about("Only events of photos whose key begins so."))
    after = EventId(
        load_default=None,
        metadata=_about(
            "Begin after the event of this id. Default: with what comes next.", type="string", pattern="^[0-9a-f]{16}$"
        ),
    )


class JobFilterFields(Schema):
    processor = Text(maximum=100, metadata=_about("Only jobs of this processor."))
    error_code = Text(maximum=100, metadata=_about("Only jobs whose last error had this code."))
    error_group = Text(maximum=12, metadata=_about("Only jobs that failed alike, as GET /v1/jobs/groups names it."))
    worker = Text(maximum=300, metadata=_about("Only jobs that this worker runs or ran last."))
    bucket = Text(maximum=63, metadata=_about("Only jobs on photos of this bucket."))
    key_prefix = Text(metadata=_about("Only jobs on photos whose key begins so."))
    search = Text(minimum=1, maximum=200, metadata=_about("Part of the photo's key or of the error, in any case."))
    photo_id = fields.UUID(metadata=_about("Only jobs of this photo."))
    created_after = Instant(metadata=_about("Created then or later.", type="string", format="date-time"))
    created_before = Instant(metadata=_about("Created before.", type="string", format="date-time"))
    finished_after = Instant(metadata=_about("Ended then or later.", type="string", format="date-time"))
    finished_before = Instant(metadata=_about("Ended before.", type="string", format="date-time"))
    since = Instant(metadata=_about("Ended, or else created, then or later.", type="string", format="date-time"))
    until = Instant(metadata=_about("Ended, or else created, before.", type="string", format="date-time"))


class JobsQuery(JobFilterFields):
    state = fields.String(
        validate=validate.OneOf(jobfilters.STATES),
        metadata=_about(
            "Only jobs in this state. Ready ones are `due` or for `later`; `rejected` are the done ones that rejected "
            "their photo."
        ),
    )
    cursor = JobCursor(metadata=_about("`next_cursor` of the page before.", type="string"))
    limit = fields.Integer(load_default=50, validate=validate.Range(min=1, max=MAX_PAGE), metadata=_about("Page size."))


class NoteBody(Schema):
    note = Text(maximum=1000, load_default=None, allow_none=True, metadata=_about("Why; kept with the job."))


def _states_for(action: Action) -> fields.String:
    states = ACTS_ON[action]
    return fields.String(
        validate=validate.OneOf(states),
        metadata=_about(f"The state that they must be in; default: {states[0]}. Others are left alone."),
    )


class DiscardBody(NoteBody):
    state = _states_for("discard")


class ReplayFilterFields(JobFilterFields):
    state = _states_for("replay")


class DiscardFilterFields(JobFilterFields):
    state = _states_for("discard")


class PromoteFilterFields(JobFilterFields):
    state = _states_for("promote")


class JobActionBody(NoteBody):
    dry_run = Flag(load_default=False, metadata=_about("Only count what matches."))
    limit = fields.Integer(
        strict=True,
        load_default=1000,
        validate=validate.Range(min=1, max=1000),
        metadata=_about("Act on so many at most."),
    )


class ReplayManyBody(JobActionBody):
    filter = fields.Nested(
        ReplayFilterFields, load_default=dict, metadata=_about("Which dead jobs; {} means all of them.")
    )


class DiscardManyBody(JobActionBody):
    filter = fields.Nested(
        DiscardFilterFields,
        load_default=dict,
        metadata=_about("Which jobs; {} means all dead ones. Waiting ones only where `state` says so."),
    )


class PromoteManyBody(JobActionBody):
    filter = fields.Nested(
        PromoteFilterFields, load_default=dict, metadata=_about("Which jobs for later; {} means all of them.")
    )


class SignInBody(Schema):
    access_key = Text(maximum=64, required=True, metadata=_about("The part of the token before its dot."))
    secret = Text(maximum=256, required=True, metadata=_about("The part after it."))


# --- what goes out --------------------------------------------------------------------------------------------------


class ProblemSchema(Schema):
    """RFC 9457; some problems have further members, such as `errors`."""

    class Meta:
        unknown = INCLUDE

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    code = fields.String(required=True, metadata=_about("Stable; programs may key on it."))
    detail = fields.String(required=True, metadata=_about("What to do about it."))


class ErrorSchema(Schema):
    code = fields.String(required=True)
    detail = fields.String()
    processor = fields.String()


class JobErrorSchema(Schema):
    code = fields.String(required=True)
    detail = fields.String()
    reason = fields.String()
    cause = fields.String()
    traceback = fields.String(metadata=_about("Only with the admin scope."))


class JobSchema(Schema):
    id = fields.Integer(required=True)
    photo_id = fields.UUID(required=True, attribute="object_id")
    bucket = fields.String(required=True)
    key = fields.String(required=True)
    processor = fields.String(required=True)
    version = fields.Integer(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    outcome = fields.String(allow_none=True, metadata=_about("How a done job ended: ok, rejected or superseded."))
    attempt = fields.Integer(required=True, metadata=_about("Runs that count towards max_attempts."))
    max_attempts = fields.Integer(required=True)
    crashes = fields.Integer(required=True)
    expiries = fields.Integer(required=True)
    run_at = Instant(required=True, metadata=_about("Due then.", type="string", format="date-time"))
    lease_until = Instant(allow_none=True, metadata=_about("", type="string", format="date-time"))
    worker = fields.String(allow_none=True)
    error = fields.Nested(JobErrorSchema, allow_none=True, metadata=_about("The last one."))
    error_group = fields.String(required=True, metadata=_about("Jobs that failed alike share it; empty: none."))
    created_at = Instant(required=True, metadata=_about("", type="string", format="date-time"))
    started_at = Instant(allow_none=True, metadata=_about("", type="string", format="date-time"))
    finished_at = Instant(allow_none=True, metadata=_about("", type="string", format="date-time"))


class AttemptSchema(Schema):
    number = fields.Integer(required=True)
    worker = fields.String(required=True)
    started_at = Instant(required=True, metadata=_about("", type="string", format="date-time"))
    ended_at = Instant(allow_none=True, metadata=_about("", type="string", format="date-time"))
    seconds = fields.Float(allow_none=True)
    outcome = fields.String(allow_none=True, metadata=_about("null: still running."))
    error = fields.Nested(JobErrorSchema, allow_none=True)


class ActionSchema(Schema):
    action = fields.String(required=True)
    actor = fields.String(required=True)
    note = fields.String(allow_none=True)
    at = Instant(required=True, metadata=_about("", type="string", format="date-time"))


class JobPhotoSchema(Schema):
    filename = fields.String(allow_none=True, required=True)
    content_type = fields.String(required=True)
    size_bytes = fields.Integer(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    request_id = fields.String(allow_none=True, required=True, metadata=_about("Of the request that brought it."))
    current = fields.Boolean(required=True, metadata=_about("false: it was replaced or deleted since."))


class MadeSchema(Schema):
    """What the last run of a job left behind."""

    artifacts = fields.List(fields.Nested("ArtifactSchema"), required=True)
    facts = fields.Dict(keys=fields.String(), allow_none=True, required=True, metadata=_about("null: none."))


class JobDetailSchema(JobSchema):
    seconds = fields.Float(
        allow_none=True, required=True, metadata=_about("Of the last run, up to now where it is under way.")
    )
    photo = fields.Nested(JobPhotoSchema, required=True)
    made = fields.Nested(MadeSchema, required=True)
    attempts = fields.List(fields.Nested(AttemptSchema), required=True)
    actions = fields.List(fields.Nested(ActionSchema), required=True)


class JobPageSchema(Schema):
    jobs = fields.List(fields.Nested(JobSchema), required=True)
    next_cursor = fields.String(allow_none=True, required=True)


class JobActionSchema(Schema):
    dry_run = fields.Boolean(required=True)
    matched = fields.Integer(required=True, metadata=_about("Jobs that match the filter."))
    changed = fields.Integer(required=True, metadata=_about("Jobs acted on by this request."))
    by_error = fields.Dict(
        keys=fields.String(), values=fields.Integer(), required=True, metadata=_about("Matches by error code.")
    )
    job_ids = fields.List(fields.Integer(), required=True, metadata=_about("Those acted on, or that would be."))


class ArtifactSchema(Schema):
    preset = fields.String(required=True)
    preset_version = fields.String(required=True)
    bucket = fields.String(required=True)
    key = fields.String(required=True)
    content_type = fields.String(required=True)
    size_bytes = fields.Integer(required=True)
    width_px = fields.Integer(required=True)
    height_px = fields.Integer(required=True)
    sha256 = Hex(required=True, metadata=_about("", type="string"))
    url = fields.String(required=True)


class PhotoJobSchema(Schema):
    id = fields.Integer(required=True)
    processor = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    outcome = fields.String(allow_none=True)
    attempt = fields.Integer(required=True)
    error = fields.Nested(JobErrorSchema, allow_none=True)
    url = fields.String(required=True)


class LinksSchema(Schema):
    self = fields.String(required=True)
    original = fields.String(required=True)
    exif = fields.String(required=True)
    previews = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class PhotoSchema(Schema):
    id = fields.UUID(required=True)
    bucket = fields.String(required=True)
    key = fields.String(required=True)
    etag = fields.String(required=True, metadata=_about("Of the original in S3, without quotes."))
    version_id = fields.String(allow_none=True)
    sha256 = Hex(allow_none=True, metadata=_about("Of the original.", type="string"))
    size_bytes = fields.Integer(required=True)
    content_type = fields.String(required=True)
    filename = fields.String(allow_none=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    rejection = fields.Nested(ErrorSchema, allow_none=True, metadata=_about("Why, where the status is rejected."))
    taken_at = LocalTime(allow_none=True, metadata=_about("Local time of the camera.", type="string"))
    camera = fields.String(allow_none=True)
    created_at = Instant(required=True, metadata=_about("", type="string", format="date-time"))
    settled_at = Instant(allow_none=True, metadata=_about("", type="string", format="date-time"))
    superseded_at = Instant(allow_none=True, metadata=_about("", type="string", format="date-time"))
    request_id = fields.String(
        allow_none=True, metadata=_about("Of the request that brought it, as logs name it; null: it came by none.")
    )
    jobs = fields.List(fields.Nested(PhotoJobSchema), required=True)
    artifacts = fields.List(fields.Nested(ArtifactSchema), required=True)
    links = fields.Nested(LinksSchema, required=True)


class PhotoDetailSchema(PhotoSchema):
    facts = fields.Dict(keys=fields.String(), required=True, metadata=_about("By processor."))


class PhotoPageSchema(Schema):
    photos = fields.List(fields.Nested(PhotoSchema), required=True)
    next_cursor = fields.String(allow_none=True, required=True)


class SessionSchema(Schema):
    access_key = fields.String(required=True)
    name = fields.String(required=True, metadata=_about("Of the key."))
    scopes = fields.List(fields.String(), required=True)
    places = fields.List(fields.String(), required=True, metadata=_about("What the key is limited to; []: nothing."))
    csrf_token = fields.String(
        allow_none=True,
        required=True,
        metadata=_about("Send it as X-CSRF-Token with what changes something; null: a bearer token needs none."),
    )
    expires_at = Instant(allow_none=True, required=True, metadata=_about("", type="string", format="date-time"))
    default_bucket = fields.String(required=True)
    derived_bucket = fields.String(required=True, metadata=_about("The bucket of previews."))
    max_upload_bytes = fields.Integer(required=True)


class FileErrorSchema(ProblemSchema):
    filename = fields.String(allow_none=True)
    index = fields.Integer(required=True, metadata=_about("Which file of the form, from 0."))


class UploadedSchema(Schema):
    photos = fields.List(fields.Nested(PhotoDetailSchema), required=True)
    errors = fields.List(
        fields.Nested(FileErrorSchema), required=True, metadata=_about("Files of the form that were not stored.")
    )


class WindowSchema(Schema):
    jobs = fields.Integer(required=True)
    per_second = fields.Float(required=True)
    p50_seconds = fields.Float(allow_none=True, required=True)
    p95_seconds = fields.Float(allow_none=True, required=True)
    p99_seconds = fields.Float(allow_none=True, required=True)


class WaitSchema(Schema):
    p50_seconds = fields.Float(required=True)
    p95_seconds = fields.Float(required=True)
    p99_seconds = fields.Float(required=True)


class PauseSchema(Schema):
    at = Instant(required=True, metadata=_about("Since when.", type="string", format="date-time"))
    by = fields.String(required=True)
    note = fields.String(allow_none=True, required=True)


class ProcessorStatsSchema(Schema):
    paused = fields.Nested(PauseSchema, allow_none=True, required=True, metadata=_about("null: its jobs run."))
    ready = fields.Integer(required=True, metadata=_about("Due and later ones."))
    due = fields.Integer(required=True, metadata=_about("Ready, and their time has come."))
    later = fields.Integer(required=True, metadata=_about("Ready, and not due yet: they are tried again then."))
    next_at = Instant(
        allow_none=True,
        required=True,
        metadata=_about("When the next of the later ones is due.", type="string", format="date-time"),
    )
    running = fields.Integer(required=True)
    done = fields.Integer(required=True)
    rejected = fields.Integer(required=True, metadata=_about("Done with the verdict that the photo is at fault."))
    dead = fields.Integer(required=True)
    discarded = fields.Integer(required=True)
    oldest_ready_seconds = fields.Float(
        allow_none=True, required=True, metadata=_about("Age of the oldest due job; null: none is due.")
    )
    windows = fields.Dict(
        keys=fields.String(), values=fields.Nested(WindowSchema), required=True, metadata=_about("By 1m, 5m, 15m.")
    )
    wait = fields.Nested(
        WaitSchema,
        allow_none=True,
        required=True,
        metadata=_about("How long jobs were due before a worker took them, in five minutes; null: none ended."),
    )


class RunningSchema(Schema):
    job_id = fields.Integer(required=True)
    processor = fields.String(required=True)
    bucket = fields.String(required=True)
    key = fields.String(required=True)
    started_at = fields.String(required=True, metadata=_about("ISO 8601.", format="date-time"))
    seconds = fields.Float(required=True)


class WorkerSchema(Schema):
    id = fields.String(required=True)
    host = fields.String(required=True)
    pid = fields.Integer(required=True)
    version = fields.String(required=True)
    slots = fields.Integer(required=True)
    started_at = Instant(required=True, metadata=_about("", type="string", format="date-time"))
    seen_at = Instant(required=True, metadata=_about("", type="string", format="date-time"))
    stopping = fields.Boolean(required=True)
    running = fields.List(fields.Nested(RunningSchema), required=True)


class GoneWorkerSchema(Schema):
    id = fields.String(required=True)
    host = fields.String(required=True)
    pid = fields.Integer(required=True)
    version = fields.String(required=True)
    slots = fields.Integer(required=True)
    started_at = Instant(required=True, metadata=_about("", type="string", format="date-time"))
    seen_at = Instant(required=True, metadata=_about("Heard of last.", type="string", format="date-time"))
    stopping = fields.Boolean(required=True, metadata=_about("It had said that it would take nothing new."))
    left_at = Instant(
        allow_none=True,
        required=True,
        metadata=_about("It ended as it was told to; null: it fell silent.", type="string", format="date-time"),
    )
    jobs = fields.Integer(required=True, metadata=_about("That it holds until their leases end."))


class TurnSchema(Schema):
    """Something that this gateway does again and again."""

    name = fields.String(required=True, metadata=_about("dispatch, housekeeping or reconcile."))
    every_seconds = fields.Float(allow_none=True, required=True, metadata=_about("null: it is switched off."))
    last_at = Instant(
        allow_none=True,
        required=True,
        metadata=_about("When the last one came to its end.", type="string", format="date-time"),
    )
    next_at = Instant(allow_none=True, required=True, metadata=_about("About when.", type="string", format="date-time"))


class StatsSchema(Schema):
    at = Instant(required=True, metadata=_about("", type="string", format="date-time"))
    processors = fields.Dict(keys=fields.String(), values=fields.Nested(ProcessorStatsSchema), required=True)
    workers = fields.List(fields.Nested(WorkerSchema), required=True)
    gone_workers = fields.List(
        fields.Nested(GoneWorkerSchema), required=True, metadata=_about("That ended in the last 15 minutes.")
    )
    turns = fields.List(fields.Nested(TurnSchema), required=True, metadata=_about("Of the gateway that answers."))
    redis_stream_depth = fields.Integer(
        allow_none=True, required=True, metadata=_about("Messages not yet taken; null: Redis is away.")
    )
    uploads_waiting = fields.Integer(required=True, metadata=_about("Uploads of this gateway that wait for memory."))


class DependencySchema(Schema):
    up = fields.Boolean(required=True)
    required = fields.Boolean(required=True, metadata=_about("Whether uploads need it."))
    down_since = Instant(allow_none=True, metadata=_about("", type="string", format="date-time"))


class ReadinessSchema(Schema):
    ready = fields.Boolean(required=True)
    dependencies = fields.Dict(keys=fields.String(), values=fields.Nested(DependencySchema), required=True)


class HealthSchema(Schema):
    alive = fields.Boolean(required=True)
    version = fields.String(required=True)


class ExifSchema(Schema):
    """The facts of the exif processor, open-ended: `raw` has every tag."""

    class Meta:
        unknown = INCLUDE

    @post_dump(pass_original=True)
    def _everything(self, data: Any, original: Any, **_: Any) -> Any:
        return original
