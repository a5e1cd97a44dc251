"""Authenticated requests to one account of Swift; failures become errors of the catalog.

Safe from several threads: they share a pool of connections and one session.  If the server does
not accept the token any more, it is renewed once for each request; nothing else is repeated.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlencode

from urllib3 import BaseHTTPResponse, HTTPHeaderDict

from catalog.errors import CatalogError, NotFound, StoreRefused, StoreUnavailable
from catalog.stores.http_client.errors import http_errors
from catalog.stores.openstack.answers import discard
from catalog.stores.openstack.keystone import KeystoneSession, make_pool
from catalog.stores.swift.auth import SwiftAuth, SwiftAuthSettings
from catalog.stores.swift.errors import failure

Blocks = Callable[[], Iterable[bytes | memoryview]]
"""Returns the blocks of a body; the same bytes at each call."""

UPLOAD = "X-Object-Meta-Imagefs-Upload"
"""Names the upload that made an object, and so the segments that belong to it."""

_CONNECTIONS = 32
"""Connections kept open to one server: about one for each thread that uses a store."""
_PAGE = 10_000
"""Names in one answer: the usual limit of a server."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object, as its headers describe it."""

    size: int
    """Bytes; for a large object, of all its segments."""
    etag: str
    """Without quotes.  That of a large object is made of its segments' etags."""
    is_static: bool
    """Whether it is the manifest of a Static Large Object."""
    dynamic: str | None
    """`container/prefix` of the segments of a Dynamic Large Object; None for any other."""
    upload: str | None
    """The upload of ours that made it; None if another program made it."""

    @classmethod
    def of(cls, headers: Mapping[str, str], subject: str) -> Self:
        """Read headers.  Raises StoreUnavailable if they do not contain the size."""
        try:
            size = int(headers["Content-Length"])
        except (KeyError, ValueError):
            # For example a DLO with more segments than a page of a listing.
            raise StoreUnavailable(subject, "the server does not tell its size") from None
        return cls(
            size=size,
            etag=unquoted(headers.get("ETag", "")),
            is_static=headers.get("X-Static-Large-Object", "").lower() == "true",
            dynamic=headers.get("X-Object-Manifest"),
            upload=headers.get(UPLOAD),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """The server's limits for large objects (`GET /info`), or Swift's defaults."""

    segments: int = 1000
    """Segments in one manifest."""


class SwiftClient:
    """One account."""

    def __init__(self, store: str, settings: SwiftAuthSettings) -> None:
        """`store` is its name, for errors.  It connects with the first request."""
        self.store = store
        self.timeout = settings.timeout
        self._pool = make_pool(settings, _CONNECTIONS)
        self._auth = SwiftAuth(store, settings, self._pool)
        self._lock = threading.Lock()
        self._limits: Limits | None = None

    def storage_url(self) -> str:
        """The account's URL.  Raises StoreUnavailable."""
        return self._auth.session().endpoint

    def is_tls(self) -> bool:
        """Whether data goes over TLS, which detects changes on the way."""
        return self.storage_url().startswith("https:")

    def ask(
        self,
        method: str,
        path: str,
        *,
        subject: str = "",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Blocks | bytes | None = None,
    ) -> BaseHTTPResponse:
        """Send a request about `path`, `container/object`; the answer's body is not read yet.

        The caller closes the response.  `subject` is the subject of errors, by default the
        store.  Raises StoreUnavailable, StoreBusy.
        """
        target = quote(path) + (f"?{urlencode(query)}" if query else "")
        session = self._auth.session()
        response = self._send(session, method, target, subject, headers or {}, body)
        if response.status == 401:
            discard(response)
            session = self._auth.session(refused=session)
            response = self._send(session, method, target, subject, headers or {}, body)
        return response

    def _send(
        self,
        session: KeystoneSession,
        method: str,
        target: str,
        subject: str,
        headers: Mapping[str, str],
        body: Blocks | bytes | None,
    ) -> BaseHTTPResponse:
        # urllib3 declares bytes, and takes memoryviews as well.
        content: Any = body() if callable(body) else body
        with http_errors(subject or self.store):
            return self._pool.request(
                method,
                f"{session.endpoint}/{target}".rstrip("/"),
                headers={"X-Auth-Token": session.token, **headers},
                body=content,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )

    def do(
        self,
        method: str,
        path: str,
        *statuses: int,
        subject: str = "",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Blocks | bytes | None = None,
    ) -> tuple[HTTPHeaderDict, bytes]:
        """Send a request and read the answer, which must have one of `statuses`.

        Raises NotFound, DataChanged, StoreFull, ImageTooLarge, StoreUnavailable, StoreBusy.
        """
        subject = subject or self.store
        with self.ask(
            method, path, subject=subject, headers=headers, query=query, body=body
        ) as response:
            if response.status not in statuses:
                raise failure(response, subject)
            with http_errors(subject):
                return response.headers, response.read()

    def head(self, path: str, subject: str) -> ObjectInfo:
        """Look at an object.  Raises NotFound only if its container exists."""
        try:
            headers, _ = self.do("HEAD", path, 200, subject=subject)
        except NotFound:
            self.check_container(path.partition("/")[0])
            raise
        return ObjectInfo.of(headers, subject)

    def find(self, path: str, subject: str) -> ObjectInfo | None:
        """As `head`; None if there is no such object."""
        try:
            return self.head(path, subject)
        except NotFound:
            return None

    def check_container(self, container: str) -> HTTPHeaderDict:
        """The headers of a container.  Raises StoreRefused if it is missing."""
        try:
            return self.do("HEAD", container, 200, 204)[0]
        except NotFound:
            reason = f"there is no container {container}: run 'imagefs init'"
            raise StoreRefused(self.store, reason) from None

    def make_container(self, container: str) -> None:
        """Make a container; an existing one stays as it is.  Raises StoreUnavailable."""
        self.do("PUT", container, 201, 202)

    def listing(
        self, container: str, prefix: str = "", delimiter: str = ""
    ) -> Iterator[dict[str, Any]]:
        """The container's entries in the order of their names: `name`, `bytes`, `last_modified`.

        With a delimiter there are also entries `{"subdir": "NAME/"}`.  A missing container has
        no entries.  Swift's listings follow changes with a delay.  Raises StoreUnavailable.
        """
        query = {"format": "json", "limit": str(_PAGE), "prefix": prefix, "delimiter": delimiter}
        marker = ""
        while True:
            asked = {**query, "marker": marker}
            try:
                _, body = self.do("GET", container, 200, 204, query=asked)
            except NotFound:
                return
            try:
                entries = json.loads(body or "[]")
                yield from entries
                if not entries:
                    return
                marker = entries[-1].get("subdir") or entries[-1]["name"]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise StoreUnavailable(self.store, "the server's listing cannot be read") from None

    def manifest(self, path: str, subject: str) -> Iterator[str]:
        """The segments of a Static Large Object, as `container/name`.

        Nothing if the object is gone.  Raises StoreUnavailable.
        """
        query = {"multipart-manifest": "get"}
        try:
            _, body = self.do("GET", path, 200, subject=subject, query=query)
            yield from [str(entry["name"]).removeprefix("/") for entry in json.loads(body)]
        except NotFound:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreUnavailable(subject, "its manifest cannot be read") from None

    def check_deletes(self, container: str, subject: str) -> None:
        """Raise StoreRefused if we may not delete in a container; nothing is deleted.

        It tries to delete a name that no object has.  Who may delete gets 404, and everybody
        else 403.
        """
        self.do("DELETE", f"{container}/{secrets.token_hex(16)}", 204, 404, subject=subject)

    def delete(self, path: str, subject: str, query: Mapping[str, str] | None = None) -> None:
        """Delete one object; a missing one is no error.  Raises StoreUnavailable."""
        headers = {"Accept": "application/json"}
        _, body = self.do(
            "DELETE", path, 204, 200, 404, subject=subject, headers=headers, query=query
        )
        if query is None:
            return
        # A bulk deletion begins its answer with 200 before it has deleted anything.
        with http_errors(subject):
            try:
                answer = json.loads(body or "{}")
                status, errors = answer.get("Response Status", "200"), answer.get("Errors", [])
                told = ", ".join(sorted({str(error) for _name, error in errors}))
                is_refused = not answer.get("Number Deleted") and "403 Forbidden" in told
            except (ValueError, TypeError, AttributeError):
                raise StoreUnavailable(subject, "the server's answer cannot be read") from None
        if errors or status[:3] not in ("200", "204", "404"):
            reason = f"{len(errors)} of its segments cannot be deleted: {told or status}"
            # If some segments are gone already, the object is no longer whole: that must not
            # look like a refusal, after which it would be.
            raise (StoreRefused if is_refused else StoreUnavailable)(subject, reason)

    def delete_prefix(self, container: str, prefix: str, subject: str) -> None:
        """Delete all objects whose names begin with `prefix`, which has at least a whole key."""
        for entry in self.listing(container, prefix):
            self.delete(f"{container}/{entry['name']}", subject)

    def limits(self) -> Limits:
        """The server's limits; it is asked once."""
        with self._lock:
            if self._limits is None:
                self._limits = self._ask_limits()
            return self._limits

    def _ask_limits(self) -> Limits:
        # The account's URL ends in /v1/ACCOUNT.
        base = self.storage_url().rpartition("/v1")[0]
        try:
            with http_errors(self.store):
                response = self._pool.request("GET", f"{base}/info", redirect=False)
                info = response.json() if response.status == 200 else {}
            told = info.get("slo", {}).get("max_manifest_segments")
            return Limits() if told is None else Limits(int(told))
        except (CatalogError, ValueError, TypeError, AttributeError):
            # Operators may have switched this request off.
            return Limits()

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def unquoted(etag: str) -> str:
    """An ETag without quotes.  Swift sends them only with those of large objects."""
    return etag.removeprefix('"').removesuffix('"')
