"""Whose requests they are: the credentials in use, until the server refuses them.

Safe from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from catalog.stores.s3.settings import Credentials


class Account:
    """Credentials that are read when needed, and again once they are refused.

    Not before: while keys are changed one file after the other, the old ones still hold.
    """

    def __init__(self, read: Callable[[], Credentials]) -> None:
        """`read` may raise StoreUnavailable."""
        self._read = read
        self._lock = threading.Lock()
        self._current: Credentials | None = None

    def current(self) -> Credentials:
        """Those to sign with.  Raises StoreUnavailable."""
        with self._lock:
            if self._current is None:
                self._current = self._read()
            return self._current

    def renew(self, refused: Credentials) -> bool:
        """Whether there are others than the `refused`, which are then the current ones.

        Raises StoreUnavailable.
        """
        with self._lock:
            if self._current == refused:
                self._current = self._read()
            return self._current != refused
