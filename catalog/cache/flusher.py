"""The thread that writes landed chunks and makes them durable, many at a time.

While it waits for the disk more chunks land, and are written in the next round.  Their number is
limited by memory: when it is used up, threads that fetch wait for the disk, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from catalog.cache.disk import DiskImage

_MOST = 32 << 20
"""Bytes that may wait to be written."""


class Flusher:
    """Flushes images in a thread of its own, which starts with the first chunk."""

    def __init__(self, trouble: Callable[[OSError], None]) -> None:
        """`trouble` is called with each error of the disk."""
        self._trouble = trouble
        self._changed = threading.Condition()
        self._waiting: set[DiskImage] = set()
        self._bytes = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, disk: DiskImage, size: int) -> None:
        """Flush an image soon, for which `size` bytes have landed; it may be closed meanwhile."""
        with self._changed:
            self._waiting.add(disk)
            self._bytes += size
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="cache-flush", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Wait until more chunks may land.

        Not to be called while holding a chunk that others wait for.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < _MOST or self._is_closed)

    def close(self) -> None:
        """Flush the rest, and end the thread.  Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                waiting, self._waiting = self._waiting, set()
                size = self._bytes
                if not waiting:
                    return
            for disk in waiting:
                try:
                    disk.flush()
                except OSError as error:
                    self._trouble(error)
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()
