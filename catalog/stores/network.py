"""What goes wrong on the way to a server, as one of `catalog.errors`.

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
"""Answers of a resolver that works; the others mean that it does not (getaddrinfo(3))."""

_SLOWEST = 64 << 10
"""Bytes a second: a server that sends less, however regularly, is given up."""

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

    Raises StoreUnavailable, also if they take longer than `patience` seconds and what the
    slowest server worth waiting for would need.
    """
    end = time.monotonic() + patience + size / _SLOWEST
    blocks: list[bytes] = []
    # One more than wanted: reads on to the end, so that the connection is reused.
    rest = size + 1
    with http_errors(subject):
        # What has come: a full block would be waited for byte by byte.
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
    """A whole body as it comes: `size` bytes, or up to its end.

    Raises StoreUnavailable as `body`; the time its reader takes is not the server's.
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
    """The error that a failed connection is, with its inmost reason.

    StoreRefused where there is no such name, or nobody vouches for the certificate.
    """
    cause: BaseException = error
    # Not on to what somebody above was just handling: that is another request's.
    while isinstance(inner := cause.__cause__ or cause.__context__, HTTPError | OSError):
        cause = inner
    kind = StoreRefused if is_lasting(cause) else StoreUnavailable
    return kind(subject, str(cause) or type(cause).__name__)


def is_lasting(cause: BaseException) -> bool:
    """Whether a connection would fail so the next time, too."""
    if isinstance(cause, socket.gaierror):
        return cause.errno in _NO_SUCH_NAME
    return isinstance(cause, ssl.SSLCertVerificationError | UnicodeError)
