"""Divides a limited number of connections or workers among clients.

However many connections one client opens, and however slow it is, there is room for others; the
same holds for several such clients.  Threading: all methods are thread-safe.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Shares:
    """Counts how many each client has.

    A client may have a fixed ratio of what is free (dynamic thresholds, Choudhury and Hahne
    1998).  So the next client finds room, even if many others have taken all they may.
    """

    def __init__(self, limit: int, total: int) -> None:
        """`limit` is how many of `total` a client may have while no other client has any."""
        self._limit = limit
        self._free = total
        # A client that is alone and has `limit` has this ratio of what is left.
        self._ratio = limit / max(total - limit, 1)
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, client: str) -> bool:
        """Give the client one more; False if it has its share already."""
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
                # There can be any number of addresses: keep only those that have something.
                del self._taken[client]

    @contextmanager
    def one(self, client: str) -> Iterator[bool]:
        """Take one for the duration of a block; False if the client has its share already."""
        taken = self.take(client)
        try:
            yield taken
        finally:
            if taken:
                self.give_back(client)
