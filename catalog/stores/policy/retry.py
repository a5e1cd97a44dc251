"""Requests that failed are made again, where that is safe.

Only failures that may pass are tried again: StoreUnavailable, but not DataChanged.  And only
requests that may be made twice: reads, each of which is one range, and writes that replace or
remove in one step.  A staged file can be sent again from its beginning; blocks that were written
one by one cannot.  Waits grow exponentially with full jitter, so that requests that failed
together do not come back together.  Threading: any; a retry waits in its caller's thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import DataChanged, StoreBusy, StoreRefused, StoreUnavailable
from catalog.stores.base import Check, DataWriter, Store
from catalog.stores.policy.guard import GuardedStore, Operation, Request, Result

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 10.0

_SAFE = frozenset(
    {
        Operation.OPEN,
        Operation.STAT,
        Operation.READ,
        Operation.WRITER,
        Operation.DELETE,
        Operation.COPY,
        Operation.USAGE,
    }
)
"""CHECK is not among them: it asks whether the store answers now."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The sources of time and chance; tests have their own."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    """In [0, 1)."""


class Retry:
    """A guard that makes a failed request again."""

    def __init__(self, attempts: int, deadline: float, timing: Timing | None = None) -> None:
        """A request is made up to `attempts` times, and not again after `deadline` seconds.

        A second attempt is made in any case, if `attempts` allows one.
        """
        self._attempts = attempts
        self._deadline = deadline
        self._timing = timing or Timing()

    def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Make the request until it succeeds or its time is over; raises its last failure."""
        if request.operation not in _SAFE:
            return work()
        return self.repeat(work)

    def repeat(self, work: Callable[[], Result]) -> Result:
        """Do `work` again until it succeeds; the caller knows that this is safe."""
        begun = self._timing.clock()
        attempt = 0
        while True:
            try:
                return work()
            except StoreUnavailable as error:
                attempt += 1
                wait = self._wait(error, attempt)
                if not self._is_worth_it(error, attempt, begun, wait):
                    raise
            self._timing.sleep(wait)

    def _wait(self, error: StoreUnavailable, attempt: int) -> float:
        wait = self._timing.chance() * min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt)
        if isinstance(error, StoreBusy) and error.retry_after is not None:
            wait += error.retry_after
        return wait

    def _is_worth_it(
        self, error: StoreUnavailable, attempt: int, begun: float, wait: float
    ) -> bool:
        # A refusal usually lasts, so there is only one more attempt.  That one is worth it: a
        # server may refuse in a bad moment, and a guest would see an error of its disk.
        attempts = min(2, self._attempts) if isinstance(error, StoreRefused) else self._attempts
        if isinstance(error, DataChanged) or attempt >= attempts or wait > self._deadline:
            return False
        return attempt == 1 or self._timing.clock() - begun + wait <= self._deadline


class RetryStore(GuardedStore):
    """A store whose failed requests are made again."""

    def __init__(self, store: Store, retry: Retry) -> None:
        super().__init__(store, retry)
        self._retry = retry

    def writer(self, key: str, size: int | None = None) -> DataWriter:
        def begin() -> DataWriter:
            return GuardedStore.writer(self, key, size)

        return _RestartingWriter(begin, self._retry)


class _RestartingWriter:
    """Sends a staged file again from its beginning when `take` or `commit` has failed."""

    def __init__(self, begin: Callable[[], DataWriter], retry: Retry) -> None:
        self._begin = begin
        self._retry = retry
        self._writer = begin()
        self._staged: Path | None = None
        self._is_broken = False

    def write(self, data: bytes | memoryview) -> None:
        self._writer.write(data)

    def send(self, staged: Path, ready: int, check: Check) -> int:
        return self._writer.send(staged, ready, check)

    def take(self, staged: Path) -> None:
        self._retry.repeat(lambda: self._take(staged))
        self._staged = staged

    def commit(self) -> str:
        if self._staged is None:
            return self._writer.commit()
        staged = self._staged
        return self._retry.repeat(lambda: self._commit(staged))

    def cancel(self) -> None:
        self._writer.cancel()

    def _take(self, staged: Path) -> None:
        if self._is_broken:
            self._writer.cancel()
            self._writer = self._begin()
            self._is_broken = False
        try:
            self._writer.take(staged)
        except StoreUnavailable:
            self._is_broken = True
            raise

    def _commit(self, staged: Path) -> str:
        # Without the staged file an earlier attempt has moved it: its commit is only repeated.
        if self._is_broken and staged.exists():
            self._take(staged)
        try:
            return self._writer.commit()
        except StoreUnavailable:
            self._is_broken = True
            raise
