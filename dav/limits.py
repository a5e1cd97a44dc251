"""What one client may take of the server.  Used by every module of the HTTP server."""

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
    """What `Body.read` returns in all: request bodies that are kept in memory (XML, JSON)."""

    discarded_body: int = 64 * KIB
    """An unread body up to this size is read and thrown away, to keep the connection."""

    header_seconds: float = 10
    """From connecting, or from its first byte, until a request's head is complete."""

    idle_seconds: float = 60
    """Between two requests of one connection."""

    transfer_seconds: int = 60
    """Without any progress while a body is received or sent."""

    least_rate: int = 500
    """Bytes a second, on average over `transfer_seconds` of waiting for a body's client."""

    linger_seconds: float = 2
    """How long a client that is refused may go on sending before it is cut off."""

    connections: int = 1000
    connections_of_one: int = 250
    """Of one client when no other has any (`Shares`), idle ones and those with half a head
    included; a trusted proxy is none."""

    workers: int = 500
    """Requests in progress, stalled ones included; waiting connections take no worker."""

    workers_of_one: int = 100
    """Of one client when no other has any; behind a trusted proxy, of whom that names."""


DEFAULT_LIMITS = Limits()
