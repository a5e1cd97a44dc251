"""The threads that fetch chunks: a few for the whole process, the most urgent work first.

A store that hangs takes only its own share of the threads, and of the memory that goes with
them: a thread has one run of chunks in its hands at a time.  Threading: any; threads are
started when there is work, and end with `close`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from catalog.errors import StoreUnavailable

THREADS = 10
SHARE = 8
"""Threads that the work for one store may take."""

_LEFT = 2
"""Of these, what is only fetched soon leaves so many to those who wait."""

_FILLS = 1
"""Threads that may do what nobody waits for."""
_MAX_FILLS = 32
"""Such work that may wait; more of it is refused."""


class Urgency(IntEnum):
    """How soon somebody needs it."""

    WANTED = 0
    """A reader waits."""
    AHEAD = 1
    """A reader will soon be there."""
    SOON = 2
    """A reader will be there, as others have been before."""
    FILL = 3
    """Nobody waits."""


@dataclass(slots=True, eq=False)
class Job:
    """A piece of work."""

    store: str
    urgency: Urgency
    work: Callable[[Urgency], None]
    """Told how urgent it was in the end; raises nothing."""
    cancel: Callable[[], None]
    """Called instead of `work` if that is never done."""


class Pool:
    """Threads that do jobs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: list[Job] = []
        self._threads: list[threading.Thread] = []
        self._running: Counter[str] = Counter()
        self._fills = 0
        self._idle = 0
        self._is_closed = False

    def submit(self, job: Job) -> bool:
        """Have a job done; False if there is too much of its kind.

        Raises StoreUnavailable after `close`.
        """
        with self._changed:
            if self._is_closed:
                raise StoreUnavailable(job.store, "the program is being stopped")
            if job.urgency is Urgency.FILL and self._waiting_fills() >= _MAX_FILLS:
                return False
            self._queue.append(job)
            if len(self._queue) > self._idle and len(self._threads) < THREADS:
                self._start()
            self._changed.notify()
            return True

    def hurry(self, job: Job) -> None:
        """Tell that somebody waits for a job, which may have begun."""
        with self._changed:
            if job in self._queue:
                job.urgency = Urgency.WANTED
                self._changed.notify()

    def close(self) -> None:
        """Cancel what has not begun, wait for the rest, end the threads.  Idempotent."""
        with self._changed:
            self._is_closed = True
            queue, self._queue = self._queue, []
            self._changed.notify_all()
        for job in queue:
            job.cancel()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        name = f"cache-{len(self._threads)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job.work(job.urgency)
            with self._changed:
                self._running[job.store] -= 1
                self._fills -= job.urgency is Urgency.FILL
                self._changed.notify_all()
            # Its data must not wait here with the thread.
            del job

    def _next(self) -> Job | None:
        """Wait for a job that may be done; None when the pool is closed."""
        with self._changed:
            while not self._is_closed:
                possible = [job for job in self._queue if self._may_begin(job)]
                if possible:
                    job = min(possible, key=lambda job: job.urgency)
                    self._queue.remove(job)
                    self._running[job.store] += 1
                    self._fills += job.urgency is Urgency.FILL
                    return job
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return None

    def _may_begin(self, job: Job) -> bool:
        if job.urgency is Urgency.FILL and self._fills >= _FILLS:
            return False
        share = SHARE - _LEFT if job.urgency >= Urgency.SOON else SHARE
        return self._running[job.store] < share

    def _waiting_fills(self) -> int:
        return sum(job.urgency is Urgency.FILL for job in self._queue)
