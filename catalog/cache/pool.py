"""The threads that fetch chunks: a few for the whole process, the most urgent work first.

A store that hangs takes only its share of the threads.  It also takes only that share of memory,
as a thread has one run of chunks at a time.  Threading: any; threads start when there is work,
and end with `close`.
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
"""Threads that may work for one store."""

_LEFT = 2
"""Of these, threads that are kept free for chunks that a reader waits for or will soon need."""

_FILLS = 1
"""Threads that may do work for which nobody waits."""
_MAX_FILLS = 32
"""Jobs of that kind in the queue; more are refused."""


class Urgency(IntEnum):
    """How soon a chunk is needed."""

    WANTED = 0
    """A reader waits for it."""
    AHEAD = 1
    """A reader that reads in order will soon need it."""
    SOON = 2
    """A reader will probably need it, by the boot profile."""
    FILL = 3
    """Nobody needs it yet."""


@dataclass(slots=True, eq=False)
class Job:
    """A piece of work."""

    store: str
    urgency: Urgency
    work: Callable[[Urgency], None]
    """Called with the urgency that the job had in the end; raises nothing."""
    cancel: Callable[[], None]
    """Called instead of `work` if the pool is closed before."""


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
        """Add a job to the queue; False if there are too many of its kind.

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
        """Make a job urgent, as a reader waits for it; it may have begun already."""
        with self._changed:
            if job in self._queue:
                job.urgency = Urgency.WANTED
                self._changed.notify()

    def close(self) -> None:
        """Cancel jobs that have not begun, wait for the others, end the threads.  Idempotent."""
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
            # Otherwise this variable would keep the job's data while the thread waits.
            del job

    def _next(self) -> Job | None:
        """Wait for a job that may begin; None when the pool is closed."""
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
