"""Looks at other processes, any of which may be waiting for this mount.

A process in execve(2) holds its exec lock while the kernel flushes its close-on-exec files.  A
process in munmap(2) holds its memory map while dirty pages are written.  Some files of /proc wait
for these locks.  So a request that reads such a file may wait for a process that waits for the
answer to this very request, and both wait for ever.

Therefore a few threads of their own do all looks, each with a deadline.  A look that is not done
in time is UNKNOWN, and the caller decides what is safe then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)

DEADLINE = 0.25
"""Seconds after which a look is UNKNOWN, unless the caller sets another time."""
_PLACES = 8
"""Looks at the same time, including those that are stuck."""


class Unknown(Enum):
    """The type of UNKNOWN, the value of an answer that did not come in time."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


class _Look(Generic[Answer]):
    """One question and its answer, which may come too late."""

    def __init__(self, about: Hashable, work: Callable[[], Answer]) -> None:
        self.about = about
        self.work = work
        self.answer: SimpleQueue[Answer | Unknown] = SimpleQueue()


class Looks:
    """A few threads that look at processes.  Threading: any thread may ask."""

    def __init__(self, places: int = _PLACES) -> None:
        self._free = threading.Semaphore(places)
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[_Look[object]] = SimpleQueue()
        self._idle = 0
        self._stuck: set[Hashable] = set()

    def ask(
        self, about: Hashable, work: Callable[[], Answer], seconds: float = DEADLINE
    ) -> Answer | Unknown:
        """The return value of `work`, which looks at the process `about`; UNKNOWN after `seconds`.

        A look that is stuck keeps its thread until the kernel answers it.  Until then every
        other look at the same process is UNKNOWN at once, so that one process takes at most one
        thread.
        """
        if about in self._stuck:
            return UNKNOWN
        give_up_at = time.monotonic() + seconds
        if not self._free.acquire(timeout=max(0.0, seconds)):
            return UNKNOWN
        look = _Look(about, work)
        self._start(look)
        try:
            return look.answer.get(timeout=max(0.0, give_up_at - time.monotonic()))
        except Empty:
            return self._give_up(look)

    def _start(self, look: _Look[Answer]) -> None:
        with self._lock:
            self._waiting.put(look)  # type: ignore[arg-type]  # each answer goes to its own asker
            if self._idle > 0:
                self._idle -= 1
                return
        # A daemon thread: if it is stuck, the mount's process must be able to end all the same.
        threading.Thread(target=self._run, name="look", daemon=True).start()

    def _give_up(self, look: _Look[Answer]) -> Answer | Unknown:
        with self._lock:
            if look.answer.empty():
                self._stuck.add(look.about)
                return UNKNOWN
        return look.answer.get()

    def _run(self) -> None:
        while True:
            look = self._waiting.get()
            answer: object = UNKNOWN
            try:
                answer = look.work()
            except Exception:
                log.exception("a look at process %s failed unexpectedly", look.about)
            with self._lock:
                look.answer.put(answer)
                self._stuck.discard(look.about)
                self._idle += 1
            self._free.release()
