"""Where webhooks may go. Pure: reads addresses, resolves nothing.

Public addresses by https, and nothing else, unless a list of networks opens more. A name is judged by the addresses
that it resolves to, at every delivery; here is said which of them are open.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

MAX_URL_CHARS = 2048
# Not private by the registries, and yet not somebody's own address: relays of 6to4, IPv4 within IPv6, and where Azure
# answers each of its virtual machines.
_REFUSED: Networks = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.88.99.0/24", "168.63.129.16/32", "2002::/16", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96", "fec0::/10",
    )
)  # fmt: skip
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class TargetRefused(Exception):
    """Webhooks may not go there. The message says why, and what would open it."""


def parse_networks(text: str) -> Networks:
    """Networks of a comma-separated list; an address is a network of its own. Raises ValueError."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"a network is written as 10.0.0.0/8 or fd00::/8 ({error})") from None


def check_url(url: str, allowed: Networks) -> None:
    """What can be told of a URL before its name is resolved. Raises TargetRefused."""
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise TargetRefused(
            f"It must be plain ASCII without spaces, {MAX_URL_CHARS} characters at most; write names of other "
            "alphabets in punycode and the rest percent-encoded."
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise TargetRefused("It is no URL: its host or its port cannot be read.") from None
    if parts.scheme not in ("https", "http") or not host or port == 0 or "\\" in url:
        raise TargetRefused("It must be a URL as https://example.org/hook.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise TargetRefused("It may hold neither a user, nor a password, nor a fragment; requests are signed instead.")
    if parts.scheme == "http" and not allowed:
        raise TargetRefused("It must begin with https://; http is open only within SAFELIGHT_WEBHOOK_ALLOW.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    check_address(address, allowed, by_http=parts.scheme == "http")


def check_address(address: Address, allowed: Networks, *, by_http: bool) -> None:
    """Whether a delivery may go to this very address. Raises TargetRefused."""
    meant = unwrap(address)
    if any(meant.version == network.version and meant in network for network in allowed):
        return
    if by_http:
        raise TargetRefused("Plain http is open only within SAFELIGHT_WEBHOOK_ALLOW.")
    if not is_public(meant):
        raise TargetRefused("It leads to an address that is not public, and not within SAFELIGHT_WEBHOOK_ALLOW.")


def pick_open(addresses: Sequence[Address], allowed: Networks, *, by_http: bool) -> list[Address]:
    """Those of a name's addresses that are open. Raises TargetRefused where none is."""
    found, refusal = [], TargetRefused("Its name has no address.")
    for address in addresses:
        try:
            check_address(address, allowed, by_http=by_http)
        except TargetRefused as error:
            refusal = error
        else:
            found.append(address)
    if not found:
        raise refusal
    return found


def is_public(address: Address) -> bool:
    """Whether anybody's network leads there, and not to this machine, its neighbours or a group."""
    if address.is_multicast or not address.is_global:
        return False
    return not any(address.version == network.version and address in network for network in _REFUSED)


def unwrap(address: Address) -> Address:
    """The address that is meant by one that carries another: IPv4 within IPv6, as ::ffff:10.0.0.1 or 64:ff9b::a00:1."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
