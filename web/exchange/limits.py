"""Limits of what one client may use of the server."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    request_line: int = 8 * KIB
    header_block: int = 64 * KIB
    header_fields: int = 200

    read_body: int = MIB
    """The largest body that `Body.read` returns: XML and JSON, which are kept in memory."""

    discarded_body: int = 64 * KIB
    """An unread body up to this size is read and dropped, to keep the connection."""

    header_seconds: float = 10
    """How long a request's head may take, from the connection or from its first byte."""

    idle_seconds: float = 60
    """How long a connection may be idle between two requests."""

    transfer_seconds: int = 60
    """How long receiving or sending a body may make no progress."""

    least_rate: int = 500
    """The lowest rate of a body in bytes per second, on average over `transfer_seconds` of waiting
    for the client."""

    linger_seconds: float = 2
    """How long a client whose request was refused may continue sending."""

    connections: int = 1000
    connections_of_one: int = 250
    """Connections of one client while no other client has any (`Shares`), idle ones and those with
    an incomplete head included.  A trusted proxy does not count as a client."""

    workers: int = 500
    """Requests in progress, stalled ones included; a waiting connection needs no worker."""

    workers_of_one: int = 100
    """Requests of one client while no other client has any.  A trusted proxy says which client
    it is."""


DEFAULT_LIMITS = Limits()
