"""Counts the requests to a store, their results and their time.

Threading: any; one lock guards the counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from catalog.stores.policy.guard import Operation, Request, Result

Clock = Callable[[], float]
"""Seconds since some moment; it never goes backwards."""


@dataclass(frozen=True, slots=True)
class Count:
    """The requests of one operation so far."""

    requests: int = 0
    errors: int = 0
    bytes: int = 0
    """Of data, in the requests that succeeded."""
    seconds: float = 0
    """Of all requests together."""
    slowest: float = 0
    """Seconds of the longest request."""


class Metrics:
    """A guard that only counts."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[Operation, Count] = {}

    def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Make the request and count it, whether it succeeds or not."""
        begun = self._clock()
        done = False
        try:
            result = work()
            done = True
            return result
        finally:
            self._add(request, self._clock() - begun, done=done)

    def counts(self) -> Mapping[Operation, Count]:
        """The counts at this moment."""
        with self._lock:
            return dict(self._counts)

    def _add(self, request: Request, seconds: float, *, done: bool) -> None:
        with self._lock:
            so_far = self._counts.get(request.operation, Count())
            self._counts[request.operation] = replace(
                so_far,
                requests=so_far.requests + 1,
                errors=so_far.errors + (not done),
                bytes=so_far.bytes + (request.size if done else 0),
                seconds=so_far.seconds + seconds,
                slowest=max(so_far.slowest, seconds),
            )
