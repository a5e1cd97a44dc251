"""Which servers the http store may talk to: public ones, and those the settings allow.

Safe from several threads.

A user chooses the URL, and this host makes the request.  Without a filter a user could read
the host's own services or a cloud's metadata service (server-side request forgery).

The check is made where a connection is opened, on the addresses that the name resolved to, and
the connection goes to exactly these addresses.  So the filter cannot be passed by a name that
resolves differently the second time, nor by a URL that two parsers read differently.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError
from urllib3.util.connection import create_connection

from catalog.errors import Forbidden, StoreRefused, StoreUnavailable
from catalog.stores.http_client.errors import is_lasting

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int], list[str]]
"""Host name and port to numeric addresses; raises OSError."""

_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")

_GLOBAL_IPV6 = IPv6Network("2000::/3")
"""All that IANA has assigned as global unicast."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as an IPv6-only network sees them (RFC 6052)."""

_NOT_PUBLIC = (
    # IETF protocol assignments.  Oracle Cloud's metadata service was at 192.0.0.192.
    IPv4Network("192.0.0.0/24"),
    # Azure's WireServer: a metadata service on a public number.
    IPv4Network("168.63.129.16/32"),
)
"""Networks that are not public, although Python 3.11's `ipaddress.is_global` says so."""


def is_public(address: Address) -> bool:
    """Whether an address is a public unicast one (IANA special-purpose registries).

    Of an IPv6 address that carries an IPv4 one, the inner address decides.
    """
    if isinstance(address, IPv6Address):
        inner = _carried(address)
        if inner is not None:
            return is_public(inner)
        return address in _GLOBAL_IPV6 and address.is_global
    special = address.is_multicast or address.is_reserved or not address.is_global
    return not special and not any(address in network for network in _NOT_PUBLIC)


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A server permitted in spite of the filter: a name, or a network of addresses."""

    host: str | IPv4Network | IPv6Network
    port: int | None
    """None for every port."""

    @classmethod
    def parse(cls, text: str) -> AllowedHost:
        """Read `name`, `name:port`, `address`, `address:port`, `[ipv6]:port` or `network/bits`.

        Raises ValueError.
        """
        if "/" in text:
            return cls(ip_network(text), None)
        with suppress(ValueError):
            return cls(ip_network(text), None)
        parts = urlsplit(f"//{text}")
        host = (parts.hostname or "").rstrip(".")
        with suppress(ValueError):
            return cls(ip_network(host), parts.port)
        if parts.netloc != text or "@" in text or not _HOST_NAME.fullmatch(host):
            raise ValueError(f"{text!r} is not a host, host:port, address or network/bits")
        return cls(host, parts.port)

    def permits(self, name: str, port: int, address: Address) -> bool:
        """Whether a connection to `address`, by that name and port, is permitted."""
        if self.port not in (None, port):
            return False
        if isinstance(self.host, str):
            return self.host == name.lower().rstrip(".")
        return address in self.host


def look_up(host: str, port: int) -> list[str]:
    """Resolve a name as the system does.  Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class AddressFilter:
    """Turns a host name into the addresses that may be connected to."""

    def __init__(self, allowed: Iterable[str] = (), look_up: Lookup = look_up) -> None:
        """`allowed` as `AllowedHost.parse` reads them; raises ValueError."""
        self._allowed = tuple(AllowedHost.parse(text) for text in allowed)
        self._look_up = look_up

    def addresses(self, host: str, port: int) -> list[str]:
        """The numeric addresses of a host, all of them permitted.

        Raises Forbidden if any is not, StoreRefused if there is no such name,
        StoreUnavailable if it cannot be resolved now.
        """
        try:
            found = self._look_up(host, port)
        except (OSError, UnicodeError) as error:
            kind = StoreRefused if is_lasting(error) else StoreUnavailable
            raise kind(host, f"the name cannot be resolved: {error}") from error
        for address in found:
            if not self._permits(host, port, ip_address(address)):
                raise Forbidden(
                    host, f"its address {address} is not a public one; `allow_hosts` can permit it"
                )
        return found

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """Open the socket of a urllib3 connection, to a permitted address of its host.

        Raises Forbidden, StoreUnavailable, and urllib3's NewConnectionError.
        """
        failure: OSError | None = None
        # The checked addresses, not the name: to resolve it again could give other ones.
        for address in self.addresses(connection.host, connection.port):
            try:
                return create_connection(
                    (address, connection.port),
                    connection.timeout,
                    socket_options=connection.socket_options,
                )
            except OSError as error:
                failure = error
        raise NewConnectionError(connection, f"cannot connect: {failure}") from failure

    def _permits(self, host: str, port: int, address: Address) -> bool:
        return is_public(address) or any(
            allowed.permits(host, port, address) for allowed in self._allowed
        )


class FilteredAdapter(HTTPAdapter):
    """Requests' transport, with every connection opened by an AddressFilter.

    TLS still verifies the certificate against the name in the URL.
    """

    def __init__(self, address_filter: AddressFilter, connections: int) -> None:
        """Up to `connections` are opened per server; further requests wait for one."""
        self._filter = address_filter
        super().__init__(pool_maxsize=connections, pool_block=True)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools' connections ask the filter for their sockets."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _filtered_pools(self._filter)


def _filtered_pools(address_filter: AddressFilter) -> dict[str, type[HTTPConnectionPool]]:
    # `_new_conn` is the method that urllib3's SOCKS support overrides, too, to open its sockets.
    class FilteredHTTP(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return address_filter.connect(self)

    class FilteredHTTPS(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return address_filter.connect(self)

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls = FilteredHTTP

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls = FilteredHTTPS

    return {"http": HTTPPool, "https": HTTPSPool}
