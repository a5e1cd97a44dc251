"""A read-only store of images on web servers: `ln -s URL /STORE/NAME`.

Users: `registry`.  Safe from several threads: they share one pool of connections.
Scope: ranged reads as RFC 9110 §14 and §15.3.7 define them, of http and https URLs that
the address filter permits.  A server's answer is believed only where it says that it
is the range asked for, of the object seen when it was opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

from pydantic import BaseModel, ConfigDict, FilePath, PositiveFloat, field_validator
from requests import PreparedRequest, Request, RequestException, Response
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from catalog.errors import InvalidValue, NotFound, NotSupported, ReadOnlyStore, StoreUnavailable
from catalog.stores.address_filter import (
    AddressFilter,
    AllowedHost,
    FilteredAdapter,
    Lookup,
    look_up,
)
from catalog.stores.base import Capability, DataWriter, Stat, Usage

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_EXPIRED = {401, 403, 404, 410}
_CONNECTIONS = 16
"""Per server: about as many threads as read at once."""

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")


class HttpStoreSettings(BaseModel):
    """`[stores.NAME]` with `type = "http"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["http"] = "http"
    allow_hosts: tuple[str, ...] = ()
    """Servers permitted though they have no public address: host, host:port, network/bits."""
    timeout: PositiveFloat = 30
    """Seconds without an answer, or without further data, before a server is given up."""
    ca_bundle: FilePath | None = None
    """PEM file of the authorities to trust instead of the public ones."""

    @field_validator("allow_hosts")
    @classmethod
    def _readable(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            AllowedHost.parse(host)
        return hosts


class HttpStore:
    """Objects on other people's servers.  The catalog holds their URLs, they the data."""

    capabilities = Capability.EXTERNAL

    def __init__(self, name: str, settings: HttpStoreSettings, look_up: Lookup = look_up) -> None:
        self.name = name
        self._settings = settings
        # An adapter without a Session: a Session would add cookies, .netrc, proxies of
        # the environment and unfiltered redirects, and is not promised to be thread-safe.
        self._adapter = FilteredAdapter(AddressFilter(settings.allow_hosts, look_up), _CONNECTIONS)

    def check(self) -> None:
        """There is no one server to ask."""

    def open(self, url: str) -> HttpReader:
        """Open an object to read.

        Raises NotFound, StoreUnavailable (also of a server without ranged reads),
        Forbidden (address filter), InvalidValue (not a URL for this store).
        """
        found, answered = self._probe(url)
        return HttpReader(self, url, answered, found)

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

    def get(self, url: str, offset: int, size: int) -> Response:
        """GET the range `[offset, offset + size)`, by hand through up to 5 redirects.

        The body is not read yet; the caller closes the response.  Raises
        StoreUnavailable, Forbidden, InvalidValue.
        """
        at = url
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(_ranged_request(at, offset, size))
            target = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or target is None:
                return response
            response.close()
            at = _redirected(at, target)
        raise StoreUnavailable(url, f"redirects more than {_MAX_REDIRECTS} times")

    def _send(self, request: PreparedRequest) -> Response:
        timeout = self._settings.timeout
        verify = str(self._settings.ca_bundle) if self._settings.ca_bundle else True
        with _http_errors(str(request.url)):
            return self._adapter.send(request, stream=True, timeout=timeout, verify=verify)

    def _probe(self, url: str) -> tuple[Stat, str]:
        """What an object is, and the URL that answered in the end.

        By the GET of its first byte rather than HEAD: what is seen is then what reads
        will see, and a server without ranges is refused before anybody relies on it.
        """
        with self.get(url, 0, 1) as response:
            if _is_empty(response):
                return Stat(0, _etag(response)), str(response.url)
            first, total = _answered_range(url, response)
            if first != range(1):
                raise StoreUnavailable(url, _other_range(response))
            _body(url, response, 1)
            return Stat(total, _etag(response)), str(response.url)


class HttpReader:
    """An object that is read by one request per `read_at`.  Safe from several threads."""

    def __init__(self, store: HttpStore, url: str, answered: str, opened: Stat) -> None:
        """`answered` is where redirects led, `opened` what was found there."""
        self.size = opened.size
        self._store = store
        self._url = url
        self._opened = opened
        self._answered = answered
        """Asked directly until it no longer answers: saves a request per read, and a load
        balancer's mirrors may know one object by different ETags."""

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes `[offset, offset + size)`, cut at the end.

        Raises NotFound; StoreUnavailable, also if the object is not the one opened.
        """
        wanted = range(offset, min(offset + size, self.size))
        if not wanted:
            return b""
        with self._ask(wanted) as response:
            self._verify(response, wanted)
            return _body(self._url, response, len(wanted))

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def close(self) -> None:
        """Connections belong to the store."""

    def _ask(self, wanted: range) -> Response:
        response = self._store.get(self._answered, wanted.start, len(wanted))
        if response.status_code in _EXPIRED and self._answered != self._url:
            # Redirects often lead to signed URLs that hold for minutes.
            response.close()
            response = self._store.get(self._url, wanted.start, len(wanted))
            self._answered = str(response.url)
        return response

    def _verify(self, response: Response, wanted: range) -> None:
        answered, total = _answered_range(self._url, response)
        if Stat(total, _etag(response)) != self._opened:
            raise StoreUnavailable(self._url, "has changed on the server since it was opened")
        if answered != wanted:
            raise StoreUnavailable(self._url, _other_range(response))


def _ranged_request(url: str, offset: int, size: int) -> PreparedRequest:
    """The request for `[offset, offset + size)`.  Raises InvalidValue for a bad URL."""
    headers = {
        "Range": f"bytes={offset}-{offset + size - 1}",
        # Of a compressed representation the ranges would be other bytes.
        "Accept-Encoding": "identity",
        "User-Agent": "imagefs",
    }
    try:
        parts = parse_url(url)
        if parts.scheme not in ("http", "https") or not parts.host:
            raise InvalidValue(url, "is not an http or https URL")
        if parts.auth is not None:
            raise InvalidValue(parts._replace(auth=None).url, "a URL must not hold a credential")
        return Request("GET", url, headers).prepare()
    except (HTTPError, RequestException, ValueError) as error:
        raise InvalidValue(url, "is not a valid URL") from error


def _redirected(url: str, target: str) -> str:
    """Where a redirect leads.  Raises StoreUnavailable if that is nowhere, or not TLS any more."""
    try:
        found = urljoin(url, target)
    except ValueError as error:
        raise StoreUnavailable(url, f"redirects to {target!r}") from error
    if url.lower().startswith("https:") and not found.lower().startswith("https:"):
        raise StoreUnavailable(url, f"redirects from https to {found}")
    return found


def _is_empty(response: Response) -> bool:
    """Whether the answer to `bytes=0-0` says that the object has no bytes."""
    headers = response.headers
    return (response.status_code == 416 and headers.get("Content-Range") == "bytes */0") or (
        response.status_code == 200 and headers.get("Content-Length") == "0"
    )


def _answered_range(url: str, response: Response) -> tuple[range, int]:
    """The bytes a response says it holds, and the size of the whole object.

    Raises NotFound; StoreUnavailable if it is anything but a plain part.
    """
    status = response.status_code
    if status in (404, 410):
        raise NotFound(url)
    if status == 200:
        raise StoreUnavailable(url, "the server ignores Range: it sent the whole object")
    if status != 206:
        raise StoreUnavailable(url, f"the server answered {status} {response.reason}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise StoreUnavailable(url, f"the server sent it with Content-Encoding {encoding}")
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or found[1] is None:
        raise StoreUnavailable(url, _other_range(response))
    return range(int(found[1]), int(found[2]) + 1), int(found[3])


def _other_range(response: Response) -> str:
    asked = response.request.headers["Range"]
    got = response.headers.get("Content-Range", "nothing")
    return f"the server was asked for {asked} and answered with {got}"


def _etag(response: Response) -> str:
    return response.headers.get("ETag") or response.headers.get("Last-Modified", "")


def _body(url: str, response: Response, size: int) -> bytes:
    """Exactly `size` bytes of body.  Raises StoreUnavailable."""
    with _http_errors(url):
        # One more than wanted: reads on to the end, so that the connection is reused.
        data: bytes = response.raw.read(size + 1, decode_content=False)
    if len(data) != size:
        raise StoreUnavailable(url, f"the server sent {len(data)} bytes or more instead of {size}")
    return data


@contextmanager
def _http_errors(url: str) -> Iterator[None]:
    """Turn what requests and urllib3 raise into StoreUnavailable with the inmost reason."""
    try:
        yield
    except (RequestException, HTTPError, OSError) as error:
        cause: BaseException = error
        while (inner := cause.__cause__ or cause.__context__) is not None:
            cause = inner
        raise StoreUnavailable(url, str(cause)) from error
