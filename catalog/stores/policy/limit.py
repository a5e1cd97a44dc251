"""Limits how many requests run at the same time in one store.

Threading: any.  A check passes at once: when all requests of a store hang, only a check can
find out whether it answers again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from catalog.stores.policy.guard import Operation, Request, Result


class Limit:
    """A guard that lets at most `requests` run at the same time."""

    def __init__(self, requests: int) -> None:
        self._slots = threading.BoundedSemaphore(requests)

    def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Wait for a slot, and hold it while the request is made."""
        if request.operation is Operation.CHECK:
            return work()
        with self._slots:
            return work()
