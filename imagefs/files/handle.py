"""One open file: who opened it, for what, and whether its written bytes were lost."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from catalog.model.access import Principal
from catalog.stores.base import DataReader
from imagefs.files.preallocation import Preallocation
from imagefs.processes.holders import Trail
from imagefs.processes.writers import Writer


@dataclass(slots=True, eq=False)
class Handle:
    """One open file."""

    image: int
    image_id: str
    """What people call the image, for the log."""
    trail: Trail
    principal: Principal
    flags: int
    """The flags of open(2)."""
    stores: str
    """The stores that have its data, or will have it: `threads` has a limit for each."""
    thread: int = 0
    """The kernel's number of the thread that opened it."""
    lost: Exception | None = None
    """Why written bytes are missing in the upload; None if none are missing."""
    late: bool = False
    """Whether it was written to after the commit: then a process has the file that is not seen,
    and only RELEASE may commit."""
    preallocation: Preallocation = field(default_factory=Preallocation)
    reader: DataReader | None = None
    fd: int | None = None
    """The descriptor of `reader`, if the data is a local file."""

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
        """The owner of the turn to write: the same for all files that a process has open."""
        opener = self.opener
        return (opener.pid, opener.started) if opener.pid else self
