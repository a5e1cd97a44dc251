"""Answers of OpenStack's services: which of them mean busy, and for how long."""

from __future__ import annotations

from contextlib import suppress

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

TEXT_MAX = 4096
"""Bytes of an error's body that are read."""

BUSY = frozenset({429, 498, 503})
"""Statuses with which a server asks to be left alone for a while."""


def discard(response: BaseHTTPResponse) -> None:
    """Return the connection to its pool, or close it if much of the body is not read yet."""
    rest = response.length_remaining
    with suppress(HTTPError, OSError):
        if rest is not None and rest <= TEXT_MAX:
            response.read()
    response.close()
