"""How often one address may fail to sign in: a few times at once, then once in a while. Counted in this process.

A secret of 240 bits is not guessed; this keeps those who try from costing anybody else anything.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable

from gateway.errors import Problem

BURST = 10
EACH_SECONDS = 6.0
_ADDRESSES = 10_000


class Attempts:
    """The failures of late, by address. An IPv6 address stands for its /64: a client has all of those."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._due: dict[str, float] = {}  # network -> when its failures are forgotten, by `now`

    def check(self, address: str | None) -> None:
        """Raises Problem too_many_sign_ins, with Retry-After."""
        wait_seconds = self._due.get(_network(address), 0.0) - (BURST - 1) * EACH_SECONDS - self._now()
        if wait_seconds > 0:
            raise Problem(
                "too_many_sign_ins",
                "Too many failed from this address. Try again after Retry-After.",
                headers={"Retry-After": str(math.ceil(wait_seconds))},
            )

    def fail(self, address: str | None) -> None:
        """Count one failure."""
        network, now = _network(address), self._now()
        if len(self._due) >= _ADDRESSES:
            self._due = {known: due for known, due in self._due.items() if due > now}
        if len(self._due) >= _ADDRESSES:
            self._due.clear()
        self._due[network] = max(self._due.get(network, now), now) + EACH_SECONDS


def _network(address: str | None) -> str:
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
