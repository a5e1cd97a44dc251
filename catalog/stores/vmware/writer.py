"""Uploads a file to a vSphere datastore: one PUT to a temporary name, then a rename.

A writer is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from ssl import SSLContext
from urllib.parse import SplitResult

from catalog.errors import CatalogError, StoreFull, StoreUnavailable
from catalog.stores.base import SendsNothingEarly
from catalog.stores.os_errors import os_errors
from catalog.stores.vmware.files import VmwareFiles
from catalog.stores.vmware.location import VmwareLocation

_BLOCK = 1 << 20
_TEXT_MAX = 4096


class VmwareUpload:
    """One PUT whose body is sent piece by piece.

    Every method raises StoreUnavailable, StoreFull.
    """

    def __init__(
        self, server: SplitResult, tls: SSLContext, timeout: float, target: str, subject: str
    ) -> None:
        """`target` is path and query; `subject` is the subject of errors."""
        self._target = target
        self._subject = subject
        self._in_chunks = False
        self._connection = HTTPSConnection(
            server.hostname or "", server.port, timeout=timeout, context=tls
        )

    def begin(self, authorization: dict[str, str], size: int | None) -> None:
        """Send the head; the body follows in chunks if its `size` is not known."""
        self._in_chunks = size is None
        length = {"Transfer-Encoding": "chunked"} if size is None else {"Content-Length": str(size)}
        kind = {"Content-Type": "application/octet-stream", "User-Agent": "imagefs"}
        with self._errors():
            self._connection.putrequest("PUT", self._target, skip_accept_encoding=True)
            for name, value in (authorization | length | kind).items():
                self._connection.putheader(name, value)
            self._connection.endheaders()

    def send(self, data: bytes | memoryview) -> None:
        """Send some of the body."""
        try:
            for start in range(0, len(data), _BLOCK):
                block = data[start : start + _BLOCK]
                if self._in_chunks:
                    self._connection.send(b"%x\r\n" % len(block))
                self._connection.send(block)
                if self._in_chunks:
                    self._connection.send(b"\r\n")
        except OSError as error:
            # The server may have answered with a reason before it closed the connection.
            with suppress(StoreUnavailable):
                self.end()
            raise StoreUnavailable(self._subject, str(error)) from error

    def end(self) -> None:
        """Wait until the server has the whole body."""
        with self._errors():
            if self._in_chunks:
                with suppress(BrokenPipeError):
                    self._connection.send(b"0\r\n\r\n")
            response = self._connection.getresponse()
            response.read(_TEXT_MAX)
        if response.status == 507:
            raise StoreFull(self._subject)
        if response.status not in (200, 201, 204):
            reason = f"the server answered {response.status} {response.reason}"
            raise StoreUnavailable(self._subject, reason)

    def close(self) -> None:
        """Hang up.  Idempotent."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, HTTPException) as error:
            raise StoreUnavailable(self._subject, str(error) or type(error).__name__) from error


class VmwareWriter(SendsNothingEarly):
    """A file under a temporary name that `commit` renames to its key."""

    def __init__(
        self,
        upload: VmwareUpload,
        files: VmwareFiles,
        size_of: Callable[[VmwareLocation], int],
        part: VmwareLocation,
        target: VmwareLocation,
    ) -> None:
        """`upload` sends `part` and was begun; `size_of` asks the server for a file's size."""
        self._upload = upload
        self._files = files
        self._size_of = size_of
        self._part = part
        self._target = target
        self._size = 0
        self._is_over = False

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.  Raises StoreFull, StoreUnavailable."""
        self._upload.send(data)
        self._size += len(data)

    def take(self, staged: Path) -> None:
        """Send a staged file instead of `write`s."""
        with os_errors(str(staged)), staged.open("rb") as file:
            while block := file.read(_BLOCK):
                self.write(block)

    def commit(self) -> str:
        """Wait for the server, compare the size, rename the file; return its url."""
        try:
            self._upload.end()
            found = self._size_of(self._part)
            if found != self._size:
                reason = f"the server has {found} bytes of {self._size} that were sent"
                raise StoreUnavailable(str(self._target), reason)
            self._files.move(self._part.file, self._target.file)
            self._is_over = True
        finally:
            self.cancel()
        return str(self._target)

    def cancel(self) -> None:
        """Close the connection, and remove the file on the server."""
        self._upload.close()
        if not self._is_over:
            self._is_over = True
            # If the server does not answer, `leftovers` finds the file later.
            with suppress(CatalogError):
                self._files.delete(self._part.file)
