"""Ranged reads of one object in Swift; another object under the same name is never read.

Safe from several threads.  An answer is used only if it states that it is the requested range
(RFC 9110 §14.4) of the object with the ETag that was there at the opening.
"""

from __future__ import annotations

import re

from urllib3 import BaseHTTPResponse

from catalog.errors import DataChanged, StoreUnavailable
from catalog.stores.http_client.errors import body
from catalog.stores.swift.client import ObjectInfo, SwiftClient, unquoted
from catalog.stores.swift.errors import failure

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class SwiftReader:
    """An object; each `read_at` is one request.  Safe from several threads."""

    def __init__(self, client: SwiftClient, path: str, url: str, opened: ObjectInfo) -> None:
        """`opened` is the object that was at `path` at the opening."""
        self.size = opened.size
        self._client = client
        self._path = path
        self._url = url
        self._opened = opened

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes `[offset, offset + size)`, cut at the end.

        Raises NotFound; DataChanged if the object is not the one opened; StoreUnavailable.
        """
        wanted = range(offset, min(offset + size, self.size))
        if not wanted:
            return b""
        headers = {
            "Range": f"bytes={wanted.start}-{wanted.stop - 1}",
            # The ranges of a compressed representation would be other bytes.
            "Accept-Encoding": "identity",
        }
        if self._opened.dynamic is None:
            headers["If-Match"] = self._opened.etag
        with self._client.ask("GET", self._path, subject=self._url, headers=headers) as response:
            if response.status != 206:
                raise self._refusal(response)
            self._verify(response, wanted)
            return body(self._url, response, len(wanted), self._client.timeout)

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def close(self) -> None:
        """Connections belong to the store."""

    def _refusal(self, response: BaseHTTPResponse) -> Exception:
        if response.status == 200:
            response.close()
            return StoreUnavailable(self._url, "the server ignores Range: it sent the whole object")
        return failure(response, self._url)

    def _verify(self, response: BaseHTTPResponse, wanted: range) -> None:
        """Raise unless the answer states that it is this range of the opened object."""
        told = response.headers.get("Content-Range", "nothing")
        found = _CONTENT_RANGE.fullmatch(told)
        etag = unquoted(response.headers.get("ETag", ""))
        if found is None or (int(found[1]), int(found[2]) + 1) != (wanted.start, wanted.stop):
            reason = (
                f"was asked for bytes {wanted.start}-{wanted.stop - 1} and answered with {told}"
            )
            raise StoreUnavailable(self._url, f"the server {reason}")
        if etag != self._opened.etag or int(found[3]) != self.size:
            raise DataChanged(self._url)
        if response.headers.get("Content-Length") != str(len(wanted)):
            raise StoreUnavailable(self._url, "the server does not tell the length of its answer")
