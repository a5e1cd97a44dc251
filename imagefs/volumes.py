"""Blank disks that one process makes and another fills: until when that may be."""

from __future__ import annotations

import os
import threading
import time

_FILLED_WITHIN = 3600.0
"""Seconds in which a disk that was made without data may be filled."""


class Volumes:
    """The blank disks of one mount.  Threading: any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[int, float] = {}

    def __contains__(self, image: int) -> bool:
        return time.monotonic() < self._until.get(image, 0.0)

    def note(self, image: int, disk_format: str | None, flags: int, *, blank: bool) -> None:
        """An image was committed by who opened it with `flags`.

        A blank one was made in place, to be filled, if its maker reads it as well.  Who copies
        a blank disk only writes, and all of it; of a raw one there is nothing to write.
        """
        in_place = flags & os.O_ACCMODE == os.O_RDWR or disk_format == "raw"
        with self._lock:
            self._until.pop(image, None)
            if blank and in_place:
                self._until[image] = time.monotonic() + _FILLED_WITHIN

    def forget_old(self) -> None:
        """Drop what was not filled in time."""
        with self._lock:
            self._until = {n: until for n, until in self._until.items() if n in self}
