"""A read-only store of images on web servers: `ln -s URL /STORE/NAME`.

Safe from several threads: they share one pool of connections.  Scope: ranged reads as RFC 9110
§14 and §15.3.7 define them, of http and https URLs that the address filter permits.  An answer
is used only if it states that it is the requested range, of the object that was opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urljoin

from requests import PreparedRequest, Request, RequestException, Response
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from catalog.errors import CatalogError, InvalidValue, NotSupported, ReadOnlyStore, StoreRefused
from catalog.stores.base import (
    Capability,
    DataWriter,
    LeavesNothing,
    NothingToMake,
    Stat,
    Usage,
    WithoutPolicy,
)
from catalog.stores.glance_locations import DROPPED
from catalog.stores.http.address_filter import AddressFilter, FilteredAdapter, Lookup, look_up
from catalog.stores.http.settings import HttpStoreSettings
from catalog.stores.http_client.answers import (
    conditions,
    etag_of,
    is_empty,
    other_range,
    part_of,
    shown,
    size_of,
    verify,
)
from catalog.stores.http_client.errors import blocks, body, http_errors

__all__ = ["HttpReader", "HttpStore", "HttpStoreSettings"]

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_EXPIRED = {401, 403, 404, 410}


class HttpStore(WithoutPolicy, NothingToMake, LeavesNothing):
    """Objects on other people's servers.  The catalog has their URLs, the servers the data."""

    capabilities = Capability.EXTERNAL

    def __init__(self, name: str, settings: HttpStoreSettings, look_up: Lookup = look_up) -> None:
        self.name = name
        self._settings = settings
        # An adapter without a Session.  A Session would add cookies, .netrc, proxies of the
        # environment and redirects past the filter, and does not promise to be thread-safe.
        permitted = AddressFilter(settings.allow_hosts, look_up)
        self._adapter = FilteredAdapter(permitted, settings.policy.requests)

    def check(self) -> None:
        """Does nothing: there is not one server that could be asked."""

    def open(self, url: str) -> HttpReader:
        """Open an object to read.

        Raises NotFound, StoreUnavailable, StoreRefused (a server without ranged reads),
        Forbidden (address filter), InvalidValue (not a URL for this store).
        """
        found, answered = self._probe(url)
        return HttpReader(self, url, answered, found)

    def stream(self, url: str) -> tuple[int | None, Iterator[bytes]]:
        """The whole object by one GET: a copy needs no ranges.  Raises as `open`."""
        response = self.get(url, None)
        try:
            size = size_of(url, response)
        except CatalogError:
            response.close()
            raise
        return size, self._blocks(url, response, size)

    def _blocks(self, url: str, response: Response, size: int | None) -> Iterator[bytes]:
        with closing(response):
            yield from blocks(shown(url), response.raw, size, self._settings.timeout)

    def stat(self, url: str) -> Stat:
        """Size, and the ETag or else the Last-Modified.  Raises as `open`."""
        return self._probe(url)[0]

    def writer(self, key: str, size: int | None = None) -> DataWriter:
        """Raise ReadOnlyStore."""
        raise ReadOnlyStore(self.name)

    def delete(self, url: str) -> None:
        """Raise ReadOnlyStore: the data is not ours."""
        raise ReadOnlyStore(self.name)

    def copy(self, url: str, key: str) -> str:
        """Raise NotSupported."""
        raise NotSupported(self.name)

    def usage(self) -> Usage:
        """Nothing is known."""
        return Usage(None, None)

    def url_of(self, key: str) -> str:
        """Raise NotSupported: users register the URLs."""
        raise NotSupported(self.name)

    def keys(self) -> Iterator[str]:
        """Raise NotSupported."""
        raise NotSupported(self.name)

    def staging_folder(self) -> Path | None:
        """None: nothing is uploaded here."""
        return None

    def quarantine(self, key: str) -> str:
        """Raise NotSupported."""
        raise NotSupported(self.name)

    def close(self) -> None:
        """Close the pool of connections."""
        self._adapter.close()

    def get(self, url: str, wanted: range | None, etag: str = "") -> Response:
        """GET the bytes `wanted`, or all if it is None, only if the object has that `etag`.

        Follows up to 5 redirects, each of which the address filter checks.  The body is not
        read yet; the caller closes the response.  Raises StoreUnavailable, Forbidden,
        InvalidValue.
        """
        at = url
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(at, _headers(wanted, etag))
            target = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or target is None:
                return response
            response.close()
            at = _redirected(at, target)
        raise StoreRefused(shown(url), f"redirects more than {_MAX_REDIRECTS} times")

    def body(self, url: str, response: Response, size: int) -> bytes:
        """Exactly `size` bytes of a response's body.  Raises StoreUnavailable."""
        return body(shown(url), response.raw, size, self._settings.timeout)

    def _send(self, url: str, headers: Mapping[str, str]) -> Response:
        """Send one request, with the credentials that are set for exactly this server."""
        request = _prepared(url, headers)
        server = self._settings.server(str(request.url))
        request.headers.update(server.authorization())
        bundle = self._settings.ca_bundle
        with http_errors(shown(url)):
            return self._adapter.send(
                request,
                stream=True,
                timeout=self._settings.timeout,
                verify=str(bundle) if bundle else True,
                cert=server.certificate(),
            )

    def _probe(self, url: str) -> tuple[Stat, str]:
        """Size and etag of an object, and the URL that answered after all redirects.

        It asks for the first byte instead of sending HEAD.  So the answer is the one that
        reads will get, and a server without ranged reads is refused before anybody relies
        on it.
        """
        with self.get(url, range(1)) as response:
            if is_empty(response):
                return Stat(0, etag_of(response)), str(response.url)
            found, total = part_of(url, response)
            if found != range(1):
                raise other_range(url, response)
            self.body(url, response, 1)
            return Stat(total, etag_of(response)), str(response.url)


class HttpReader:
    """An object; each `read_at` is one request.  Safe from several threads."""

    def __init__(self, store: HttpStore, url: str, answered: str, opened: Stat) -> None:
        """`answered` is the URL at the end of the redirects, `opened` the object there."""
        self.size = opened.size
        self._store = store
        self._url = url
        self._opened = opened
        self._answered = answered
        """Asked directly until it fails.  This saves one request for each read.  It also stays
        with one server: the mirrors of a load balancer may have different ETags."""

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes `[offset, offset + size)`, cut at the end.

        Raises NotFound, StoreUnavailable; DataChanged if the object is not the one opened.
        """
        wanted = range(offset, min(offset + size, self.size))
        if not wanted:
            return b""
        with self._ask(wanted) as response:
            verify(self._url, response, wanted, self._opened)
            return self._store.body(self._url, response, len(wanted))

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def close(self) -> None:
        """Connections belong to the store."""

    def _ask(self, wanted: range) -> Response:
        response = self._store.get(self._answered, wanted, self._opened.etag)
        if response.status_code in _EXPIRED and self._answered != self._url:
            # Redirects often lead to signed URLs that are valid for a few minutes only.
            response.close()
            response = self._store.get(self._url, wanted, self._opened.etag)
            self._answered = str(response.url)
        return response


def _headers(wanted: range | None, etag: str) -> dict[str, str]:
    """The headers of a request for the bytes `wanted` of the object with that `etag`."""
    some = {} if wanted is None else {"Range": f"bytes={wanted.start}-{wanted.stop - 1}"}
    return {
        **some,
        # The ranges of a compressed representation would be other bytes.
        "Accept-Encoding": "identity",
        "User-Agent": "imagefs",
        **conditions(etag),
    }


def _prepared(url: str, headers: Mapping[str, str]) -> PreparedRequest:
    """A request for a URL.  Raises InvalidValue for a URL that is not valid."""
    scheme = url.partition("://")[0].lower()
    if scheme in DROPPED:
        raise InvalidValue(f"{scheme}://…", DROPPED[scheme])
    try:
        parts = parse_url(url)
        if parts.scheme not in ("http", "https") or not parts.host:
            raise InvalidValue(shown(url), "is not an http or https URL")
        if parts.auth is not None:
            raise InvalidValue(shown(url), "a URL must not hold a credential")
        return Request("GET", url, headers).prepare()
    except (HTTPError, RequestException, ValueError) as error:
        raise InvalidValue(shown(url), "is not a valid URL") from error


def _redirected(url: str, target: str) -> str:
    """The URL that a redirect leads to.

    Raises StoreRefused if it is not valid, or if it leads from https to http.
    """
    try:
        found = urljoin(url, target)
    except ValueError as error:
        raise StoreRefused(shown(url), f"redirects to {shown(target)!r}") from error
    if url.lower().startswith("https:") and not found.lower().startswith("https:"):
        raise StoreRefused(shown(url), f"redirects from https to {shown(found)}")
    return found
