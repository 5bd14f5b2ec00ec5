"""Counts of bucket events, for Prometheus: by source and what became of them, and how late they came.

On the registry that is given: each process has one.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.events.bucket_event import BucketEvent, Source


class Outcome(StrEnum):
    """What became of an event. The values are stable: they name metrics."""

    RECORDED = "recorded"  # a new generation, with its jobs
    KNOWN = "known"  # Postgres had it so already
    REMOVED = "removed"  # a photo is gone
    IGNORED = "ignored"  # of no concern to us; `Ignorance` says why


class Ignorance(StrEnum):
    """Why an event that could be read is of no concern. The values are stable: they name metrics."""

    DERIVED = "derived_bucket"
    UNWATCHED = "unwatched"
    STALE = "stale"
    NOT_A_PHOTO = "not_a_photo"
    KEY_CHANGED = "key_changed"  # the storage keeps the object under another key
    BUCKET_MISSING = "bucket_missing"
    UNREADABLE = "unreadable"


class Tally:
    """The counters of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "safelight_bucket_events",
            "Bucket events, by the storage that sent them and what became of them.",
            ("source", "outcome"),
            registry=registry,
        )
        self._ignored = Counter(
            "safelight_bucket_events_ignored",
            "Bucket events and parts of messages left aside, by reason.",
            ("reason",),
            registry=registry,
        )
        self._unusable = Counter(
            "safelight_bucket_event_messages_unusable",
            "Messages in which nothing could be read, by reason.",
            ("reason",),
            registry=registry,
        )
        self._refused = Counter(
            "safelight_bucket_event_requests_refused",
            "Requests to the hook that proved no right to it, by reason.",
            ("reason",),
            registry=registry,
        )
        self._last_at = Gauge(
            "safelight_bucket_events_last_timestamp_seconds",
            "When the last event came in.",
            ("source",),
            registry=registry,
        )
        self._lag = Gauge(
            "safelight_bucket_events_lag_seconds",
            "How long after it happened the last event came in, by the source's clock.",
            ("source",),
            registry=registry,
        )
        for source in get_args(Source):
            for outcome in Outcome:
                self._events.labels(source, outcome.value)

    def came(self, event: BucketEvent, now: datetime) -> None:
        """An event came in. `now`: aware."""
        self._last_at.labels(event.source).set(now.timestamp())
        if event.occurred_at is not None:
            self._lag.labels(event.source).set(max(0.0, (now - event.occurred_at).total_seconds()))

    def settled(self, event: BucketEvent, outcome: Outcome) -> None:
        self._events.labels(event.source, outcome.value).inc()

    def ignored(self, event: BucketEvent, why: Ignorance) -> None:
        self.settled(event, Outcome.IGNORED)
        self._ignored.labels(why.value).inc()

    def left_aside(self, reason: str, times: int) -> None:
        """Parts of a message that are no event for us."""
        self._ignored.labels(reason).inc(times)

    def unusable(self, reason: str) -> None:
        self._unusable.labels(reason).inc()

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()
