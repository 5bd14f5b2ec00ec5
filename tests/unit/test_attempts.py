"""Failed sign-ins are bounded by address, and by no other's failures."""

from __future__ import annotations

import pytest

from gateway.attempts import BURST, EACH_SECONDS, Attempts
from gateway.errors import Problem


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail_until_refused(attempts: Attempts, address: str | None) -> int:
    """How many failures this address has left."""
    for count in range(BURST * 2):
        try:
            attempts.check(address)
        except Problem:
            return count
        attempts.fail(address)
    return BURST * 2


def test_an_address_fails_a_few_times_then_once_in_a_while() -> None:
    """After a burst an address is refused, told for how long, and has one more try after that."""
    clock = Clock()
    attempts = Attempts(clock)
    assert fail_until_refused(attempts, "10.0.0.1") == BURST
    with pytest.raises(Problem) as refused:
        attempts.check("10.0.0.1")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": str(int(EACH_SECONDS))})
    clock.now += EACH_SECONDS
    assert fail_until_refused(attempts, "10.0.0.1") == 1
    clock.now += EACH_SECONDS * BURST * 2
    assert fail_until_refused(attempts, "10.0.0.1") == BURST


def test_others_are_not_held_up() -> None:
    """Other addresses keep their tries; an IPv6 client does not get new ones by changing its last 64 bits."""
    attempts = Attempts(Clock())
    fail_until_refused(attempts, "10.0.0.1")
    assert fail_until_refused(attempts, "10.0.0.2") == BURST
    assert fail_until_refused(attempts, "2001:db8::1") == BURST
    assert fail_until_refused(attempts, "2001:db8::ffff:2") == 0
    assert fail_until_refused(attempts, "2001:db8:0:1::1") == BURST
    assert fail_until_refused(attempts, None) == BURST


def test_a_flood_of_addresses_is_not_kept() -> None:
    """Ten thousand failing addresses make room for others, and are forgotten when their time is over."""
    clock = Clock()
    attempts = Attempts(clock)
    for number in range(25_000):
        attempts.fail(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts._due) <= 10_000
