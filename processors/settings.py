"""What the queue and the workers must be told: times, limits, presets, and what is watched (processors.hooks)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from processors import registry
from processors.contract import Limits, Options, Preset, Processor
from processors.hooks import DEFAULT_HOOKS, Hook, find_hook
from storage.settings import setting

DEFAULT_PRESETS = (
    Preset(name="thumb", max_side_px=320, format="webp", quality=80),
    Preset(name="preview", max_side_px=1440, format="jpeg", quality=80),
)


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    redis_url: str = field(metadata=setting("Redis 6.2+ or Valkey, as redis://:password@host:port/0."))
    redis_stream: str = field(default="safelight", metadata=setting("Name of the stream that carries job ids."))
    lease_seconds: float = field(
        default=30,
        metadata=setting("A job whose worker falls silent for this long runs again.", minimum=0.5, maximum=3600),
    )
    max_attempts: int = field(
        default=8, metadata=setting("Failed runs after which a job is dead.", minimum=1, maximum=100)
    )
    max_crashes: int = field(
        default=3, metadata=setting("Decoder crashes after which a job is dead.", minimum=1, maximum=100)
    )
    max_expiries: int = field(
        default=25, metadata=setting("Lost leases after which a job is dead.", minimum=1, maximum=1000)
    )
    backoff_base_seconds: float = field(
        default=2, metadata=setting("Retry n waits a random time up to base x 2^n.", minimum=0, maximum=3600)
    )
    backoff_cap_seconds: float = field(
        default=900, metadata=setting("No retry waits longer than this.", minimum=0, maximum=86400)
    )
    snooze_seconds: float = field(
        default=2, metadata=setting("Pause of a job whose dependency is down.", minimum=0.1, maximum=600)
    )
    dispatch_interval_seconds: float = field(
        default=0.5, metadata=setting("How often due jobs and lost leases are looked for.", minimum=0.05, maximum=60)
    )
    redispatch_seconds: float = field(
        default=10,
        metadata=setting("A dispatched job not claimed for this long is sent again.", minimum=0.5, maximum=3600),
    )
    poll_seconds: float = field(
        default=2,
        metadata=setting(
            "A worker that hears nothing from Redis for this long asks Postgres.", minimum=0.1, maximum=60
        ),
    )
    worker_slots: int = field(
        default=max(1, os.cpu_count() or 1),
        metadata=setting("Jobs that one worker runs at a time, each in its own child process.", minimum=1, maximum=256),
    )
    grace_seconds: float = field(
        default=25, metadata=setting("How long a stopping worker may finish its jobs.", minimum=0, maximum=3600)
    )
    heartbeat_seconds: float = field(
        default=1, metadata=setting("How often a worker says that it is alive.", minimum=0.1, maximum=60)
    )
    child_wall_seconds: float = field(
        default=15, metadata=setting("How long one photo may take in a child.", minimum=0.5, maximum=600)
    )
    child_memory_bytes: int = field(
        default=1 << 30, metadata=setting("Memory that one child may use.", minimum=256 << 20, maximum=64 << 30)
    )
    child_photos: int = field(
        default=500, metadata=setting("Photos after which a child is replaced.", minimum=1, maximum=1_000_000)
    )
    max_photo_bytes: int = field(
        default=512 << 20,
        metadata=setting(
            "Larger photos are rejected unread, by whatever door they came: one is held in memory whole.",
            minimum=1,
            maximum=48 << 30,
        ),
    )
    head_bytes: int = field(
        default=256 << 10,
        metadata=setting("How much of a photo is read for its EXIF at first.", minimum=4096, maximum=16 << 20),
    )
    max_pixels: int = field(
        default=50_000_000, metadata=setting("Photos with more pixels are rejected.", minimum=1, maximum=1_000_000_000)
    )
    max_side_px: int = field(
        default=20_000, metadata=setting("Photos with a longer side are rejected.", minimum=1, maximum=65_500)
    )
    max_frames: int = field(
        default=10_000,
        metadata=setting(
            "Animations of more frames and TIFFs of more pages are rejected, though only the first is shown.",
            minimum=1,
            maximum=1_000_000,
        ),
    )
    presets: tuple[Preset, ...] = field(
        default=DEFAULT_PRESETS,
        metadata=setting("Previews to make, as name:max side in px:webp or jpeg:quality, separated by commas."),
    )
    hooks: tuple[Hook, ...] = field(
        default=DEFAULT_HOOKS,
        metadata=setting(
            "What is watched, as bucket/prefix:processors:presets, separated by commas, lists joined by +; the longest "
            "match decides. * is any bucket but that of previews; what is left out means all; `none` for processors "
            "watches nothing."
        ),
    )

    @property
    def alive_seconds(self) -> float:
        """A worker that was not heard of for so long is gone."""
        return max(3.0, 3 * self.heartbeat_seconds)

    @property
    def options(self) -> Options:
        limits = Limits(max_pixels=self.max_pixels, max_side_px=self.max_side_px, max_frames=self.max_frames)
        return Options(presets=self.presets, limits=limits)

    def options_for(self, bucket: str, key: str) -> Options:
        """What processors may see of the configuration there: of the presets those that its hook names. Where nobody
        watches all of them: what is processed there was asked for."""
        hook = find_hook(self.hooks, bucket, key)
        if hook is None or hook.presets is None:
            return self.options
        return replace(self.options, presets=tuple(item for item in self.presets if item.name in hook.presets))

    def processors_for(self, bucket: str, key: str, *, asked_for: bool = False) -> tuple[Processor, ...]:
        """The processors that watch there, in the registry's order; none where nobody watches. `asked_for`: somebody
        named this very photo, so that where nobody watches, all of them process it."""
        hook = find_hook(self.hooks, bucket, key)
        names = hook.processors if hook else ()
        if names is None or (asked_for and not names):
            return registry.available()
        return tuple(item for item in registry.available() if item.name in names)

    def previews_for(self, bucket: str, key: str) -> tuple[Preset, ...]:
        """The previews that a photo there gets."""
        names = [item.name for item in self.processors_for(bucket, key, asked_for=True)]
        return self.options_for(bucket, key).presets if registry.PREVIEW.name in names else ()
