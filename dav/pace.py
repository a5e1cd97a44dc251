"""The least speed of a client that a worker waits for.

Used by connection, which makes one for each request; one thread.  Without it a client that sends
a byte just before each time-out would hold a worker for ever.
"""

from __future__ import annotations

from dav.body import Disconnected
from dav.limits import Limits


class Pace:
    """What has moved in either direction, and how long the client was waited for meanwhile.

    Only waiting counts: a slow disk or a long commit is not the client's fault.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._moved = 0
        self._waited = 0.0

    def count(self, size: int, seconds: float) -> None:
        """Add bytes and how long they took; raises Disconnected when they were too few."""
        self._moved += size
        self._waited += seconds
        if self._waited < self._limits.transfer_seconds:
            return
        if self._moved < self._limits.least_rate * self._waited:
            raise Disconnected(f"slower than {self._limits.least_rate} bytes/s")
        self._moved, self._waited = 0, 0.0
