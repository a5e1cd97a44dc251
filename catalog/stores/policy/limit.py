"""So many requests at once to one store, the others wait.

Threading: any.  A check is let through at once: it asks whether a store still answers
whose requests all hang.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from catalog.stores.policy.guard import Operation, Request, Result


class Limit:
    """A guard that lets up to `requests` through at a time."""

    def __init__(self, requests: int) -> None:
        self._slots = threading.BoundedSemaphore(requests)

    def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Wait for a slot, and hold it while the request is made."""
        if request.operation is Operation.CHECK:
            return work()
        with self._slots:
            return work()
