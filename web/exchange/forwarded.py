"""Finds the client of a request that came through a proxy.

The headers `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` are believed only if a
proxy that `[dav] trusted_proxies` names has sent them, as anybody can send them.  `Forwarded`
(RFC 7239) is not read: a proxy that writes one of the two kinds passes on the other kind
unchanged, as a client sent it.

After `Forwarding` the environment looks as if the client had connected to this server directly:
REMOTE_ADDR, `wsgi.url_scheme` and HTTP_HOST are the client's, and no `X-Forwarded-` header is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from web.exchange.environ import PEER, PUBLIC_HOST, Application, Environ, StartResponse

Network = IPv4Network | IPv6Network

_FIRST = "HTTP_X_FORWARDED_"
_SUBSCRIBER = 64
"""The leading bits of an IPv6 address that differ between two subscribers."""


@dataclass(frozen=True, slots=True)
class Client:
    """The client that sent a request, as far as it is known."""

    address: str
    scheme: str
    """`http` or `https`."""
    host: str
    """This server's name, with its port, as the client or the nearest proxy uses it."""
    public_host: str | None
    """This server's name as the client uses it; None if that is not known."""


class Proxies:
    """The proxies whose headers are believed."""

    def __init__(self, networks: Collection[Network]) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str) -> bool:
        """Whether it is the address of a trusted proxy; False for anything but an address."""
        plain = _address(address)
        if plain is None:
            return False
        return any(ip_address(plain) in network for network in self._networks)

    def client(self, environ: Environ) -> Client:
        """The client of a request (PEP 3333)."""
        peer = _address(environ["REMOTE_ADDR"]) or environ["REMOTE_ADDR"]
        scheme = environ["wsgi.url_scheme"]
        own = f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
        host = environ.get("HTTP_HOST", own)
        if not self.trusts(peer):
            # If proxies are configured, any other peer is a client.  If none are, the peer may be
            # an unknown proxy, and the Host may be a name that only this proxy uses.
            return Client(peer, scheme, host, host if self._networks else None)
        address, hops = self._walk(peer, _items(environ, "FOR"))
        said = _said(environ, "PROTO", hops).lower()
        public = _said(environ, "HOST", hops) or None
        if said in ("http", "https"):
            scheme = said
        return Client(address, scheme, public or host, public)

    def address(self, peer: str, forwarded_for: str) -> str:
        """The client's address of a request from `peer` with this `X-Forwarded-For`."""
        plain = _address(peer) or peer
        return self._walk(plain, _split(forwarded_for))[0] if self.trusts(plain) else plain

    def _walk(self, peer: str, forwarded: list[str]) -> tuple[str, int]:
        """The first address from the right that is no proxy's, and the number of proxies.

        Each proxy adds its peer at the right.  Anything left of the result was sent by the
        client and may be false.
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
    """A WSGI application that shows the next one the client instead of the proxy."""

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
    """The key for an address' share: a subscriber has a whole network of IPv6 (RFC 6177)."""
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
    """The value from the outermost of `hops` proxies, or from the first that has sent one."""
    items = _items(environ, name)
    return items[-min(hops, len(items))] if items else ""


def _address(text: str) -> str | None:
    """An address in its normal form, without a port (Azure's proxies add one)."""
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
