"""The lowest speed of a client that a worker waits for.

Without this, a client that sends one byte just before each time-out would hold a worker for ever.
Threading: one thread; each request has its own `Pace`.
"""

from __future__ import annotations

from web.exchange.body import Disconnected
from web.exchange.limits import Limits


class Pace:
    """Counts the bytes in both directions, and the time spent waiting for the client.

    Only that waiting counts: a slow disk or a long commit is not the client's fault.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._moved = 0
        self._waited = 0.0

    def count(self, size: int, seconds: float) -> None:
        """Add bytes and the seconds they took; raises Disconnected if that is too slow."""
        self._moved += size
        self._waited += seconds
        if self._waited < self._limits.transfer_seconds:
            return
        if self._moved < self._limits.least_rate * self._waited:
            raise Disconnected(f"slower than {self._limits.least_rate} bytes/s")
        self._moved, self._waited = 0, 0.0
