"""The envelope that SNS puts around a message, over HTTP and in SQS. Read here, believed nowhere: `sns` verifies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gateway.events.fields import Json, is_storable

EnvelopeKind = Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]

_KINDS: dict[str, EnvelopeKind] = {kind: kind for kind in get_args(EnvelopeKind)}


class MalformedEnvelope(ValueError):
    """A field that every such envelope has is missing, is no text, or is no valid text."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """`token`, `subscribe_url`: of confirmations only. The signature's fields are "" where none was given."""

    kind: EnvelopeKind
    message_id: str
    topic_arn: str
    timestamp: str
    message: str
    subject: str | None = None
    token: str = ""
    subscribe_url: str = ""
    signature_version: str = ""
    signature: str = ""
    signing_cert_url: str = ""


def envelope_kind(document: Json) -> EnvelopeKind | None:
    """What kind of envelope this is; None where it is none."""
    stated = document.get("Type") if isinstance(document, dict) else None
    return _KINDS.get(stated) if isinstance(stated, str) else None


def read_envelope(document: dict[str, Json], kind: EnvelopeKind) -> Envelope:
    """The envelope of that kind. Raises MalformedEnvelope."""
    is_confirmation = kind != "Notification"
    return Envelope(
        kind=kind,
        message_id=_need(document, "MessageId"),
        topic_arn=_need(document, "TopicArn"),
        timestamp=_need(document, "Timestamp"),
        message=_need(document, "Message"),
        subject=_optional(document, "Subject"),
        token=_need(document, "Token") if is_confirmation else "",
        subscribe_url=_need(document, "SubscribeURL") if is_confirmation else "",
        signature_version=_optional(document, "SignatureVersion") or "",
        signature=_optional(document, "Signature") or "",
        signing_cert_url=_optional(document, "SigningCertURL") or "",
    )


def _need(document: dict[str, Json], name: str) -> str:
    value = _optional(document, name)
    if value is None:
        raise MalformedEnvelope(name)
    return value


def _optional(document: dict[str, Json], name: str) -> str | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not is_storable(value):
        raise MalformedEnvelope(name)
    return value
