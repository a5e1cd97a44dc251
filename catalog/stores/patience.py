"""Calls into a file system that may never return, made so that nobody waits for ever.

Scope: threads and time; what is called is not known here.  Safe from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

from catalog.errors import CatalogError, StoreUnavailable

THREADS = 16
"""Calls at once, and so threads that can hang."""

_SLOWEST = 4 << 20
"""Bytes a second: what moving data may take beyond the time-out."""

Result = TypeVar("Result")


class Patience:
    """Makes each call in a thread of its own, and leaves it behind when it takes too long."""

    def __init__(self, name: str, seconds: float, threads: int = THREADS) -> None:
        """`name` is the store's, for errors."""
        self._name = name
        self._seconds = seconds
        self._threads = threads
        self._places = threading.Semaphore(threads)
        self._lock = threading.Lock()
        self._hanging = 0
        self._unwanted: SimpleQueue[Callable[[], object]] | None = None

    def run(
        self,
        work: Callable[[], Result],
        size: int = 0,
        left: Callable[[], object] = lambda: None,
        late: Callable[[Result | None], object] = lambda _result: None,
    ) -> Result:
        """Do `work`, in time for `size` bytes to be moved, and return its result.

        Raises what it raises; StoreUnavailable if it takes too long.  Then `left` is
        called, and later, in the other thread, `late` with its result, None if it failed.
        """
        if self._hanging >= self._threads or not self._places.acquire(timeout=self._seconds):
            raise StoreUnavailable(self._name, f"{self._hanging} calls hang in its folder")

        def leave() -> None:
            left()
            with self._lock:
                self._hanging += 1

        call = _Call(work, leave, late, self._ended)
        threading.Thread(target=call.run, name=f"{self._name}-io", daemon=True).start()
        seconds = self._seconds + size / _SLOWEST
        if call.done.wait(seconds) or not call.give_up():
            return call.result()
        raise StoreUnavailable(self._name, f"its folder does not answer within {seconds:.3g} s")

    def later(self, work: Callable[[], object]) -> None:
        """Do `work` some time, in order, without anybody waiting for it."""
        with self._lock:
            if self._unwanted is None:
                self._unwanted = SimpleQueue()
                arguments = (self._unwanted,)
                name = f"{self._name}-close"
                threading.Thread(target=_clear, args=arguments, name=name, daemon=True).start()
            self._unwanted.put(work)

    def close(self) -> None:
        """Let the thread of `later` end after what it has."""
        with self._lock:
            if self._unwanted is not None:
                self._unwanted.put(_stop)
                self._unwanted = None

    def _ended(self, was_hanging: bool) -> None:
        with self._lock:
            self._hanging -= was_hanging
        self._places.release()


class _Call(Generic[Result]):
    """One call, which its caller may give up before it ends."""

    def __init__(
        self,
        work: Callable[[], Result],
        left: Callable[[], object],
        late: Callable[[Result | None], object],
        ended: Callable[[bool], None],
    ) -> None:
        self._work = work
        self._left = left
        self._late = late
        self._ended = ended
        self._lock = threading.Lock()
        self._given_up = False
        self._results: list[Result] = []
        self._failure: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Do the work.  Raises nothing."""
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001  raised again by `result`
            self._failure = error
        with self._lock:
            self.done.set()
        if self._given_up:
            # Nobody is left to tell.
            with suppress(OSError, CatalogError):
                self._late(self._results[0] if self._results else None)
        self._ended(self._given_up)

    def give_up(self) -> bool:
        """Leave it behind; False if it has ended in the last moment."""
        with self._lock:
            if self.done.is_set():
                return False
            self._given_up = True
            self._left()
            return True

    def result(self) -> Result:
        """What it returned; raises what it raised."""
        if self._failure is not None:
            raise self._failure
        return self._results[0]


def _clear(unwanted: SimpleQueue[Callable[[], object]]) -> None:
    while (work := unwanted.get()) is not _stop:
        with suppress(OSError, CatalogError):
            work()


def _stop() -> None:
    """What ends `_clear`."""
