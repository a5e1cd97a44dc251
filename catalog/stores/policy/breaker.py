"""A store that is down is left alone for a while: it costs one time-out, not one for each read.

A request that failed in all its attempts opens the circuit, unless the store's own check then
succeeds: one broken object is not a broken store.  After a pause one request tries the store,
behind a check if the store has one.  Until that has succeeded all others fail at once.

A store that refuses even its check is left alone, too, so that a wrong password does not lock
its account.  But the pause does not grow then: whoever has corrected the settings need not wait
long.  An EXTERNAL store stands for many servers: each host has a circuit of its own, and a
refusal does not open it.  Threading: any; one lock guards the circuits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from catalog.errors import CatalogError, DataChanged, StoreRefused, StoreUnavailable
from catalog.stores.base import Capability, Store
from catalog.stores.policy.guard import GuardedStore, Operation, Request, Result

_LONGEST = 16
"""The longest pause, as a multiple of the first one."""


class Circuit(StrEnum):
    """Whether a server is asked."""

    CLOSED = "closed"
    """It answers, as far as is known."""
    OPEN = "open"
    """It does not answer, and is left alone."""
    HALF_OPEN = "half-open"
    """It did not answer, and the next request tries it."""


@dataclass(slots=True)
class _Break:
    """A circuit that is not closed."""

    reason: str
    pause: float
    until: float
    is_tried: bool = False
    """A request is trying the server; all others fail until its result is known."""


class Breaker:
    """A guard that lets requests fail at once that would only wait for a time-out."""

    def __init__(
        self,
        store: Store,
        pause: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`store` is asked by its `check`; `pause` in seconds."""
        self._store = store
        self._is_one_server = Capability.EXTERNAL not in store.capabilities
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._breaks: dict[str, _Break] = {}

    def circuit(self, url: str) -> Circuit:
        """The state of the server that has `url`."""
        with self._lock:
            found = self._breaks.get(self._server(url))
            if found is None:
                return Circuit.CLOSED
            waits = found.is_tried or self._clock() < found.until
            return Circuit.OPEN if waits else Circuit.HALF_OPEN

    def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Make the request, or raise StoreUnavailable at once while the circuit is open."""
        server = self._server(request.subject)
        if request.operation is not Operation.CHECK:
            self._let_through(server)
        try:
            result = work()
        except DataChanged:
            self._close(server)
            raise
        except StoreUnavailable as error:
            if isinstance(error, StoreRefused) and not self._is_one_server:
                # The server answers: it only refuses this url.
                self._close(server)
            else:
                self._failed(server, request, error)
            raise
        except CatalogError:
            self._close(server)
            raise
        except BaseException:
            self._give_back(server)
            raise
        self._close(server)
        return result

    def _server(self, subject: str) -> str:
        if self._is_one_server:
            return ""
        try:
            return urlsplit(subject).netloc
        except ValueError:
            return ""

    def _let_through(self, server: str) -> None:
        """Raise StoreUnavailable unless the request may be made now."""
        with self._lock:
            found = self._breaks.get(server)
            if found is None:
                return
            wait = found.until - self._clock()
            if wait > 0 or found.is_tried:
                raise StoreUnavailable(
                    self._store.name, f"{found.reason} (it is asked again in {max(wait, 0):.0f} s)"
                )
            found.is_tried = True
        # Outside the lock, as a check may wait for its time-out.  `is_tried` keeps others out.
        if self._is_one_server:
            try:
                self._store.check()
            except StoreUnavailable as error:
                self._open(server, error)
                raise

    def _failed(self, server: str, request: Request, error: StoreUnavailable) -> None:
        with self._lock:
            found = self._breaks.get(server)
            if found is not None and not found.is_tried:
                return  # Another request has opened the circuit meanwhile.
        if self._is_one_server and request.operation is not Operation.CHECK:
            try:
                self._store.check()
            except StoreUnavailable as check:
                error = check
            else:
                self._close(server)
                return
        self._open(server, error)

    def _open(self, server: str, error: StoreUnavailable) -> None:
        with self._lock:
            found = self._breaks.get(server)
            pause = self._pause
            if found is not None and not isinstance(error, StoreRefused):
                pause = min(found.pause * 2, self._pause * _LONGEST)
            self._breaks[server] = _Break(str(error), pause, self._clock() + pause)

    def _give_back(self, server: str) -> None:
        """Let another request try the server: this one ended without a result."""
        with self._lock:
            if server in self._breaks:
                self._breaks[server].is_tried = False

    def _close(self, server: str) -> None:
        with self._lock:
            self._breaks.pop(server, None)


class BreakerStore(GuardedStore):
    """A store that fails at once while it is known to be down."""

    def __init__(self, store: Store, breaker: Breaker) -> None:
        super().__init__(store, breaker)
        self._breaker = breaker

    def is_down(self, url: str) -> bool:
        """Whether the server that has `url` is left alone now."""
        return self._breaker.circuit(url) is Circuit.OPEN

    def circuit(self, url: str) -> Circuit:
        """Whether the server that has `url` is asked now."""
        return self._breaker.circuit(url)
