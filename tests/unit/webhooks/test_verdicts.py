"""What becomes of a delivery, and how it is signed: without waiting for anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from processors.webhooks import signing
from processors.webhooks.sending import read_retry_after
from processors.webhooks.settings import WebhookSettings
from processors.webhooks.verdicts import Again, Dead, Delivered, decide
from storage.deliveries import Result

SETTINGS = WebhookSettings(webhook_attempts=5, webhook_backoff_base_seconds=2, webhook_backoff_cap_seconds=20)
FAILED = Result(status_code=500, error_code="bad_status")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def longest(_low: float, high: float) -> float:
    return high


def test_what_was_taken_is_delivered() -> None:
    """At whichever attempt."""
    for attempt in (1, 99):
        result = Result(status_code=200)
        assert decide(result, attempt=attempt, retry_after_seconds=9, settings=SETTINGS) == Delivered()


def test_backoff_doubles_up_to_its_cap_and_ends() -> None:
    """The upper bounds are 4, 8, 16 and 20 seconds; the fifth failure is the last."""
    verdicts = [
        decide(FAILED, attempt=attempt, retry_after_seconds=None, settings=SETTINGS, uniform=longest)
        for attempt in range(1, 6)
    ]
    assert verdicts == [Again(after_seconds=seconds) for seconds in (4, 8, 16, 20)] + [Dead(gone=False)]


@given(attempt=st.integers(1, 4), asked=st.one_of(st.none(), st.floats(0, 1e6)))
def test_a_wait_is_within_its_bounds(attempt: int, asked: float | None) -> None:
    """Never longer than the cap, whatever a receiver asks for; never shorter than what it asks for within that."""
    verdict = decide(FAILED, attempt=attempt, retry_after_seconds=asked, settings=SETTINGS)
    assert isinstance(verdict, Again)
    assert min(asked or 0, 20) <= verdict.after_seconds <= 20


def test_gone_is_the_end_at_the_first_attempt() -> None:
    """410 says that nothing more is wanted."""
    gone = Result(status_code=410, error_code="bad_status")
    assert decide(gone, attempt=1, retry_after_seconds=1, settings=SETTINGS) == Dead(gone=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7),
        (" 7 ", 7),
        ("-1", None),
        ("1e9", None),
        ("9999999999", None),
        ("soon", None),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0),
        ("Tue, 99 Nov 2026 11:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(text: str | None, seconds: float | None) -> None:
    """A number of seconds or a date; anything else says nothing."""
    assert read_retry_after(text, NOW) == seconds


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=30), max_size=5))
def test_what_is_signed_verifies_and_what_is_altered_does_not(data: dict[str, str]) -> None:
    """By the reference library, with either of two secrets, and with no other; a byte more is noticed."""
    ours, older, other = (signing.make_secret() for _ in range(3))
    text = signing.write_body({"id": "m1", "data": data})
    headers = signing.sign(text, message_id="m1", at=datetime.now(UTC), signing_secrets=[ours, older])
    for secret in (ours, older):
        assert Webhook(secret).verify(text, headers)["data"] == data
    for secret, body in ((other, text), (ours, text + " ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers)


def test_an_old_message_is_refused_by_receivers() -> None:
    """The time is signed, so that a request cannot be sent again later by somebody else."""
    secret = signing.make_secret()
    headers = signing.sign("{}", message_id="m1", at=datetime.now(UTC) - timedelta(minutes=6), signing_secrets=[secret])
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify("{}", headers)
