"""Who a request really comes from, when a proxy stands in front of us.

A proxy that `[dav] trusted_proxies` names is believed what its `X-Forwarded-For`,
`X-Forwarded-Proto` and `X-Forwarded-Host` say; nobody else is, as anybody can send them.
`Forwarded` (RFC 7239) is not read: a proxy that adds to one of the two kinds passes on a
stranger's other.

Behind `Forwarding` the environment is that of a server the client talks to itself: REMOTE_ADDR,
`wsgi.url_scheme` and HTTP_HOST are the client's, and no `X-Forwarded-` header is left to be
believed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dav.environ import PEER, PUBLIC_HOST, Application, Environ, StartResponse

Network = IPv4Network | IPv6Network

_FIRST = "HTTP_X_FORWARDED_"
_SUBSCRIBER = 64
"""Bits of an IPv6 address that tell one subscriber from another."""


@dataclass(frozen=True, slots=True)
class Client:
    """The sender of a request, as far as is known."""

    address: str
    scheme: str
    """`http` or `https`."""
    host: str
    """Of this server, with its port, as the client or the nearest proxy calls it."""
    public_host: str | None
    """The same if the client itself is known to call it so."""


class Proxies:
    """The proxies whose word is taken."""

    def __init__(self, networks: Collection[Network]) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str) -> bool:
        """Whether a proxy of ours has that address; what is no address is nobody's."""
        plain = _address(address)
        if plain is None:
            return False
        return any(ip_address(plain) in network for network in self._networks)

    def client(self, environ: Environ) -> Client:
        """Who sent a request (PEP 3333)."""
        peer = _address(environ["REMOTE_ADDR"]) or environ["REMOTE_ADDR"]
        scheme = environ["wsgi.url_scheme"]
        own = f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
        host = environ.get("HTTP_HOST", own)
        if not self.trusts(peer):
            # With proxies named, who is none of them talks to us itself.  Without, it may be
            # a proxy that nobody named, which calls us by an address of its own.
            return Client(peer, scheme, host, host if self._networks else None)
        address, hops = self._walk(peer, _items(environ, "FOR"))
        said = _said(environ, "PROTO", hops).lower()
        public = _said(environ, "HOST", hops) or None
        if said in ("http", "https"):
            scheme = said
        return Client(address, scheme, public or host, public)

    def address(self, peer: str, forwarded_for: str) -> str:
        """Who sent a request that came from `peer` with this `X-Forwarded-For`."""
        plain = _address(peer) or peer
        return self._walk(plain, _split(forwarded_for))[0] if self.trusts(plain) else plain

    def _walk(self, peer: str, forwarded: list[str]) -> tuple[str, int]:
        """The first address from the right that is no proxy's, and how many proxies there were.

        What stands left of it was sent by the client and may be anything.
        """
        address, hops = peer, 1
        for item in reversed(forwarded):
            found = _address(item)
            if found is None:
                break
            address = found
            if not self.trusts(found):
                break
            hops += 1
        return address, hops


class Forwarding:
    """A WSGI application that shows another one the client instead of the proxy."""

    def __init__(self, app: Application, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        client = self._proxies.client(environ)
        environ[PEER] = environ["REMOTE_ADDR"]
        environ["REMOTE_ADDR"] = client.address
        environ["wsgi.url_scheme"] = client.scheme
        environ["HTTP_HOST"] = client.host
        if client.public_host is not None:
            environ[PUBLIC_HOST] = client.public_host
        for name in [name for name in environ if name.startswith(_FIRST)]:
            del environ[name]
        return self._app(environ, start_response)


NO_PROXIES = Proxies(())


def share_of(address: str) -> str:
    """Whose share an address counts for: one subscriber has a network of IPv6 (RFC 6177)."""
    plain = _address(address)
    if plain is None or ":" not in plain:
        return plain or address
    return str(ip_network((plain, _SUBSCRIBER), strict=False))


def host_name(authority: str) -> str:
    """The name in HOST:PORT, in lower case and without the brackets of IPv6."""
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host = authority
    return host.strip("[]").rstrip(".").lower()


def _items(environ: Environ, name: str) -> list[str]:
    return _split(environ.get(_FIRST + name, ""))


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _said(environ: Environ, name: str, hops: int) -> str:
    """What the outermost of `hops` proxies said, or the last that said anything."""
    items = _items(environ, name)
    return items[-min(hops, len(items))] if items else ""


def _address(text: str) -> str | None:
    """An address in its one form; with a port it is taken off (as Azure's proxies add one)."""
    bare = text.partition("%")[0]
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ip_address(bare)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return str(found)
