"""The thread that makes landed chunks durable, those of one moment together.

Users: `shelf`.  While it waits for the disk more chunks land, and go with the next round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from catalog.cache.disk import DiskImage


class Flusher:
    """Flushes images in a thread of its own, which is started when there is something."""

    def __init__(self, trouble: Callable[[OSError], None]) -> None:
        """`trouble` is told what the disk answers."""
        self._trouble = trouble
        self._changed = threading.Condition()
        self._waiting: set[DiskImage] = set()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, disk: DiskImage) -> None:
        """Flush an image soon; it may be closed meanwhile."""
        with self._changed:
            self._waiting.add(disk)
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="cache-flush", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Flush what is left, and end the thread.  Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                waiting, self._waiting = self._waiting, set()
                if not waiting:
                    return
            for disk in waiting:
                try:
                    disk.flush()
                except OSError as error:
                    self._trouble(error)
