"""What monitoring is told of events on their way out: streams, events without a place, webhooks and their deliveries.

Attempts are counted by the workers that make them (processors.webhooks.metrics).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.follower import Follower
from storage import deliveries, events
from storage.database import Connection


class EventNumbers(Collector):
    """Of one gateway. `follow` asks Postgres; what it was not told is left out."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._counted: dict[str, Any] | None = None
        self._wait_seconds = 0.0

    async def follow(self, conn: Connection) -> None:
        self._wait_seconds = await events.measure_wait(conn)
        self._counted = await deliveries.measure(conn)

    def forget(self) -> None:
        """Postgres is away: what it told is no longer true."""
        self._counted = None

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "safelight_event_streams", "Event streams that this gateway holds open.", self._follower.streams
        )
        counted = self._counted
        if counted is None:
            return
        yield GaugeMetricFamily(
            "safelight_event_place_wait_seconds",
            "How long the oldest event has waited to be heard of by anybody; 0: none waits.",
            self._wait_seconds,
        )
        yield _by_state("safelight_webhooks", "Webhooks.", counted, ("enabled", "failing", "disabled"))
        yield _by_state(
            "safelight_webhook_deliveries",
            "Deliveries that are not finished, or were given up.",
            counted,
            ("ready", "running", "dead"),
        )
        yield GaugeMetricFamily(
            "safelight_webhook_oldest_due_seconds",
            "How long the oldest due delivery has waited; 0: none is due.",
            counted["oldest_due_seconds"],
        )


def _by_state(name: str, text: str, counted: dict[str, Any], states: Iterable[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("state",))
    for state in states:
        family.add_metric((state,), counted[state])
    return family
