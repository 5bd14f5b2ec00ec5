"""What one process of the S3 door tells monitoring: requests by operation and status, how long they took, bytes.

Operations are those of the table in gateway.s3.operations, so strangers cannot make new ones.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from aiohttp import web
from prometheus_client import Counter, Gauge, Histogram

from gateway.door.backend import Backend
from gateway.door.visit import Visit
from processors.vitals import Vitals, make_registry, register_process
from storage.database import Database

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
REFUSED: Final = "none"  # what was refused before its operation was known


class DoorMetrics:
    def __init__(self) -> None:
        self.registry = make_registry()
        self._requests = Counter(
            "safelight_door_requests",
            "Requests at the S3 door that were answered.",
            ("operation", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "safelight_door_request_seconds",
            "How long they took, bodies included.",
            ("operation",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        # Looking these up by their labels each time takes as long as counting.
        self._requests_of = cache(self._requests.labels)
        self._seconds_of = cache(self._seconds.labels)
        counted = "Bytes of bodies that came in, and of the storage's answers that went out."
        bytes_ = Counter("safelight_door_bytes", counted, ("direction",), registry=self.registry)
        self._received, self._sent = bytes_.labels("in"), bytes_.labels("out")
        self.in_flight = Gauge("safelight_door_requests_in_flight", "Requests under way.", registry=self.registry)
        limit = "Requests under way that this process takes at most."
        self._limit = Gauge("safelight_door_requests_limit", limit, registry=self.registry)

    def attend(self, database: Database, backend: Backend, *, limit: int) -> None:
        """Take the clients of a door that starts; once."""
        self._limit.set(limit)
        self.registry.register(Vitals("door", database, {"postgres": database, "s3": backend}))
        register_process(self.registry)

    def count(
        self, request: web.BaseRequest, visit: Visit | None, response: web.StreamResponse, seconds: float
    ) -> None:
        """Count a request that was answered, or is about to be with an error."""
        operation = visit.asked.operation.name if visit is not None else REFUSED
        self._requests_of(operation, response.status).inc()
        self._seconds_of(operation).observe(seconds)
        self._received.inc(getattr(request.content, "total_bytes", 0))
        self._sent.inc(response.body_length if response.prepared else 0)
