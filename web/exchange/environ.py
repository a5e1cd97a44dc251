"""Our own keys in the environment of a WSGI request (PEP 3333), and functions that read them.

Threading: an environment belongs to one request, and so to one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from catalog.model.access import Principal

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

PRINCIPAL = "imagefs.principal"
"""The principal that asks; `auth` sets it before the application is called."""

REQUEST_ID = "imagefs.request_id"
"""The request's id, shown to the client and in the log."""

SEND = "imagefs.send"
"""A FileRange as the response's body; the server sends it and closes it."""

PEER = "imagefs.peer"
"""The address at the other end of the connection: a proxy's, or the client's own."""

PUBLIC_HOST = "imagefs.public_host"
"""The client's name for this server; missing if it is not known."""

REASON = "imagefs.reason"
"""Why the request was refused, as the client gets to see it."""

CAUSE = "imagefs.cause"
"""Why it failed, for the log only; missing if the client sees the same."""


def principal_of(environ: Environ) -> Principal:
    """The principal that asks."""
    principal: Principal = environ[PRINCIPAL]
    return principal


def request_id_of(environ: Environ) -> str:
    """The request's id."""
    request_id: str = environ[REQUEST_ID]
    return request_id


def public_host_of(environ: Environ) -> str | None:
    """The client's name for this server, as HOST:PORT; None if it is not known."""
    host: str | None = environ.get(PUBLIC_HOST)
    return host


def reason_of(environ: Environ) -> str:
    """Why the request was refused; empty if there is no reason."""
    reason: str = environ.get(REASON, "")
    return reason
