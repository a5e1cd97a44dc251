"""What each client has of something that all share.

One client, however many connections it opens and however slow it is, leaves room for the others:
the server asks before it gives.  All methods are thread-safe.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Shares:
    """Counts what clients have, up to a number for each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, client: str) -> bool:
        """Give the client one more; False when it has its share already."""
        with self._lock:
            if self._taken[client] >= self._limit:
                return False
            self._taken[client] += 1
            return True

    def count(self, client: str) -> int:
        """How many the client has."""
        with self._lock:
            return self._taken.get(client, 0)

    def give_back(self, client: str) -> None:
        """Take back one that was given."""
        with self._lock:
            self._taken[client] -= 1
            if not self._taken[client]:
                # Addresses are without number: none is kept that has nothing.
                del self._taken[client]

    @contextmanager
    def one(self, client: str) -> Iterator[bool]:
        """Take one for a while; False when the client has its share already."""
        taken = self.take(client)
        try:
            yield taken
        finally:
            if taken:
                self.give_back(client)
