"""Threads that serve requests: as many as there is work, up to a limit.

This replaces cheroot's ThreadPool, whose number of threads is fixed.  Threading: all methods are
thread-safe.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Job = TypeVar("Job")

_IDLE_SECONDS = 30


class Workers(Generic[Job]):
    """Daemon threads; a thread ends after half a minute without work."""

    def __init__(self, serve: Callable[[Job], None], limit: int) -> None:
        """`serve` does one job and never raises."""
        self._serve = serve
        self._limit = limit
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._count = 0
        self._idle = 0
        self._stopping = False

    def put(self, job: Job) -> None:
        """Have the job done, by a new thread if all are busy."""
        with self._changed:
            self._queue.append(job)
            if self._idle >= len(self._queue):
                self._changed.notify()
            elif self._count < self._limit:
                threading.Thread(target=self._work, name="dav-worker", daemon=True).start()
                self._count += 1

    def stop(self) -> None:
        """Have every thread end as soon as the queue is empty."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait until all threads have ended; False if some have not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, seconds)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._serve(job)

    def _next(self) -> Job | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._queue or self._stopping, _IDLE_SECONDS)
            self._idle -= 1
            if self._queue:
                return self._queue.popleft()
            self._count -= 1
            self._changed.notify_all()
            return None
