"""Any body gets a Reading: chosen by what it says it is, opened once, bounded, and never an exception."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.bucket_event import BucketEvent, Reason
from gateway.events.reading import Limit, Reading, Unusable, read_events
from tests.unit.events.shapes import KEYS, SHAPES, TOPIC, confirmation, dump, envelope, record, records

TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-24T02:51:49Z", "Bucket": "photos"}
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["aws:s3", "aws.s3", "Notification", "s3:TestEvent", "2.1", "%FF", "\ud800"]
)
# The names that choose a way through the reader; others only lie beside it.
NAMES = st.one_of(
    st.sampled_from(["Type", "Message", "TopicArn", "MessageId", "Timestamp", "Event", "Records", "eventSource"]),
    st.sampled_from(["eventName", "s3", "object", "bucket", "name", "key", "size", "metadata", "userMetadata"]),
    st.sampled_from(["source", "detail-type", "detail", "event_type", "message", "new_entry", "old_entry"]),
    st.sampled_from(["attributes", "extended", "md5", "is_directory"]),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXTS, inner, max_size=6),
    max_leaves=30,
)


def check(reading: Reading) -> None:
    """What holds of every reading."""
    assert reading.unusable is None or not (reading.events or reading.ignored or reading.handshake)
    for event in reading.events:
        assert 1 <= len(event.key.encode()) <= 1024
        assert "\0" not in event.key + event.bucket


def test_bodies_that_are_no_json() -> None:
    """Each way of being unreadable has its code."""
    codes = {
        b"": Unusable.NOT_JSON,
        b"hello": Unusable.NOT_JSON,
        b"[NaN]": Unusable.NOT_JSON,
        b'{"Records": [1' + b"0" * 5000 + b"]}": Unusable.NOT_JSON,
        b"\xef\xbb\xbf{}": Unusable.NOT_JSON,
        b'{"Records": ["\xff"]}': Unusable.NOT_UTF8,
        b'{"Records": ["\xed\xa0\x80"]}': Unusable.NOT_UTF8,
        '{"Records": []}'.encode("utf-16"): Unusable.NOT_UTF8,
        b"[" * 500_000: Unusable.TOO_DEEP,
        b'{"Records":' * 90_000: Unusable.TOO_DEEP,
    }
    assert {body: read_events(body).unusable for body in codes} == codes


@pytest.mark.parametrize(
    "document", [None, 7, "text", [], {}, [{}], [{"Event": 1}], {"Records": {}}, {"Type": "Other"}]
)
def test_unknown_shapes(document: Any) -> None:
    """JSON that no source sends is told apart from what is broken."""
    assert read_events(dump(document)) == Reading(unusable=Unusable.UNKNOWN_SHAPE)


def test_the_bound_of_a_body() -> None:
    """A body of exactly the bound is read, one byte more is not."""
    body = records(record("aws", "a"))
    padded = body + b" " * ((1 << 20) - len(body))
    assert len(read_events(padded).events) == 1
    assert read_events(padded + b" ") == Reading(unusable=Unusable.LARGE_BODY)
    assert read_events(body, limit=Limit(body_bytes=len(body) - 1)).unusable == Unusable.LARGE_BODY


@pytest.mark.parametrize(
    "wrap", [lambda items: {"Records": items}, lambda items: [{"Event": [item]} for item in items]]
)
def test_the_bound_of_records(wrap: Any) -> None:
    """1,000 records are read, 1,001 are not; a list of Redis is counted by what lies in it."""
    items = [record("minio", "a")] * 1_001
    assert len(read_events(dump(wrap(items[:1_000])), limit=Limit(body_bytes=1 << 21)).events) == 1_000
    assert read_events(dump(wrap(items)), limit=Limit(body_bytes=1 << 21)).unusable == Unusable.TOO_MANY_RECORDS
    assert read_events(dump(wrap(items[:3])), limit=Limit(records=2)).unusable == Unusable.TOO_MANY_RECORDS


def test_an_empty_message() -> None:
    """No records is a message like any other, with nothing in it."""
    assert read_events(b'{"Records": []}') == Reading()


def test_mixed_messages() -> None:
    """Each record is read by its own source's rule, and events keep their order."""
    body = records(record("ceph", "a+b"), record("aws", "a+b"), record("ceph", "a%2Bb"), record("minio", "a%2Bb"))
    events = read_events(body).events
    assert [(event.source, event.key) for event in events] == [
        ("ceph", "a+b"),
        ("aws", "a b"),
        ("ceph", "a%2Bb"),
        ("minio", "a+b"),
    ]


def test_lists_of_redis_with_strangers() -> None:
    """What is no entry in a list of MinIO's is counted, and the entries beside it are read."""
    reading = read_events(dump([{"Event": [record("minio", "a"), 7]}, {"Event": 7}, None]))
    assert ([event.key for event in reading.events], reading.ignored) == (
        ["a"],
        {Reason.MALFORMED: 2, Reason.UNKNOWN_SOURCE: 1},
    )


def test_test_events() -> None:
    """What S3 sends when notifications are switched on is a test, bare or in an envelope."""
    assert read_events(dump(TEST_EVENT)) == Reading(handshake="test")
    wrapped = read_events(dump(envelope(json.dumps(TEST_EVENT))))
    assert (wrapped.handshake, wrapped.unusable) == ("test", None)
    assert wrapped.envelope is not None


@pytest.mark.parametrize(
    ("kind", "handshake"), [("SubscriptionConfirmation", "subscribe"), ("UnsubscribeConfirmation", "unsubscribe")]
)
def test_confirmations(kind: Literal["SubscriptionConfirmation", "UnsubscribeConfirmation"], handshake: str) -> None:
    """A confirmation is a handshake with what is needed to verify and answer it."""
    reading = read_events(dump(confirmation(kind)))
    assert (reading.handshake, reading.events, reading.unusable) == (handshake, (), None)
    assert reading.envelope is not None
    assert (reading.envelope.topic_arn, reading.envelope.token) == (TOPIC, "2336412f37")
    assert reading.envelope.subscribe_url.startswith("https://sns.eu-central-1.amazonaws.com/?Action=Confirm")


@pytest.mark.parametrize("name", ["minio webhook", "ceph push", "aws sqs", "eventbridge"])
def test_raw_and_wrapped(name: str) -> None:
    """The same message reads the same, raw or in an envelope, whatever is in it."""
    body = SHAPES[name].body(KEYS["unicode"], "created")
    raw, wrapped = read_events(body), read_events(dump(envelope(body.decode())))
    assert raw.events == wrapped.events != ()
    assert raw.envelope is None
    assert wrapped.envelope is not None
    assert wrapped.envelope.message.encode() == body


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("hello", Unusable.NOT_JSON),
        ("", Unusable.NOT_JSON),
        ("{}", Unusable.UNKNOWN_SHAPE),
        ("[" * 100_000, Unusable.TOO_DEEP),
        (json.dumps(envelope(records(record("aws", "a")).decode())), Unusable.NESTED_ENVELOPE),
        (json.dumps(confirmation("SubscriptionConfirmation")), Unusable.NESTED_ENVELOPE),
    ],
)
def test_unusable_messages_in_envelopes(message: str, code: Unusable) -> None:
    """An envelope is opened once: a handshake or a second envelope inside is not acted on. The outer one is kept, so
    that it can still be verified."""
    reading = read_events(dump(envelope(message)))
    assert (reading.unusable, reading.events, reading.handshake) == (code, (), None)
    assert reading.envelope is not None


@pytest.mark.parametrize("value", [None, 7, ["x"], "a\0b"])
@pytest.mark.parametrize("name", ["Message", "MessageId", "TopicArn", "Timestamp", "Token", "SubscribeURL"])
def test_malformed_envelopes(name: str, value: Any) -> None:
    """An envelope without what every envelope has is of no use."""
    document = confirmation("SubscriptionConfirmation") | {name: value}
    assert read_events(dump(document)) == Reading(unusable=Unusable.MALFORMED_ENVELOPE)


def test_envelopes_with_lone_surrogates() -> None:
    """A lone surrogate in an envelope cannot be signed or kept: the envelope is malformed."""
    body = dump(envelope("{}", Subject="SURROGATE")).replace(b"SURROGATE", rb"\udfff")
    assert read_events(body) == Reading(unusable=Unusable.MALFORMED_ENVELOPE)


@given(body=st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """No bytes make the reader raise."""
    check(read_events(body))


@given(document=ANY_JSON)
def test_any_json(document: Any) -> None:
    """No JSON makes the reader raise, bare or in an envelope."""
    text = json.dumps(document)
    check(read_events(text.encode()))
    check(read_events(dump(envelope(text))))


@given(name=st.sampled_from(sorted(SHAPES)), data=st.data())
def test_any_damage(name: str, data: st.DataObject) -> None:
    """A real message with any one of its values replaced by any JSON does not make the reader raise."""
    document = json.loads(SHAPES[name].body("a", "created"))
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key]) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(ANY_JSON)
    check(read_events(json.dumps(document).encode()))


def test_events_are_values() -> None:
    """Two readings of one message are equal, and an event cannot be changed."""
    body = records(record("ceph", "a"))
    (event,) = read_events(body).events
    assert (event,) == read_events(body).events
    with pytest.raises(AttributeError):
        event.key = "b"  # type: ignore[misc]
    assert isinstance(event, BucketEvent)
