"""The credentials in use; they are read again when the server refuses them.

Safe from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from catalog.stores.s3.settings import Credentials


class S3Account:
    """Credentials that are read when first needed, and again when they are refused.

    They are not read earlier: while an operator changes the files of the keys one after the
    other, the old keys are still valid.
    """

    def __init__(self, read: Callable[[], Credentials]) -> None:
        """`read` may raise StoreUnavailable."""
        self._read = read
        self._lock = threading.Lock()
        self._current: Credentials | None = None

    def current(self) -> Credentials:
        """The credentials to sign with.  Raises StoreUnavailable."""
        with self._lock:
            if self._current is None:
                self._current = self._read()
            return self._current

    def renew(self, refused: Credentials) -> bool:
        """Whether the current credentials are others than the `refused` ones.

        Reads them again if nobody has done so yet.  Raises StoreUnavailable.
        """
        with self._lock:
            # Another thread may have renewed them while this one waited for its answer.
            if self._current == refused:
                self._current = self._read()
            return self._current != refused
