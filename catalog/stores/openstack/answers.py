"""HTTP as the services of OpenStack speak it: what failed, and when to come again."""

from __future__ import annotations

from contextlib import suppress

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

TEXT_MAX = 4096
"""Bytes of an error's body that are looked at."""

BUSY = frozenset({429, 498, 503})
"""Statuses of a server that wants to be left alone for a while."""


def retry_after(response: BaseHTTPResponse) -> float | None:
    """Seconds of a Retry-After that is a number."""
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else None


def discard(response: BaseHTTPResponse) -> None:
    """Give the connection back, or close it if much of the body is still to come."""
    rest = response.length_remaining
    with suppress(HTTPError, OSError):
        if rest is not None and rest <= TEXT_MAX:
            response.read()
    response.close()
