"""What becomes of a delivery after an attempt. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from processors.webhooks.settings import WebhookSettings
from storage.deliveries import Result

_GONE = 410


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """It was taken."""


@dataclass(frozen=True, kw_only=True)
class Again:
    """Another attempt, after a while."""

    after_seconds: float


@dataclass(frozen=True, kw_only=True)
class Dead:
    """No further attempt, until somebody asks for it. `gone`: nor for anything else that goes there."""

    gone: bool


Verdict = Delivered | Again | Dead


def decide(
    result: Result,
    *,
    attempt: int,
    retry_after_seconds: float | None,
    settings: WebhookSettings,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Verdict:
    """The verdict on attempt `attempt` (from 1). Backoff is exponential with full jitter, uniform between 0 and
    min(cap, base x 2^n) after the n-th failure, and never shorter than what the receiver asked for (up to the cap)."""
    if result.error_code is None:
        return Delivered()
    if result.status_code == _GONE:
        return Dead(gone=True)
    if attempt >= settings.webhook_attempts:
        return Dead(gone=False)
    cap = settings.webhook_backoff_cap_seconds
    seconds = uniform(0, min(cap, settings.webhook_backoff_base_seconds * 2 ** min(attempt, 62)))
    return Again(after_seconds=max(seconds, min(retry_after_seconds or 0, cap)))
