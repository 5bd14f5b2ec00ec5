"""Where webhooks may go: public addresses by https, and what a list of networks opens."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.webhooks.targets import (
    TargetRefused,
    check_address,
    check_url,
    is_public,
    parse_networks,
    pick_open,
    unwrap,
)

CLOSED = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "172.16.0.1",
    "192.0.0.1",
    "192.168.1.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:168.63.129.16",
    "::ffff:0:8.8.8.8",
    "::ffff:0:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
OPEN = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("text", CLOSED)
def test_what_is_not_public_is_closed(text: str) -> None:
    """This machine, its neighbours, groups, and whatever carries such an address within another."""
    with pytest.raises(TargetRefused):
        check_address(ipaddress.ip_address(text), (), by_http=False)


@pytest.mark.parametrize("text", OPEN)
def test_what_is_public_is_open_by_https_alone(text: str) -> None:
    """Anybody's address by https; none by http."""
    address = ipaddress.ip_address(text)
    check_address(address, (), by_http=False)
    with pytest.raises(TargetRefused):
        check_address(address, parse_networks("10.0.0.0/8"), by_http=True)


@given(st.ip_addresses(v=4))
def test_carrying_an_address_within_another_changes_nothing(address: ipaddress.IPv4Address) -> None:
    """An IPv4 address is as open alone as it is mapped into IPv6 or translated."""
    for prefix in ("::ffff:", "64:ff9b::"):
        assert unwrap(ipaddress.ip_address(f"{prefix}{address}")) == address
    assert is_public(address) == (address.is_global and not address.is_multicast and str(address)[:10] != "192.88.99.")


@pytest.mark.parametrize(
    ("allowed", "text", "opens"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "::ffff:10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("fd00::/8, 10.0.0.0/8", "fd00::1", True),
        ("fd00::/8", "::1", False),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_a_list_of_networks_opens_what_it_names(allowed: str, text: str, opens: bool) -> None:
    """And that by http too; nothing beside it."""
    try:
        check_address(ipaddress.ip_address(text), parse_networks(allowed), by_http=True)
    except TargetRefused:
        assert not opens
    else:
        assert opens


def test_of_a_names_addresses_the_open_ones_are_left() -> None:
    """Closed ones are passed over; where none is open it is refused, as where there is none."""
    public, private = ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("10.0.0.1")
    assert pick_open([private, public], (), by_http=False) == [public]
    for addresses in ([private], []):
        with pytest.raises(TargetRefused):
            pick_open(addresses, (), by_http=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https:///path",
        "https://example.org:99999/",
        "https://[::1",
        "https://example.org\\@127.0.0.1/",
        "https://example.org/\n",
        "https://" + "a" * 2048,
        "http://example.org/",
        "https://127.0.0.1/",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    """With a sentence that says why."""
    with pytest.raises(TargetRefused, match=r"\.$"):
        check_url(url, ())


@pytest.mark.parametrize("url", ["https://example.org", "https://example.org:8443/a?b=c", "https://8.8.8.8/%20"])
def test_an_ordinary_url_is_taken(url: str) -> None:
    """With a port, a path, a query, or a public address for a name."""
    check_url(url, ())


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "example.org", "::1/8"])
def test_what_is_no_network_is_told(text: str) -> None:
    """With how one is written."""
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8"):
        parse_networks(text)
