"""Blank disks that one process makes and another one fills, and until when it may do so.

The reasons are in docs/adr/0025-a-blank-volume-may-be-filled.md.
"""

from __future__ import annotations

import os
import threading
import time

_FILLED_WITHIN = 3600.0
"""Seconds for which a disk that was made without data may be filled."""


class Volumes:
    """The blank disks of one mount.  Threading: any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[int, float] = {}

    def __contains__(self, image: int) -> bool:
        return time.monotonic() < self._until.get(image, 0.0)

    def note(self, image: int, disk_format: str | None, flags: int, *, blank: bool) -> None:
        """Note that an image was committed by a process that opened it with `flags`.

        A blank image may be filled if it was made in place.  That is so if its maker has opened
        it to read, too, as qemu-img does.  A tool that copies a blank disk only writes.  A raw
        disk without data counts in any case, as there is nothing in it to copy.
        """
        in_place = flags & os.O_ACCMODE == os.O_RDWR or disk_format == "raw"
        with self._lock:
            self._until.pop(image, None)
            if blank and in_place:
                self._until[image] = time.monotonic() + _FILLED_WITHIN

    def forget_old(self) -> None:
        """Drop disks that were not filled in time."""
        with self._lock:
            self._until = {n: until for n, until in self._until.items() if n in self}
