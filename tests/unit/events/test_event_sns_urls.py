"""Which URLs of an SNS envelope may be fetched: AWS's own, and nothing that only looks like them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.envelopes import Envelope
from gateway.events.reading import read_events
from gateway.events.sns import Refusal, Rules, check_envelope, is_certificate_url, is_subscribe_url
from tests.unit.events.shapes import TOPIC, confirmation, dump, envelope

NOW = datetime(2026, 11, 24, 2, 55, tzinfo=UTC)
RULES = Rules(topic_arns=frozenset({TOPIC}))
TEST_ORIGIN = "http://127.0.0.1:4566"
TEST_RULES = Rules(topic_arns=frozenset({TOPIC}), extra_origins=frozenset({TEST_ORIGIN}))
ORIGIN = "https://sns.eu-central-1.amazonaws.com"


def opened(document: dict[str, Any]) -> Envelope:
    found = read_events(dump(document)).envelope
    assert found is not None
    return found


@pytest.mark.parametrize(
    "url",
    [
        f"{ORIGIN}/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem",
        "https://sns.us-gov-west-1.amazonaws.com/a.pem",
        "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1.pem",
        f"{ORIGIN}/certs/a_b.pem",
    ],
)
def test_certificate_urls(url: str) -> None:
    """AWS's own places are allowed, in every partition, for topics of their own region and no other."""
    assert is_certificate_url(url, RULES)
    region = url.split(".")[1]
    topic = f"arn:aws:sns:{region}:123456789012:photos"
    told = opened(envelope("{}", SigningCertURL=url, TopicArn=topic))
    assert check_envelope(told, rules=Rules(topic_arns=frozenset({topic})), now=NOW) is None
    elsewhere = topic.replace(region, "us-west-2")
    told = opened(envelope("{}", SigningCertURL=url, TopicArn=elsewhere))
    refusal = check_envelope(told, rules=Rules(topic_arns=frozenset({elsewhere})), now=NOW)
    assert refusal is Refusal.CERTIFICATE_URL


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com.example.org/a.pem",
        "https://sns.eu-central-1.amazonaws.com@example.org/a.pem",
        "https://user@sns.eu-central-1.amazonaws.com/a.pem",
        "https://example.org/sns.eu-central-1.amazonaws.com/a.pem",
        "https://example.org#sns.eu-central-1.amazonaws.com/a.pem",
        "https://example.org\\.sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com\\@example.org/a.pem",
        "https://snsxeu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1xamazonaws.com/a.pem",
        "https://sns.s3.amazonaws.com/a.pem",  # buckets of the name sns
        "https://sns.s3-us-west-2.amazonaws.com/a.pem",
        "https://sns.bucket.amazonaws.com/a.pem",
        "https://sns.s3.cn-north-1.amazonaws.com.cn/a.pem",
        "https://s3.eu-central-1.amazonaws.com/sns/a.pem",
        "https://bucket.sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/a.pem",
        "https://SNS.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com./a.pem",
        f"{ORIGIN}/a.pem?x=1",
        f"{ORIGIN}/?x=/a.pem",
        f"{ORIGIN}/a.pem#b.pem",
        f"{ORIGIN}/a.pem\n",
        f"{ORIGIN}/../a.pem",
        f"{ORIGIN}/%2e%2e/a.pem",
        f"{ORIGIN}//a.pem",
        f"{ORIGIN}/a.PEM",
        f"{ORIGIN}/.pem",
        f"{ORIGIN}a.pem",
        f" {ORIGIN}/a.pem",
        f"{TEST_ORIGIN}/a.pem",
        "file:///etc/a.pem",
        "https://169.254.169.254/a.pem",
        "https://sns.éu-central-1.amazonaws.com/a.pem",
    ],
)
def test_forged_certificate_urls(url: str) -> None:
    """Nothing is fetched from a place that only looks like AWS's."""
    assert not is_certificate_url(url, RULES)
    forged = envelope("{}", SigningCertURL=url)
    assert check_envelope(opened(forged), rules=RULES, now=NOW) == Refusal.CERTIFICATE_URL


def test_extra_origins() -> None:
    """A configured origin is allowed exactly as it is written, for a certificate and for a confirmation."""
    confirm = f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2"
    for url in ("/a.pem", "/a.txt"):
        assert is_certificate_url(TEST_ORIGIN + url, TEST_RULES) is url.endswith(".pem")
    assert is_subscribe_url(TEST_ORIGIN + confirm, TOPIC, TEST_RULES)
    assert not is_subscribe_url(TEST_ORIGIN + confirm, TOPIC, RULES)
    for origin in ("https://127.0.0.1:4566", "http://127.0.0.1:45660", "http://127.0.0.1", "http://x@127.0.0.1:4566"):
        assert not is_certificate_url(f"{origin}/a.pem", TEST_RULES)


@pytest.mark.parametrize(
    "url",
    [
        f"{ORIGIN}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2",
        f"{ORIGIN}/?Action=ConfirmSubscription&TopicArn={TOPIC.replace(':', '%3A')}&Token=2",
        f"https://sns.cn-north-1.amazonaws.com.cn/?Token=2&TopicArn={TOPIC}&Action=ConfirmSubscription",
    ],
)
def test_subscribe_urls(url: str) -> None:
    """A confirmation of the topic at AWS may be fetched."""
    assert is_subscribe_url(url, TOPIC, RULES)


@pytest.mark.parametrize(
    "url",
    [
        f"https://example.org/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"http://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"{ORIGIN}/?Action=Unsubscribe&TopicArn={TOPIC}",
        f"{ORIGIN}/?Action=ConfirmSubscription&TopicArn={TOPIC}2",
        f"{ORIGIN}/?Action=ConfirmSubscription&Action=DeleteTopic&TopicArn={TOPIC}",
        f"{ORIGIN}/?Action=DeleteTopic&Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"{ORIGIN}/?Token=2#&Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"{ORIGIN}/?Action=DeleteTopic&TopicArn={TOPIC}#&Action=ConfirmSubscription",
        f"{ORIGIN}/x?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"{ORIGIN}/?Action=ConfirmSubscription&TopicArn={TOPIC}" + "".join(f"&a{n}=1" for n in range(20)),
        f"{ORIGIN}/?Action=ConfirmSubscription",
        f"{ORIGIN}/",
        ORIGIN,
        "http://127.0.0.1:5432/",
    ],
)
def test_forged_subscribe_urls(url: str) -> None:
    """Nothing is fetched but the confirmation of that very topic: the gateway cannot be made to call others."""
    assert not is_subscribe_url(url, TOPIC, RULES)
    forged = confirmation("SubscriptionConfirmation") | {"SubscribeURL": url}
    assert check_envelope(opened(forged), rules=RULES, now=NOW) == Refusal.SUBSCRIBE_URL


@given(url=st.text(max_size=60) | st.from_regex(r"https://sns\.[a-z0-9.-]{1,20}/[a-z?&=%#.]{1,20}", fullmatch=True))
def test_any_urls(url: str) -> None:
    """No URL makes the rules raise, and none is allowed that Python's own parser would take to another host."""
    if is_certificate_url(url, RULES) or is_subscribe_url(url, TOPIC, RULES):
        host = urlsplit(url).hostname or ""
        assert host.removesuffix(".cn").endswith(".amazonaws.com")
