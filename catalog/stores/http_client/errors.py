"""Failures on the way to a server, as errors of the catalog.

Safe from any thread: an answer is its caller's own.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from catalog.errors import StoreRefused, StoreUnavailable

_NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA)
"""A working resolver's answers that there is no such name (getaddrinfo(3)).  All other errors
mean that the resolver itself fails."""

_SLOWEST = 64 << 10
"""Bytes a second.  A server that sends fewer is given up, even if it sends regularly."""

_BLOCK = 1 << 20


@contextmanager
def http_errors(subject: str) -> Iterator[None]:
    """Turn what urllib3 and requests raise into StoreUnavailable, or StoreRefused."""
    try:
        yield
    except (HTTPError, OSError) as error:
        raise network_error(subject, error) from error


def body(subject: str, answer: BaseHTTPResponse, size: int, patience: float) -> bytes:
    """Exactly `size` bytes of body.

    Raises StoreUnavailable, also if the body takes longer than `patience` seconds plus the time
    that `_SLOWEST` allows for its size.
    """
    end = time.monotonic() + patience + size / _SLOWEST
    blocks: list[bytes] = []
    # One byte more than wanted: so the end of the body is read, and the connection can be used
    # again.
    rest = size + 1
    with http_errors(subject):
        # `read1` returns what has arrived.  `read` would wait for a full block, and a server
        # that sends single bytes would keep it waiting.
        while rest and (block := answer.read1(min(rest, _BLOCK), decode_content=False)):
            blocks.append(block)
            rest -= len(block)
            if time.monotonic() > end:
                raise StoreUnavailable(subject, "timed out: the server sends too slowly")
    if rest != 1:
        sent = size + 1 - rest
        reason = f"the server sent {sent} bytes or more instead of {size}"
        raise StoreUnavailable(subject, reason)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def blocks(
    subject: str, answer: BaseHTTPResponse, size: int | None, patience: float
) -> Iterator[bytes]:
    """A whole body as it arrives: `size` bytes, or all up to its end.

    Raises StoreUnavailable as `body`.  The time that the caller takes between two blocks does
    not count.
    """
    done, waited = 0, 0.0
    while True:
        begun = time.monotonic()
        with http_errors(subject):
            block = answer.read1(_BLOCK, decode_content=False)
        waited += time.monotonic() - begun
        if not block:
            break
        done += len(block)
        if waited > patience + done / _SLOWEST:
            raise StoreUnavailable(subject, "timed out: the server sends too slowly")
        yield block
    if size is not None and done != size:
        raise StoreUnavailable(subject, f"the server sent {done} bytes instead of {size}")


def network_error(subject: str, error: Exception) -> StoreUnavailable:
    """The error for a failed connection, with the innermost reason.

    StoreRefused if there is no such name, or if the certificate is not trusted.
    """
    cause: BaseException = error
    # Only through network errors: a `__context__` of another type is an error that a caller was
    # handling at that moment, and belongs to another request.
    while isinstance(inner := cause.__cause__ or cause.__context__, HTTPError | OSError):
        cause = inner
    kind = StoreRefused if is_lasting(cause) else StoreUnavailable
    return kind(subject, str(cause) or type(cause).__name__)


def is_lasting(cause: BaseException) -> bool:
    """Whether the next attempt to connect would fail in the same way."""
    if isinstance(cause, socket.gaierror):
        return cause.errno in _NO_SUCH_NAME
    return isinstance(cause, ssl.SSLCertVerificationError | UnicodeError)
