"""Limits how many bytes a second go to and come from one store.

Threading: any; requests of several threads pass in the order in which they came.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from catalog.stores.base import Check, DataWriter, Store
from catalog.stores.os_errors import os_errors
from catalog.stores.policy.guard import GuardedStore, Operation, Request, Result

_BLOCK = 1 << 20
_BURST = 0.25
"""After a pause, as many bytes may go at once as the rate allows in this many seconds."""


class Bucket:
    """A token bucket that may be overdrawn.

    A thread that overdraws it waits, and so do all later ones.  So a block larger than the bucket
    passes, too, and no later block overtakes it.
    """

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`rate` in bytes a second."""
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid_until = clock() - _BURST
        """The time at which the rate has allowed for all bytes that have passed so far."""

    def take(self, size: int) -> None:
        """Wait until `size` bytes may go."""
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - _BURST) + size / self._rate
            wait = self._paid_until - now
        # Outside the lock: others reserve their bytes meanwhile, and wait for the same clock.
        if wait > 0:
            self._sleep(wait)


class Bandwidth:
    """A guard that delays requests with data."""

    def __init__(self, read: Bucket | None, write: Bucket | None) -> None:
        """None for no limit in that direction."""
        self._buckets = {Operation.READ: read, Operation.WRITE: write}

    def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Wait until the request's bytes may go, then make it."""
        bucket = self._buckets.get(request.operation)
        if bucket is not None:
            bucket.take(request.size)
        return work()


class BandwidthStore(GuardedStore):
    """A store with a limited rate."""

    def __init__(self, store: Store, bandwidth: Bandwidth) -> None:
        super().__init__(store, bandwidth)

    def writer(self, key: str, size: int | None = None) -> DataWriter:
        return _BlockWriter(super().writer(key, size))


class _BlockWriter:
    """Passes a staged file on in blocks; a driver itself would send it as fast as it can."""

    def __init__(self, writer: DataWriter) -> None:
        self._writer = writer
        self._sent = 0
        """Bytes of the staged file that were passed on."""
        self.write = writer.write
        self.commit = writer.commit
        self.cancel = writer.cancel

    def send(self, staged: Path, ready: int, check: Check) -> int:
        # One block for each call: on a slow line a longer call would keep others waiting.
        check()
        with os_errors(str(staged)), staged.open("rb", buffering=0) as file:
            block = os.pread(file.fileno(), min(_BLOCK, ready - self._sent), self._sent)
        self._writer.write(block)
        self._sent += len(block)
        return self._sent

    def take(self, staged: Path) -> None:
        with os_errors(str(staged)), staged.open("rb", buffering=0) as file:
            file.seek(self._sent)
            while block := file.read(_BLOCK):
                self._writer.write(block)
