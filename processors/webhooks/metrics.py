"""Counters of the deliveries of one worker, on the registry of who serves them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

OUTCOMES = ("delivered", "failed", "dead", "snoozed", "released", "fenced")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)


class WebhookMetrics:
    """The numbers of one worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "safelight_webhook_attempts",
            "Attempts to deliver an event to a webhook, by how they ended.",
            ("outcome",),
            registry=registry,
        )
        for outcome in OUTCOMES:
            self._attempts.labels(outcome)
        self._seconds = Histogram(
            "safelight_webhook_attempt_seconds",
            "How long an attempt took, its connection included.",
            buckets=_SECONDS,
            registry=registry,
        )

    def count(self, outcome: str) -> None:
        self._attempts.labels(outcome).inc()

    def observe(self, seconds: float) -> None:
        self._seconds.observe(seconds)
