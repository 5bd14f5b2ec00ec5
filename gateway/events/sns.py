"""Whether an SNS envelope is genuine: from a topic that we allow, fresh, and signed by AWS. Pure: the certificate's
bytes and the time come in.

First `check_envelope`, which also says whether its URLs may be fetched at all; then fetch the certificate; then
`check_signature`. Only with no refusal from both may anything in the envelope be acted on.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import parse_qsl

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from gateway.events.envelopes import Envelope
from gateway.events.fields import utc_time

MAX_AGE = timedelta(hours=1)  # as long as a delivery policy of SNS may retry over HTTP
MAX_AHEAD = timedelta(minutes=15)

# A region only: `sns.s3-us-west-2.amazonaws.com` would be somebody's bucket.
_AWS_ORIGIN = re.compile(r"https://sns\.([a-z]{2}(?:-[a-z]+){1,3}-[0-9]{1,2})\.amazonaws\.com(?:\.cn)?")
# Printable ASCII without a backslash: one reading for us and for whoever fetches it.
_URL = re.compile(r"(https?://[A-Za-z0-9.:\[\]-]+)(/[!-\[\]-~]*)")
_CERTIFICATE_PATH = re.compile(r"(?:/[A-Za-z0-9_-]+)+\.pem")
_DIGESTS: dict[str, type[HashAlgorithm]] = {"1": SHA1, "2": SHA256}


class Refusal(StrEnum):
    """Why an envelope is not believed. The values are stable: they name metrics."""

    TOPIC = "topic_not_allowed"
    CERTIFICATE_URL = "certificate_url_not_allowed"
    SUBSCRIBE_URL = "subscribe_url_not_allowed"
    BAD_TIMESTAMP = "bad_timestamp"
    OLD = "old"
    AHEAD = "ahead"
    UNKNOWN_VERSION = "unknown_signature_version"
    BAD_CERTIFICATE = "bad_certificate"
    EXPIRED_CERTIFICATE = "expired_certificate"
    BAD_SIGNATURE = "bad_signature"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Whom to believe. `topic_arns`: exactly these topics. `extra_origins`: places beside AWS that certificates and
    confirmations may come from, like `http://127.0.0.1:4566`; for tests against a server that plays SNS."""

    topic_arns: frozenset[str]
    extra_origins: frozenset[str] = frozenset()


def check_envelope(envelope: Envelope, *, rules: Rules, now: datetime) -> Refusal | None:
    """What can be said before anything is fetched; None: nothing against it. `now`: aware."""
    if envelope.topic_arn not in rules.topic_arns:
        return Refusal.TOPIC
    if envelope.signature_version not in _DIGESTS:
        return Refusal.UNKNOWN_VERSION
    if not is_certificate_url(envelope.signing_cert_url, rules) or _is_of_another_region(envelope):
        return Refusal.CERTIFICATE_URL
    if envelope.kind != "Notification" and not is_subscribe_url(envelope.subscribe_url, envelope.topic_arn, rules):
        return Refusal.SUBSCRIBE_URL
    return _check_age(envelope.timestamp, now)


def check_signature(envelope: Envelope, *, certificate_pem: bytes, now: datetime) -> Refusal | None:
    """Whether the key of that certificate signed the envelope; None: it did. The certificate is believed for the place
    that it came from. `now`: aware."""
    digest = _DIGESTS.get(envelope.signature_version)
    if digest is None:
        return Refusal.UNKNOWN_VERSION
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = certificate.public_key()
        is_valid = certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
    except (ValueError, UnsupportedAlgorithm):
        return Refusal.BAD_CERTIFICATE
    if not isinstance(key, RSAPublicKey):
        return Refusal.BAD_CERTIFICATE
    if not is_valid:
        return Refusal.EXPIRED_CERTIFICATE
    try:
        signature = base64.b64decode(envelope.signature, validate=True)
        key.verify(signature, signed_text(envelope), PKCS1v15(), digest())
    except (binascii.Error, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return Refusal.BAD_SIGNATURE
    return None


def is_certificate_url(url: str, rules: Rules) -> bool:
    """Whether a signing certificate may be fetched from there."""
    split = _split(url, rules)
    return split is not None and _CERTIFICATE_PATH.fullmatch(split) is not None


def is_subscribe_url(url: str, topic_arn: str, rules: Rules) -> bool:
    """Whether getting this does nothing but confirm a subscription to that topic."""
    split = _split(url, rules)
    if split is None or not split.startswith("/?") or "#" in split:
        return False
    try:
        pairs = parse_qsl(split[2:], max_num_fields=10)
    except ValueError:
        return False
    stated = dict(pairs)
    is_single = len(stated) == len(pairs)
    return is_single and (stated.get("Action"), stated.get("TopicArn")) == ("ConfirmSubscription", topic_arn)


def signed_text(envelope: Envelope) -> bytes:
    """The canonical string that SNS signs."""
    if envelope.kind == "Notification":
        subject = [] if envelope.subject is None else [("Subject", envelope.subject)]
        extra: list[tuple[str, str]] = []
    else:
        subject, extra = [("SubscribeURL", envelope.subscribe_url)], [("Token", envelope.token)]
    lines = [
        ("Message", envelope.message),
        ("MessageId", envelope.message_id),
        *subject,
        ("Timestamp", envelope.timestamp),
        *extra,
        ("TopicArn", envelope.topic_arn),
        ("Type", envelope.kind),
    ]
    return "".join(f"{name}\n{value}\n" for name, value in lines).encode()


def _split(url: str, rules: Rules) -> str | None:
    """The path and query of a URL of an allowed origin."""
    match = _URL.fullmatch(url)
    if match is None or not (_AWS_ORIGIN.fullmatch(match[1]) or match[1] in rules.extra_origins):
        return None
    return match[2]


def _is_of_another_region(envelope: Envelope) -> bool:
    """A topic's messages are signed in its own region: no stranger shall have us wait for any other."""
    origin = _AWS_ORIGIN.match(envelope.signing_cert_url)
    return origin is not None and origin[1] != (envelope.topic_arn.split(":") + [""] * 4)[3]


def _check_age(timestamp: str, now: datetime) -> Refusal | None:
    at = utc_time(timestamp)
    if at is None:
        return Refusal.BAD_TIMESTAMP
    if now - at > MAX_AGE:
        return Refusal.OLD
    return Refusal.AHEAD if at - now > MAX_AHEAD else None
