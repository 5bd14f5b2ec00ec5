"""What this gateway does again and again, and when it last came to the end of a turn.

Kept in memory: it says what this process does, and begins anew with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

HOUSEKEEPING_SECONDS = 10.0


@dataclass(kw_only=True)
class Turns:
    """The ends of the last turns; None: none yet."""

    housekeeping_at: datetime | None = None
    reconcile_at: datetime | None = None

    def end_housekeeping(self) -> None:
        self.housekeeping_at = datetime.now(UTC)

    def end_reconcile(self) -> None:
        self.reconcile_at = datetime.now(UTC)


def describe(name: str, last_at: datetime | None, every_seconds: float) -> dict[str, Any]:
    """A turn as GET /v1/stats tells it. `every_seconds` 0: it is switched off."""
    runs = every_seconds > 0
    next_at = last_at + timedelta(seconds=every_seconds) if runs and last_at else None
    return {"name": name, "every_seconds": every_seconds if runs else None, "last_at": last_at, "next_at": next_at}
