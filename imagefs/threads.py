"""The one place that leaves the trio loop for a thread.

Each kind of work has its own limit, and what waits for a store has one for each store, so
that a store that hangs takes only its own threads: names still resolve, and the data of
other stores is read and written.  Nothing is abandoned when a task is cancelled: a write
that has begun ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, TypeVarTuple

import trio

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_LIMITS: Mapping[str, int] = {
    # SQL: short, and bound by the interpreter's lock anyway.
    "names": 8,
    # The default store is asked, which may be a remote one.
    "room": 2,
    "opens": 32,
    "reads": 32,
    "writes": 16,
    # Digests, fsync and transfers at close, copies between stores: long.
    "commits": 64,
    # The kernel may make a notification wait for a lock: one at a time is enough.
    "notices": 1,
}


class Threads:
    """Threads for blocking work, limited by its kind and, where it waits for one, its store.

    `stores` is whatever names the stores of an image, one or several; empty for none.
    """

    def __init__(self) -> None:
        self._limits: dict[tuple[str, str], trio.CapacityLimiter] = {}

    async def _run(
        self,
        kind: str,
        stores: str,
        work: Callable[[*Arguments], Result],
        *arguments: *Arguments,
    ) -> Result:
        limit = self._limits.get((kind, stores))
        if limit is None:
            limit = self._limits[kind, stores] = trio.CapacityLimiter(_LIMITS[kind])
        return await trio.to_thread.run_sync(work, *arguments, limiter=limit)

    async def names(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Metadata: what answers from the database."""
        return await self._run("names", "", work, *arguments)

    async def room(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """How much room there is."""
        return await self._run("room", "", work, *arguments)

    async def opens(
        self, stores: str, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Opening an image, which may ask a store."""
        return await self._run("opens", stores, work, *arguments)

    async def reads(
        self, stores: str, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Reading data of a store."""
        return await self._run("reads", stores, work, *arguments)

    async def writes(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Writing to staging."""
        return await self._run("writes", "", work, *arguments)

    async def commits(
        self, stores: str, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Everything whose time grows with an image's size."""
        return await self._run("commits", stores, work, *arguments)

    async def notices(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Telling the kernel that something it has cached is no longer so."""
        return await self._run("notices", "", work, *arguments)
