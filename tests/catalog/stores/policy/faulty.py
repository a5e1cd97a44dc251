"""A store that fails as it is told, and a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable

from catalog.errors import CatalogError
from catalog.stores.base import Capability
from catalog.stores.memory import MemoryStore, MemoryStoreSettings
from catalog.stores.policy.guard import GuardedStore, Operation, Request, Result
from catalog.stores.policy.retry import Timing

Fault = BaseException | None


class Faults:
    """A guard that counts requests, and raises what is planned for them."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.planned: dict[Operation, list[Fault]] = {}
        """Operation -> what its next requests come to; None for success."""
        self.always: dict[Operation, CatalogError] = {}
        """Operation -> what it comes to when nothing is planned."""
        self.during: Callable[[Request], None] = lambda request: None
        """Called while a request is made."""

    def run(self, request: Request, work: Callable[[], Result]) -> Result:
        self.seen.append(request)
        self.during(request)
        planned = self.planned.get(request.operation, [])
        fault = planned.pop(0) if planned else self.always.get(request.operation)
        if fault is not None:
            raise fault
        return work()

    def count(self, operation: Operation) -> int:
        """How often it was asked for."""
        return sum(request.operation is operation for request in self.seen)


class FaultyStore(GuardedStore):
    """A memory store behind faults."""

    def __init__(self, *, external: bool = False) -> None:
        self.faults = Faults()
        self.memory = MemoryStore("far", MemoryStoreSettings())
        super().__init__(self.memory, self.faults)
        if external:
            self.capabilities |= Capability.EXTERNAL


class Time:
    """A clock that moves when somebody sleeps, or when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.timing = Timing(lambda: self.now, self.sleep, lambda: 0.5)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds
