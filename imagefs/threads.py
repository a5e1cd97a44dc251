"""Runs blocking work in threads; the only place where work leaves the trio loop.

Each kind of work has a limit of its own.  Work that waits for a store has a limit for each store.
So a store that hangs takes only its own threads: names still resolve, and data of other stores is
still read and written.  If a task is cancelled its work in a thread still goes on to its end, so
that a write that has begun is not left half done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, TypeVarTuple

import trio

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_LIMITS: Mapping[str, int] = {
    # SQL: short.  More threads would only wait for the interpreter's lock.
    "names": 8,
    # The default store is asked, which may be a remote one.
    "room": 2,
    "opens": 32,
    "reads": 32,
    "writes": 16,
    # Digests, fsync and transfers at close, copies between stores: long.
    "commits": 64,
    # For a database's word that something has changed.
    "news": 1,
    # A notification may wait in the kernel for a lock, and blocks only its own thread here.
    "notices": 1,
}


class Threads:
    """Threads for blocking work, limited by its kind and, if it waits for a store, by the store.

    `stores` are the names of the image's stores, as one text; empty for work without a store.
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
        """Run work on names and attributes, which asks only the database."""
        return await self._run("names", "", work, *arguments)

    async def news(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Wait for a change in the catalog.  It is left behind when the mount ends."""
        limit = self._limits.setdefault(("news", ""), trio.CapacityLimiter(_LIMITS["news"]))
        return await trio.to_thread.run_sync(
            work, *arguments, limiter=limit, abandon_on_cancel=True
        )

    async def room(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Find out the free room, which may ask a store."""
        return await self._run("room", "", work, *arguments)

    async def opens(
        self, stores: str, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Open an image, which may ask a store."""
        return await self._run("opens", stores, work, *arguments)

    async def reads(
        self, stores: str, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Read data of a store."""
        return await self._run("reads", stores, work, *arguments)

    async def writes(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Write to a staging file."""
        return await self._run("writes", "", work, *arguments)

    async def commits(
        self, stores: str, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Run work whose time grows with an image's size."""
        return await self._run("commits", stores, work, *arguments)

    async def notices(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Tell the kernel to drop something that it has cached."""
        return await self._run("notices", "", work, *arguments)
