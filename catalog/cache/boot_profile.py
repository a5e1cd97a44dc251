"""The boot profile: which chunks a first boot reads, and in which order.

A profile is recorded when an image without one is read, and is kept with the image as a property.
When the image is read on another host, the chunks of the profile that are not cached there are
fetched in that order.  Only reads that look like a boot are recorded and followed: not a copy from
end to end, nor a look at the first bytes.  Threading: any; one lock guards a recording.  A timer
ends it, as a guest that has booted may read nothing more for days.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from threading import Timer

LIMIT = 256
"""Chunks in a profile: 1 GiB."""
DURATION = 60.0
"""Seconds that are recorded, beginning with the first read."""

_FEWEST = 4
_NEAR = 4
"""Chunks.  Reads in order may jump that far, as the kernel reads ahead."""
_TEXT = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*")


@dataclass(frozen=True, slots=True)
class BootProfile:
    """An image's boot profile, and how to save one."""

    text: str
    """The return value of `encode`; if it is empty, a profile is recorded."""
    save: Callable[[str], None]


def encode(order: list[int]) -> str:
    """Chunks in the order in which they were read: `0,17-19,3`."""
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in _runs(order))


def decode(text: str, count: int) -> list[range]:
    """The runs of chunks in a profile of an image with `count` chunks; none if it is no profile.

    Anybody may set a property, so chunks beyond `count` and `LIMIT` are left out.
    """
    if not _TEXT.fullmatch(text):
        return []
    runs, room = [], LIMIT
    for part in text.split(","):
        first, _, last = part.partition("-")
        run = range(int(first), min(int(last or first) + 1, count))[:room]
        if run:
            runs.append(run)
            room -= len(run)
    return runs


class Recorder:
    """Records the reads of one image from the first on, and saves them if they are a boot."""

    def __init__(self, count: int, save: Callable[[str], None], timer: type[Timer] = Timer) -> None:
        """`count` is the number of chunks of the image."""
        self._count = count
        self._save = save
        self._lock = threading.Lock()
        self._order: dict[int, None] = {}
        self._timer = timer(DURATION, self.finish)
        self._timer.daemon = True
        self._is_done = False

    def note(self, index: int) -> None:
        """Note that a chunk is read; does nothing after the recording has ended."""
        if index in self._order:
            return
        with self._lock:
            if self._is_done:
                return
            if not self._order:
                self._timer.start()
            self._order[index] = None
            is_over = len(self._order) >= LIMIT
        if is_over:
            self.finish()

    def finish(self) -> None:
        """End the recording, and save it if it looks like a boot.  Idempotent."""
        with self._lock:
            if self._is_done:
                return
            self._is_done = True
            self._timer.cancel()
            order = list(self._order)
        if _is_boot(order, self._count):
            self._save(encode(order))


class Follower:
    """Decides when to fetch the chunks of an earlier boot of one image."""

    def __init__(self, runs: list[range]) -> None:
        """`runs` are the chunks of the earlier boot, in its order."""
        self._lock = threading.Lock()
        self._runs = runs
        self._first: int | None = None

    def note(self, index: int) -> list[range]:
        """Note that a chunk is read; return what to fetch: at the second chunk all, once.

        A single chunk is also read by who only looks at the format or sends one range.
        """
        if not self._runs:
            return []
        with self._lock:
            if self._first is None:
                self._first = index
            if index == self._first:
                return []
            runs, self._runs = self._runs, []
            return runs


def _is_boot(order: list[int], count: int) -> bool:
    """Whether the reads jump, and are not most of the image in order."""
    if len(order) <= count // 2:
        return len(order) >= _FEWEST and len(_runs(order)) > 1
    # The boot of a small image reads nearly all of it, so only the jumps decide.
    jumps = sum(abs(after - before) > _NEAR for before, after in pairwise(order))
    return jumps >= max(_FEWEST, len(order) // 4)


def _runs(order: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for index in order:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
