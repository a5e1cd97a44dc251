"""Threads that serve requests: as many as there is work, up to a limit.

Used by server.  Takes the place of cheroot's ThreadPool, whose number of threads is fixed.
All methods are thread-safe.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from dav.connection import Connection

_IDLE_SECONDS = 30


class Workers:
    """Daemon threads; one ends when it had nothing to do for half a minute."""

    def __init__(self, serve: Callable[[Connection], None], limit: int) -> None:
        """`serve` handles one connection and lets no exception out."""
        self._serve = serve
        self._limit = limit
        self._changed = threading.Condition()
        self._queue: deque[Connection] = deque()
        self._count = 0
        self._idle = 0
        self._stopping = False

    def put(self, connection: Connection) -> None:
        """Have the connection served, by a new thread if all are busy."""
        with self._changed:
            self._queue.append(connection)
            if self._idle >= len(self._queue):
                self._changed.notify()
            elif self._count < self._limit:
                threading.Thread(target=self._work, name="dav-worker", daemon=True).start()
                self._count += 1

    def stop(self) -> None:
        """Let every thread end as soon as it has nothing to do."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait until all threads have ended; False when some have not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, seconds)

    def _work(self) -> None:
        while (connection := self._next()) is not None:
            self._serve(connection)

    def _next(self) -> Connection | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._queue or self._stopping, _IDLE_SECONDS)
            self._idle -= 1
            if self._queue:
                return self._queue.popleft()
            self._count -= 1
            self._changed.notify_all()
            return None
