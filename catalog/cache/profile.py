"""The boot profile: which chunks a first boot reads, in which order.

Users: `image`, `cache`.  It is recorded when an image that has none is read, kept with the
image as a property, and what of it is not cached yet is fetched in that order when a host
opens the image.  Only what looks like a boot is kept: not a copy from end to end, nor a
glance at the first bytes.  Threading: any; one lock guards a recording.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LIMIT = 256
"""Chunks in a profile: 1 GiB."""
DURATION = 60.0
"""Seconds that are recorded, from the first read."""

_FEWEST = 4
_TEXT = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*")


@dataclass(frozen=True, slots=True)
class BootProfile:
    """What is known of an image's boots, and where that is kept."""

    text: str
    """As `encode` writes it; empty for none, then one is recorded."""
    save: Callable[[str], None]


def encode(order: list[int]) -> str:
    """Chunks in the order they were read: `0,17-19,3`."""
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in _runs(order))


def decode(text: str, count: int) -> list[range]:
    """The runs of chunks of an image with `count` of them; none if the text is no profile.

    A property may have been set by anybody: what is too much is left out.
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
    """Records one image from its first read on, and saves what turns out to be a boot."""

    def __init__(
        self, count: int, save: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`count` is how many chunks the image has."""
        self._count = count
        self._save = save
        self._clock = clock
        self._lock = threading.Lock()
        self._order: dict[int, None] = {}
        self._end: float | None = None
        self._is_done = False

    def note(self, index: int) -> None:
        """Note that a chunk is read; does nothing when the recording has ended."""
        if self._is_done or index in self._order:
            return
        with self._lock:
            now = self._clock()
            self._end = now + DURATION if self._end is None else self._end
            if now < self._end:
                self._order[index] = None
            is_over = now >= self._end or len(self._order) >= LIMIT
        if is_over:
            self.finish()

    def finish(self) -> None:
        """End the recording, and save it if it is a boot's.  Idempotent."""
        with self._lock:
            if self._is_done:
                return
            self._is_done = True
            order = list(self._order)
        if len(_runs(order)) > 1 and _FEWEST <= len(order) <= self._count // 2:
            self._save(encode(order))


def _runs(order: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for index in order:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
