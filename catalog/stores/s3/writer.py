"""Stores one object in S3: by one request, or in parts that are sent while more is written.

A writer is used by one thread; its own threads send the parts.  Memory: `write` keeps parts until
they are sent, at most 192 MiB (for objects of known size up to 800 GiB; for larger ones two
parts).  `send` and `take` send from the file and keep nothing in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from catalog.errors import CatalogError, NotFound, StoreUnavailable
from catalog.stores.base import Check, Stat
from catalog.stores.os_errors import os_errors
from catalog.stores.s3.multipart import Multipart, PartsInFlight, Stored
from catalog.stores.s3.objects import S3Objects
from catalog.stores.s3.requests import BLOCK, Body

_PART_MIN = 8 << 20
_PART_UNKNOWN = 64 << 20
"""Bytes of a part when the object's size is not known: 10,000 of them make 625 GiB."""
_PARTS_WANTED = 9000
"""Fewer than the 10,000 that S3 allows, in case there is more data than was announced."""
_AT_ONCE = 4
_BUFFERED_MAX = 192 << 20


def part_size(size: int | None) -> int:
    """Bytes of each part of an object except the last one."""
    if size is None:
        return _PART_UNKNOWN
    return max(_PART_MIN, -(-size // _PARTS_WANTED))


class S3Writer:
    """Collects bytes to parts and sends these; `commit` makes the object of them."""

    def __init__(
        self, objects: S3Objects, multipart: Multipart, key: str, url: str, size: int | None
    ) -> None:
        """No request is made before there is more than one part."""
        self._objects = objects
        self._multipart = multipart
        self._key = key
        self._url = url
        self._part_size = part_size(size)
        self._size = 0
        self._sent = 0
        """Bytes of the staged file that were sent or are being sent."""
        self._check: Check = _wanted
        self._buffer = bytearray()
        self._parts: PartsInFlight | None = None
        self._stored: dict[int, Stored] = {}
        """Parts of an unfinished upload with the same part size; they are not sent again."""
        self._next = 1
        self._fd = -1

    def go_on(self, upload: str) -> None:
        """Continue an unfinished upload: written bytes are compared with its parts."""
        self._stored = self._multipart.parts(self._key, upload)
        self._parts = PartsInFlight(self._multipart, self._key, self._at_once, upload)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`; raises also the error of an earlier part."""
        rest = memoryview(data).cast("B")
        self._size += len(rest)
        while rest:
            if len(self._buffer) == self._part_size:
                self._send_buffer()
            room = self._part_size - len(self._buffer)
            self._buffer += rest[:room]
            rest = rest[room:]

    def send(self, staged: Path, ready: int, check: Check) -> int:
        """Begin the next part of a file that still grows, unless it may be the last one."""
        self._check = check
        if ready - self._sent > self._part_size:
            self._open(staged)
            self._send_piece(range(self._sent, self._sent + self._part_size))
        return self._sent

    def take(self, staged: Path) -> None:
        """Begin to send the rest of a staged file; `commit` waits for the last parts."""
        self._open(staged)
        with os_errors(str(staged)):
            self._size = os.fstat(self._fd).st_size
        if self._parts is None:
            self._part_size = part_size(self._size)
            if self._size <= self._part_size:
                for block in self._blocks(range(self._size)):
                    self._buffer += block
                return
        while self._sent < self._size:
            self._send_piece(range(self._sent, min(self._sent + self._part_size, self._size)))

    def commit(self) -> str:
        """Send the rest, make the object, and check that it is whole."""
        try:
            if self._parts is None:
                self._objects.put(self._key, self._buffer)
            else:
                if self._buffer:
                    self._send_buffer()
                self._complete(self._parts)
                self._parts.close()
                self._parts = None
        finally:
            self.cancel()
        return self._url

    def cancel(self) -> None:
        """Abort the upload, so that none of its parts stays."""
        parts, self._parts = self._parts, None
        if parts is not None:
            # If the server does not answer it keeps the parts; `delete` and fsck find them.
            with suppress(CatalogError):
                parts.abort()
        self._buffer = bytearray()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _send_buffer(self) -> None:
        parts = self._parts or self._begin(self._at_once)
        data, self._buffer = self._buffer, bytearray()
        stored = self._stored.get(self._next)
        self._next += 1
        if stored is not None and stored.has(data):
            parts.add(lambda number: stored.etag)
        else:
            put = partial(self._multipart.put_part, self._key, parts.id)
            parts.add(partial(put, body=Body.of(data)))

    @property
    def _at_once(self) -> int:
        return max(1, min(_AT_ONCE, _BUFFERED_MAX // self._part_size - 1))

    def _open(self, staged: Path) -> None:
        if self._fd < 0:
            with os_errors(str(staged)):
                self._fd = os.open(staged, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _send_piece(self, piece: range) -> None:
        """Send a part of the staged file in another thread, as soon as one is free."""
        parts = self._parts or self._begin(_AT_ONCE)
        body = Body(len(piece), partial(self._blocks, piece))
        parts.add(partial(self._multipart.put_part, self._key, parts.id, body=body))
        self._sent = piece.stop

    def _blocks(self, piece: range) -> Iterator[bytes]:
        """The bytes of a piece of the staged file.

        Raises StoreUnavailable if it has become shorter, and what `check` raises.
        """
        with os_errors("staging"):
            for offset in range(piece.start, piece.stop, BLOCK):
                self._check()
                wanted = min(BLOCK, piece.stop - offset)
                block = os.pread(self._fd, wanted, offset)
                if len(block) != wanted:
                    raise StoreUnavailable("staging", "the staged file became shorter")
                yield block

    def _begin(self, at_once: int) -> PartsInFlight:
        self._parts = PartsInFlight(self._multipart, self._key, at_once)
        return self._parts

    def _complete(self, parts: PartsInFlight) -> None:
        """Make the object, and compare its size if the server names it."""
        expected = parts.expected_etag()
        try:
            parts.complete()
        except NotFound as error:
            # The answer to an earlier attempt may have been lost, and the object be complete.
            found = self._found()
            if found is None or not expected or found.etag != expected:
                raise StoreUnavailable(self._url, "the upload was aborted elsewhere") from error
        else:
            found = self._found()
        if found is not None and found.etag == expected and found.size != self._size:
            self._objects.delete(self._key)
            reason = f"the server made {found.size} bytes of {self._size}"
            raise StoreUnavailable(self._url, reason)

    def _found(self) -> Stat | None:
        """Size and ETag of the object at the key; None if that cannot be found out."""
        try:
            return self._objects.head(self._key)
        except CatalogError:
            return None


def _wanted() -> None:
    """The check for a complete file: it is wanted until `cancel`."""
