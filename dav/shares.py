"""What each client has of something that all share.

One client, however many connections it opens and however slow it is, leaves room for the others,
and so do several: the server asks before it gives.  All methods are thread-safe.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Shares:
    """Counts what clients have.

    A client may have a share of what nobody has (dynamic thresholds, Choudhury and Hahne 1998).
    With that the next one finds room however many took all that they may.
    """

    def __init__(self, limit: int, total: int) -> None:
        """`limit` is what a client may have of `total` when no other has anything."""
        self._limit = limit
        self._free = total
        # Alone, a client that has its limit is at this ratio to what is left.
        self._ratio = limit / max(total - limit, 1)
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, client: str) -> bool:
        """Give the client one more; False when it has its share already."""
        with self._lock:
            if self._taken.get(client, 0) >= min(self._limit, self._free * self._ratio):
                return False
            self._taken[client] += 1
            self._free -= 1
            return True

    def give_back(self, client: str) -> None:
        """Take back one that was given."""
        with self._lock:
            self._free += 1
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
