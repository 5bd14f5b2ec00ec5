"""SNS envelopes: signed by a key of the test's own they pass; forged, altered, stale or foreign they are refused."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.envelopes import Envelope
from gateway.events.reading import read_events
from gateway.events.sns import Refusal, Rules, check_envelope, check_signature
from tests.unit.events.shapes import TOPIC, confirmation, dump, envelope

NOW = datetime(2026, 11, 24, 2, 55, tzinfo=UTC)
RULES = Rules(topic_arns=frozenset({TOPIC}))

RsaOrEc = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Kind = Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]


def certify(key: RsaOrEc, *, days: int = 1) -> bytes:
    """A certificate of that key in PEM, good for so many days round NOW; negative: until so many days before."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=30))
        .not_valid_after(NOW + timedelta(days=days))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CERTIFICATE = certify(KEY)

# The documented order, stated apart from the code that is tested.
SIGNED_FIELDS = {
    "Notification": ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
    "SubscriptionConfirmation": ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
    "UnsubscribeConfirmation": ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
}


def sign(document: dict[str, Any], version: str = "2", key: rsa.RSAPrivateKey = KEY) -> dict[str, Any]:
    """The envelope, signed as SNS does."""
    names = [name for name in SIGNED_FIELDS[document["Type"]] if document.get(name) is not None]
    text = "".join(f"{name}\n{document[name]}\n" for name in names)
    digest = {"1": hashes.SHA1(), "2": hashes.SHA256()}[version]
    signature = key.sign(text.encode(), padding.PKCS1v15(), digest)
    return document | {"SignatureVersion": version, "Signature": base64.b64encode(signature).decode()}


def opened(document: dict[str, Any]) -> Envelope:
    found = read_events(dump(document)).envelope
    assert found is not None
    return found


def message(kind: Kind, **changes: Any) -> dict[str, Any]:
    return (envelope('{"ü": "☃\\n"}') if kind == "Notification" else confirmation(kind)) | changes


def verdict(document: dict[str, Any], *, certificate_pem: bytes = CERTIFICATE, now: datetime = NOW) -> Refusal | None:
    return check_signature(opened(document), certificate_pem=certificate_pem, now=now)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("kind", SIGNED_FIELDS)
def test_signed_envelopes(kind: Kind, version: str) -> None:
    """Every kind of envelope passes both checks as SNS signs it, with SHA-1 and with SHA-256."""
    document = sign(message(kind), version)
    assert check_envelope(opened(document), rules=RULES, now=NOW) is None
    assert verdict(document) is None


@pytest.mark.parametrize("subject", [None, "", "a\nb"])
def test_subjects(subject: str | None) -> None:
    """A notification without a subject is signed without one; an empty subject is one."""
    assert verdict(sign(message("Notification", Subject=subject))) is None


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_message_verifies(text: str) -> None:
    """What is signed is the message itself, not how JSON spelled it."""
    assert verdict(sign(envelope(text))) is None


@pytest.mark.parametrize("kind", SIGNED_FIELDS)
def test_altered_fields(kind: Kind) -> None:
    """Whichever signed field is altered, the signature no longer fits."""
    document = sign(message(kind))
    for name in SIGNED_FIELDS[kind]:
        if name != "Type":
            assert verdict(document | {name: document[name] + "x"}) == Refusal.BAD_SIGNATURE, name
    if kind != "Notification":
        other = set(SIGNED_FIELDS) - {kind, "Notification"}
        assert verdict(document | {"Type": other.pop()}) == Refusal.BAD_SIGNATURE


def test_a_subject_that_was_added_or_taken() -> None:
    """A subject cannot be slipped in or out."""
    document = sign(message("Notification"))
    assert verdict({name: value for name, value in document.items() if name != "Subject"}) == Refusal.BAD_SIGNATURE
    bare = sign(message("Notification", Subject=None))
    assert verdict(bare | {"Subject": "x"}) == Refusal.BAD_SIGNATURE


@pytest.mark.parametrize("signature", ["", "RkFLRQ==", "FAKE", "not base64!", "ü", "A" * 344])
def test_signatures_that_are_none(signature: str) -> None:
    """Anything but the signature is refused, not raised; also the signature with something about it."""
    genuine = sign(message("Notification"))
    assert verdict(genuine | {"Signature": signature}) == Refusal.BAD_SIGNATURE
    assert verdict(genuine | {"Signature": genuine["Signature"] + "\n"}) == Refusal.BAD_SIGNATURE


def test_other_keys_and_digests() -> None:
    """A signature by another key, or by the other digest than stated, does not pass."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert verdict(sign(message("Notification"), key=other)) == Refusal.BAD_SIGNATURE
    assert verdict(sign(message("Notification"), "1") | {"SignatureVersion": "2"}) == Refusal.BAD_SIGNATURE


@pytest.mark.parametrize("version", ["", "0", "3", "12"])
def test_unknown_signature_versions(version: str) -> None:
    """A version that we do not know is refused before and after the certificate is fetched."""
    document = sign(message("Notification")) | {"SignatureVersion": version}
    assert check_envelope(opened(document), rules=RULES, now=NOW) == Refusal.UNKNOWN_VERSION
    assert verdict(document) == Refusal.UNKNOWN_VERSION


def test_certificates() -> None:
    """A certificate must be one, of an RSA key, and good at that time."""
    document = sign(message("Notification"))
    for pem in (b"", b"<html>", CERTIFICATE[:100], certify(ec.generate_private_key(ec.SECP256R1()))):
        assert verdict(document, certificate_pem=pem) == Refusal.BAD_CERTIFICATE
    assert verdict(document, certificate_pem=certify(KEY, days=-1)) == Refusal.EXPIRED_CERTIFICATE
    assert verdict(document, now=NOW + timedelta(days=2)) == Refusal.EXPIRED_CERTIFICATE
    assert verdict(document, now=NOW - timedelta(days=31)) == Refusal.EXPIRED_CERTIFICATE


def test_topics() -> None:
    """Only a topic on the list is heard, however well its message is signed."""
    for topic in (TOPIC + "2", TOPIC[:-1], TOPIC.upper(), ""):
        document = sign(message("Notification", TopicArn=topic))
        assert verdict(document) is None
        assert check_envelope(opened(document), rules=RULES, now=NOW) == Refusal.TOPIC
    assert (
        check_envelope(opened(message("Notification")), rules=Rules(topic_arns=frozenset()), now=NOW) == Refusal.TOPIC
    )


@pytest.mark.parametrize(
    ("timestamp", "refusal"),
    [
        ("2026-11-24T02:55:00.000Z", None),
        ("2026-11-24T01:55:00.000Z", None),
        ("2026-11-24T01:54:59.999Z", Refusal.OLD),
        ("0001-01-01T00:00:00Z", Refusal.OLD),
        ("2026-11-24T03:10:00.000Z", None),
        ("2026-11-24T03:10:00.001Z", Refusal.AHEAD),
        ("9999-12-31T23:59:59Z", Refusal.AHEAD),
        ("yesterday", Refusal.BAD_TIMESTAMP),
        ("", Refusal.BAD_TIMESTAMP),
    ],
)
def test_age(timestamp: str, refusal: Refusal | None) -> None:
    """An envelope of more than an hour ago cannot be replayed, nor one be kept for later."""
    document = message("Notification", Timestamp=timestamp)
    assert check_envelope(opened(document), rules=RULES, now=NOW) == refusal


def test_envelopes_are_checked_as_they_were_read() -> None:
    """The signature is about the fields of the envelope itself: an altered copy does not pass."""
    genuine = opened(sign(message("Notification")))
    altered = replace(genuine, message="{}")
    assert check_signature(genuine, certificate_pem=CERTIFICATE, now=NOW) is None
    assert check_signature(altered, certificate_pem=CERTIFICATE, now=NOW) == Refusal.BAD_SIGNATURE
