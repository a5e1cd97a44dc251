"""The one place that leaves the trio loop for a thread.

Each kind of work has its own limit, so that a store that hangs takes only its own
threads: names still resolve, and other reads go on.  Nothing is abandoned when a task
is cancelled: a write that has begun ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Threads:
    """Threads for blocking work, limited by its kind."""

    def __init__(self) -> None:
        self._limits = {
            # SQL: short, and bound by the interpreter's lock anyway.
            "names": trio.CapacityLimiter(8),
            "reads": trio.CapacityLimiter(32),
            "writes": trio.CapacityLimiter(16),
            # Digests, fsync and transfers at close, copies between stores: long.
            "commits": trio.CapacityLimiter(64),
            # The kernel may make a notification wait for a lock: one at a time is enough.
            "notices": trio.CapacityLimiter(1),
        }

    async def _run(
        self, kind: str, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._limits[kind])

    async def names(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Metadata: what answers from the database."""
        return await self._run("names", work, *arguments)

    async def reads(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Reading data of a store."""
        return await self._run("reads", work, *arguments)

    async def writes(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Writing to staging."""
        return await self._run("writes", work, *arguments)

    async def commits(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Everything whose time grows with an image's size."""
        return await self._run("commits", work, *arguments)

    async def notices(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Telling the kernel that something it has cached is no longer so."""
        return await self._run("notices", work, *arguments)
