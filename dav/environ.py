"""What we keep in the environment of a WSGI request (PEP 3333) beside its own: names and readers.

Threading: an environment is one request's, and so one thread's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from catalog.model.access import Principal

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

PRINCIPAL = "imagefs.principal"
"""Who asks: set by what is between the server and the application."""

REQUEST_ID = "imagefs.request_id"
"""Which request it is, to its client and in the log."""

SEND = "imagefs.send"
"""A FileRange that is the response's body; the server sends it and closes it."""

PEER = "imagefs.peer"
"""The address of the connection: a proxy's, or the client's own."""

PUBLIC_HOST = "imagefs.public_host"
"""The name by which the client calls us; not there when nobody can tell."""

REASON = "imagefs.reason"
"""Why the request was refused, in the words that its client is told."""

CAUSE = "imagefs.cause"
"""Why it failed, for the log alone: not there unless that is more than its client is told."""


def principal_of(environ: Environ) -> Principal:
    """Who asks."""
    principal: Principal = environ[PRINCIPAL]
    return principal


def request_id_of(environ: Environ) -> str:
    """The request's id."""
    request_id: str = environ[REQUEST_ID]
    return request_id


def public_host_of(environ: Environ) -> str | None:
    """The name by which the client calls us, as HOST:PORT; None when nobody can tell."""
    host: str | None = environ.get(PUBLIC_HOST)
    return host


def reason_of(environ: Environ) -> str:
    """Why the request was refused; empty if nothing has said so."""
    reason: str = environ.get(REASON, "")
    return reason
