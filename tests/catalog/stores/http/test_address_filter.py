"""Which addresses the filter takes for public, and what the settings may permit."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from catalog.errors import Forbidden, StoreUnavailable
from catalog.stores.http.address_filter import AddressFilter, AllowedHost, is_public


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # unspecified: Linux connects to itself
        "10.1.2.3",
        "100.64.0.1",  # shared by a provider's customers
        "100.100.100.200",  # Alibaba Cloud's metadata
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",  # Azure's
        "169.254.169.254",  # most clouds' metadata
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",  # Oracle Cloud's
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::127.0.0.1",  # through NAT64
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "100::1",
        "2001:db8::1",
        "2001::1",  # Teredo
        "2002:7f00:1::",  # 127.0.0.1 by 6to4
        "2002:a00:1::",
        "fc00::1",
        "fd00:ec2::254",  # Amazon's metadata
        "fe80::1",
        "fe80::1%lo",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_not_public(address: str) -> None:
    """Every kind of address that is not a public server's is refused."""
    assert not is_public(ip_address(address))
    with pytest.raises(Forbidden, match="not a public one"):
        AddressFilter(look_up=lambda _host, _port: ["8.8.8.8", address]).addresses("name", 80)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "172.32.0.1",
        "192.0.1.1",
        "223.255.255.254",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ],
)
def test_public(address: str) -> None:
    """A public server's address is permitted, in each of its forms."""
    assert AddressFilter(look_up=lambda _host, _port: [address]).addresses("name", 80) == [address]


@pytest.mark.parametrize(
    ("allowed", "host", "port", "address"),
    [
        ("Mirror.Example", "mirror.example", 80, "10.0.0.1"),
        ("mirror.example", "MIRROR.example.", 443, "10.0.0.1"),
        ("mirror.example:8080", "mirror.example", 8080, "10.0.0.1"),
        ("mirror", "mirror", 80, "::1"),
        ("10.0.0.0/8", "any.example", 80, "10.255.0.1"),
        ("10.0.0.1", "any.example", 80, "10.0.0.1"),
        ("10.0.0.1:8080", "any.example", 8080, "10.0.0.1"),
        ("fd00::/8", "any.example", 80, "fd00::1"),
        ("::1", "any.example", 80, "::1"),
        ("[::1]:8080", "any.example", 8080, "::1"),
    ],
)
def test_allowed_host_is_permitted(allowed: str, host: str, port: int, address: str) -> None:
    """A name, an address or a network of the settings is permitted in spite of the filter."""
    found = AddressFilter([allowed], lambda _host, _port: [address]).addresses(host, port)
    assert found == [address]


@pytest.mark.parametrize(
    ("allowed", "host", "port", "address"),
    [
        ("mirror.example", "xmirror.example", 80, "10.0.0.1"),
        ("mirror.example", "sub.mirror.example", 80, "10.0.0.1"),
        ("mirror.example", "10.0.0.1", 80, "10.0.0.1"),
        ("mirror.example:8080", "mirror.example", 80, "10.0.0.1"),
        ("10.0.0.0/8", "any.example", 80, "192.168.0.1"),
        ("10.0.0.1:8080", "any.example", 22, "10.0.0.1"),
        ("10.0.0.1", "any.example", 80, "::ffff:10.0.0.1"),
    ],
)
def test_allowed_host_permits_no_other(allowed: str, host: str, port: int, address: str) -> None:
    """What is permitted is that host and port alone."""
    with pytest.raises(Forbidden):
        AddressFilter([allowed], lambda _host, _port: [address]).addresses(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "http://mirror",
        "mirror/path",
        "mirror?x",
        "user@mirror",
        "a b",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "mirror:port",
        "mirror:99999",
        "[::1",
    ],
)
def test_unreadable_allowed_host(text: str) -> None:
    """What could be misunderstood is a bad value."""
    with pytest.raises(ValueError, match=r"."):
        AllowedHost.parse(text)


@pytest.mark.parametrize(
    "name",
    ["localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0", "::1", "127.0.0.1"],
)
def test_names_of_this_host_are_refused(name: str) -> None:
    """However this host is written, the system's resolver says what it is."""
    with pytest.raises(Forbidden):
        AddressFilter().addresses(name, 80)


def test_unknown_name_is_unavailable() -> None:
    """A name that does not resolve may do so later."""
    with pytest.raises(StoreUnavailable, match="cannot be resolved"):
        AddressFilter().addresses("nowhere.invalid", 80)
