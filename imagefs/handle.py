"""One open file: who opened it, for what, and what became of what was written to it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from catalog.model.access import Principal
from catalog.stores.base import DataReader
from imagefs.holders import Trail
from imagefs.preallocation import Preallocation
from imagefs.writers import Writer


@dataclass(slots=True, eq=False)
class Handle:
    """One open file."""

    image: int
    trail: Trail
    principal: Principal
    flags: int
    """Of open(2)."""
    stores: str
    """Where its data is, or will be: who waits for these waits for no other (`threads`)."""
    thread: int = 0
    """Which opened it, as the kernel counts threads."""
    lost: Exception | None = None
    """Why bytes that were written to it are in no upload."""
    late: bool = False
    """Whether something was written to it after the commit: somebody has it who is not seen."""
    preallocation: Preallocation = field(default_factory=Preallocation)
    reader: DataReader | None = None
    fd: int | None = None
    """Of `reader`, where the data is a local file."""

    @property
    def opener(self) -> Writer:
        """The process that opened it."""
        return self.trail.opener

    @property
    def writable(self) -> bool:
        """Whether it is open to write."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def writer(self) -> object:
        """Whose turn it is to write: one for all the files a process has open."""
        opener = self.opener
        return (opener.pid, opener.started) if opener.pid else self
