"""From the body of a message to the events in it, whatever storage sent it: chosen by what the body says it is.

Never raises for a body. What is of no use is named by a stable code, so that it can be counted and answered well: a
source that gets an error repeats it for ever. Nothing is verified here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, NoReturn

from gateway.events import aws_s3, ceph, eventbridge, minio_redis, minio_webhook, rustfs, seaweedfs
from gateway.events.bucket_event import BucketEvent, Ignored, Reason
from gateway.events.envelopes import Envelope, MalformedEnvelope, envelope_kind, read_envelope
from gateway.events.fields import Json

Handshake = Literal["subscribe", "unsubscribe", "test"]
_Part = tuple[Callable[[Any], BucketEvent], Any]

_NORMALISERS: dict[str, Callable[[Json], BucketEvent]] = {
    module.EVENT_SOURCE: module.normalise for module in (aws_s3, ceph, minio_webhook, rustfs)
}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a message may be at most."""

    body_bytes: int = 1 << 20
    records: int = 1_000


class Unusable(StrEnum):
    """Why a body has nothing for us. The values are stable: they name metrics."""

    LARGE_BODY = "large_body"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    UNKNOWN_SHAPE = "unknown_shape"
    TOO_MANY_RECORDS = "too_many_records"
    MALFORMED_ENVELOPE = "malformed_envelope"
    NESTED_ENVELOPE = "nested_envelope"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a body holds. Events keep their order.

    `envelope`: what SNS wrapped it in. A body that came over HTTP proves nothing until `sns` has verified its envelope:
    neither its events nor its handshake may be acted on before. `unusable`: then there are no events.
    """

    events: tuple[BucketEvent, ...] = ()
    ignored: Mapping[Reason, int] = field(default_factory=dict)
    handshake: Handshake | None = None
    envelope: Envelope | None = None
    unusable: Unusable | None = None


class _Unreadable(Exception):
    def __init__(self, code: Unusable) -> None:
        super().__init__(code.value)
        self.code = code


_DEFAULT_LIMIT = Limit()


def read_events(body: bytes, *, limit: Limit = _DEFAULT_LIMIT) -> Reading:
    """What a message's body tells. An SNS envelope is opened once. Raises nothing."""
    try:
        document = _parse(body, limit)
        kind = envelope_kind(document)
        if kind is None:
            return _read_document(document, limit)
        envelope = read_envelope(document, kind)
    except MalformedEnvelope:
        return Reading(unusable=Unusable.MALFORMED_ENVELOPE)
    except _Unreadable as error:
        return Reading(unusable=error.code)
    if envelope.kind == "Notification":
        return _open(envelope, limit)
    is_first = envelope.kind == "SubscriptionConfirmation"
    return Reading(envelope=envelope, handshake="subscribe" if is_first else "unsubscribe")


def _open(envelope: Envelope, limit: Limit) -> Reading:
    try:
        document = _parse(envelope.message.encode(), limit)
        if envelope_kind(document) is not None:
            return Reading(envelope=envelope, unusable=Unusable.NESTED_ENVELOPE)
        return replace(_read_document(document, limit), envelope=envelope)
    except _Unreadable as error:
        return Reading(envelope=envelope, unusable=error.code)


def _parse(body: bytes, limit: Limit) -> Json:
    if len(body) > limit.body_bytes:
        raise _Unreadable(Unusable.LARGE_BODY)
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise _Unreadable(Unusable.NOT_UTF8) from None
    except ValueError:
        raise _Unreadable(Unusable.NOT_JSON) from None
    except RecursionError:
        raise _Unreadable(Unusable.TOO_DEEP) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities are Python's, not JSON's


def _read_document(document: Json, limit: Limit) -> Reading:
    # S3 sends this once, when notifications are switched on.
    if isinstance(document, dict) and document.get("Event") == "s3:TestEvent" and "Records" not in document:
        return Reading(handshake="test")
    parts = _parts(document)
    if len(parts) > limit.records:
        raise _Unreadable(Unusable.TOO_MANY_RECORDS)
    events: list[BucketEvent] = []
    ignored: Counter[Reason] = Counter()
    for normalise, part in parts:
        try:
            events.append(normalise(part))
        except Ignored as error:
            ignored[error.reason] += 1
    return Reading(events=tuple(events), ignored=dict(ignored))


def _parts(document: Json) -> Sequence[_Part]:
    """What a document tells of, each with the normaliser of its source."""
    if eventbridge.is_event(document):
        return [(eventbridge.normalise, document)]
    if seaweedfs.is_notification(document):
        changes = seaweedfs.changes(document)
        return [(seaweedfs.normalise, change) for change in changes] or [(_refuse_part, document)]
    if minio_redis.is_access_entry(document):
        return [(_normalise_record, record) for record in minio_redis.records(document)]
    records = document.get("Records") if isinstance(document, dict) else None
    if isinstance(records, list):
        return [(_normalise_record, record) for record in records]
    raise _Unreadable(Unusable.UNKNOWN_SHAPE)


def _normalise_record(record: Json) -> BucketEvent:
    if not isinstance(record, dict):
        raise Ignored(Reason.MALFORMED)
    source = record.get("eventSource")
    normalise = _NORMALISERS.get(source) if isinstance(source, str) else None
    if normalise is None:
        raise Ignored(Reason.UNKNOWN_SOURCE)
    return normalise(record)


def _refuse_part(_: Json) -> NoReturn:
    raise Ignored(Reason.MALFORMED)
