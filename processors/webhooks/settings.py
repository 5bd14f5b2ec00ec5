"""What the sending of webhooks must be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from processors.webhooks.targets import Networks, parse_networks
from storage.settings import setting


@dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    webhook_allow: str = field(
        default="",
        metadata=setting(
            "Networks within which webhooks may also reach private, loopback and link-local addresses, and http "
            "besides https: as 10.0.0.0/8, 127.0.0.1, separated by commas. Unset: only public addresses, by https."
        ),
    )
    webhook_slots: int = field(
        default=64,
        metadata=setting("Deliveries that one worker has under way; 0: it sends none.", minimum=0, maximum=10_000),
    )
    webhook_concurrency: int = field(
        default=4, metadata=setting("Deliveries under way to one webhook.", minimum=1, maximum=1000)
    )
    webhook_timeout_seconds: float = field(
        default=15, metadata=setting("How long an attempt may take in all.", minimum=0.1, maximum=300)
    )
    webhook_attempts: int = field(
        default=16, metadata=setting("Failed attempts after which a delivery is dead.", minimum=1, maximum=100)
    )
    webhook_backoff_base_seconds: float = field(
        default=5, metadata=setting("Attempt n + 1 waits a random time up to base x 2^n.", minimum=0, maximum=3600)
    )
    webhook_backoff_cap_seconds: float = field(
        default=6 * 3600, metadata=setting("No attempt waits longer than this.", minimum=0, maximum=7 * 86400)
    )
    webhook_log_hours: float = field(
        default=168, metadata=setting("How long finished deliveries are kept.", minimum=1, maximum=24 * 366)
    )
    max_webhooks: int = field(default=100, metadata=setting("Webhooks that there may be.", minimum=0, maximum=10_000))

    @property
    def allowed_networks(self) -> Networks:
        return parse_networks(self.webhook_allow)
