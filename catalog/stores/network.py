"""What goes wrong on the way to a server, as one of `catalog.errors`.

Users: the drivers that speak HTTP, `address_filter`.  Pure functions.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from urllib3.exceptions import HTTPError

from catalog.errors import StoreRefused, StoreUnavailable

_NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA)
"""Answers of a resolver that works; the others mean that it does not (getaddrinfo(3))."""


@contextmanager
def http_errors(subject: str) -> Iterator[None]:
    """Turn what urllib3 and requests raise into StoreUnavailable, or StoreRefused."""
    try:
        yield
    except (HTTPError, OSError) as error:
        raise network_error(subject, error) from error


def network_error(subject: str, error: Exception) -> StoreUnavailable:
    """The error that a failed connection is, with its inmost reason.

    StoreRefused where there is no such name, or nobody vouches for the certificate.
    """
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    kind = StoreRefused if is_lasting(cause) else StoreUnavailable
    return kind(subject, str(cause) or type(cause).__name__)


def is_lasting(cause: BaseException) -> bool:
    """Whether a connection would fail so the next time, too."""
    if isinstance(cause, socket.gaierror):
        return cause.errno in _NO_SUCH_NAME
    return isinstance(cause, ssl.SSLCertVerificationError | UnicodeError)
