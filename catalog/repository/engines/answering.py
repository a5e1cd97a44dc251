"""A server that does not answer: one caller at a time tries it, all others are refused at once.

Otherwise every lookup of a mount would wait for a connection in vain, and its few threads with it.
Only who has something to lose waits: `patiently`.
Threading: any.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from catalog.errors import CatalogAway

REST = 1.0
"""Seconds between two attempts to reach a server that does not answer."""


_patient_until: ContextVar[float] = ContextVar("patient_until", default=0.0)


@contextmanager
def patiently(seconds: float) -> Iterator[None]:
    """Let transactions that are begun in this block wait so long for a server that is away.

    A block within another one does not wait longer.
    """
    at, outer = time.monotonic(), _patient_until.get()
    before = _patient_until.set(outer if outer > at else at + seconds)
    try:
        yield
    finally:
        _patient_until.reset(before)


class Answering:
    """Whether one server answers, as far as this process knows."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._reason = ""
        self._try_at = 0.0

    def wait(self) -> None:
        """Wait a moment for a server that is away.  Raises CatalogAway unless `patiently`."""
        if time.monotonic() >= _patient_until.get():
            raise CatalogAway(self._where, self._reason)
        time.sleep(REST / 4)

    def check(self) -> None:
        """Raise CatalogAway if the server did not answer lately, and it is not yet time to try.

        Of several callers, one may try.
        """
        with self._lock:
            if not self._reason:
                return
            if time.monotonic() < self._try_at:
                raise CatalogAway(self._where, self._reason)
            self._try_at = time.monotonic() + REST

    def failed(self, reason: str) -> None:
        """Note that the server did not answer."""
        with self._lock:
            self._reason = reason or "no answer"
            self._try_at = time.monotonic() + REST

    def answered(self) -> None:
        """Note that it did."""
        if self._reason:
            with self._lock:
                self._reason = ""
