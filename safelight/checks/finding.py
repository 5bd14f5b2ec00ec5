"""What a check found: a level, a sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from safelight.settings import Settings

Level = Literal["ok", "warn", "fail"]
CLOCK_WARN_SECONDS, CLOCK_FAIL_SECONDS = 2.0, 60.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`warn` works, but not as it should; with `fail` something does not work."""

    name: str
    level: Level
    found: str
    do: str | None = None


Check = Callable[[Settings], AsyncIterator[Finding]]
Probe = Callable[[], Awaitable[None]]


def ok(name: str, found: str) -> Finding:
    return Finding(name=name, level="ok", found=found)


def warn(name: str, found: str, do: str) -> Finding:
    return Finding(name=name, level="warn", found=found, do=do)


def fail(name: str, found: str, do: str) -> Finding:
    return Finding(name=name, level="fail", found=found, do=do)


def judge_clock(name: str, whose: str, ahead_seconds: float) -> Finding:
    """`ahead_seconds`: how far its clock is before this machine's; below zero: behind."""
    way = "ahead of" if ahead_seconds > 0 else "behind"
    found = f"{whose} clock is {abs(ahead_seconds):.1f} s {way} this machine's."
    do = "Let both be set by NTP. Only Postgres' clock decides what is due, but signatures bear 15 minutes at most."
    if abs(ahead_seconds) >= CLOCK_FAIL_SECONDS:
        return fail(name, found, do)
    return warn(name, found, do) if abs(ahead_seconds) >= CLOCK_WARN_SECONDS else ok(name, found)
