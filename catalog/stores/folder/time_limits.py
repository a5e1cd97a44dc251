"""Time limits for calls into a file system that may never return.

Scope: threads and time; it does not know what it calls.  Safe from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

from catalog.errors import CatalogError, StoreUnavailable

THREADS = 16
"""Calls at one time, and so the greatest number of threads that can hang."""

_SLOWEST = 4 << 20
"""Bytes a second.  A call that moves data gets the time for its size at this rate, in addition
to the time-out."""

Result = TypeVar("Result")


class TimeLimits:
    """Makes each call in a thread of its own, and abandons it when it takes too long.

    No way exists to interrupt such a call: the thread stays in the kernel until the server is
    back (docs/facts.md#files-and-disks).
    """

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
        on_abandon: Callable[[], object] = lambda: None,
        on_late_result: Callable[[Result | None], object] = lambda _result: None,
    ) -> Result:
        """Do `work`, with additional time to move `size` bytes, and return its result.

        Raises what `work` raises.  If it takes too long, calls `on_abandon` and raises
        StoreUnavailable; when the abandoned call ends, its own thread calls `on_late_result`
        with the result, or with None if it failed.
        """
        if self._hanging >= self._threads or not self._places.acquire(timeout=self._seconds):
            raise StoreUnavailable(self._name, f"{self._hanging} calls hang in its folder")

        def leave() -> None:
            on_abandon()
            with self._lock:
                self._hanging += 1

        call = _Call(work, leave, on_late_result, self._ended)
        threading.Thread(target=call.run, name=f"{self._name}-io", daemon=True).start()
        seconds = self._seconds + size / _SLOWEST
        if call.done.wait(seconds) or not call.give_up():
            return call.result()
        raise StoreUnavailable(self._name, f"its folder does not answer within {seconds:.3g} s")

    def later(self, work: Callable[[], object]) -> None:
        """Do `work` in the background, one after the other; nobody waits for it."""
        with self._lock:
            if self._unwanted is None:
                self._unwanted = SimpleQueue()
                arguments = (self._unwanted,)
                name = f"{self._name}-close"
                threading.Thread(target=_clear, args=arguments, name=name, daemon=True).start()
            self._unwanted.put(work)

    def close(self) -> None:
        """Let the thread of `later` end when it has done all it was given."""
        with self._lock:
            if self._unwanted is not None:
                self._unwanted.put(_stop)
                self._unwanted = None

    def _ended(self, was_hanging: bool) -> None:
        with self._lock:
            self._hanging -= was_hanging
        self._places.release()


class _Call(Generic[Result]):
    """One call, which its caller may abandon before it ends."""

    def __init__(
        self,
        work: Callable[[], Result],
        on_abandon: Callable[[], object],
        on_late_result: Callable[[Result | None], object],
        ended: Callable[[bool], None],
    ) -> None:
        self._work = work
        self._on_abandon = on_abandon
        self._on_late_result = on_late_result
        self._ended = ended
        self._lock = threading.Lock()
        self._given_up = False
        self._results: list[Result] = []
        self._failure: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Do the work; its result or its error is kept for the caller.  Raises nothing."""
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001  raised again by `result`
            self._failure = error
        with self._lock:
            self.done.set()
        if self._given_up:
            # No caller waits any more, so that an error could reach nobody.
            with suppress(OSError, CatalogError):
                self._on_late_result(self._results[0] if self._results else None)
        self._ended(self._given_up)

    def give_up(self) -> bool:
        """Abandon the call; False if it has ended at the last moment."""
        with self._lock:
            if self.done.is_set():
                return False
            self._given_up = True
            self._on_abandon()
            return True

    def result(self) -> Result:
        """What the work returned; raises what it raised."""
        if self._failure is not None:
            raise self._failure
        return self._results[0]


def _clear(unwanted: SimpleQueue[Callable[[], object]]) -> None:
    while (work := unwanted.get()) is not _stop:
        with suppress(OSError, CatalogError):
            work()


def _stop() -> None:
    """The last entry of the queue: it ends `_clear`."""
