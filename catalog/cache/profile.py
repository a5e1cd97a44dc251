"""The boot profile: which chunks a first boot reads, in which order.

It is recorded when an image that has none is read, kept with the image as a property, and what
of it is not cached yet is fetched in that order when the image is read on another host.  Only
what looks like a boot is kept, and followed: not a copy from end to end, nor a glance at the
first bytes.  Threading: any; one lock guards a recording, and a timer ends it, as a guest that
has booted may read nothing more for days.
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
"""Seconds that are recorded, from the first read."""

_FEWEST = 4
_NEAR = 4
"""Chunks by which reads in order may come out of it: the kernel reads ahead."""
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

    def __init__(self, count: int, save: Callable[[str], None], timer: type[Timer] = Timer) -> None:
        """`count` is how many chunks the image has."""
        self._count = count
        self._save = save
        self._lock = threading.Lock()
        self._order: dict[int, None] = {}
        self._timer = timer(DURATION, self.finish)
        self._timer.daemon = True
        self._is_done = False

    def note(self, index: int) -> None:
        """Note that a chunk is read; does nothing when the recording has ended."""
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
        """End the recording, and save it if it is a boot's.  Idempotent."""
        with self._lock:
            if self._is_done:
                return
            self._is_done = True
            self._timer.cancel()
            order = list(self._order)
        if _is_boot(order, self._count):
            self._save(encode(order))


class Follower:
    """Tells when a reader of one image goes the way of an earlier boot."""

    def __init__(self, runs: list[range]) -> None:
        """`runs` are the chunks of that boot, in its order."""
        self._lock = threading.Lock()
        self._runs = runs
        self._first: int | None = None

    def note(self, index: int) -> list[range]:
        """Note that a chunk is read; return what to fetch now: all, once, at the second chunk.

        Whoever looks at the format, or sends a part of it over a network, reads one.
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
    """Whether somebody has read here and there, and not most of it in order."""
    if len(order) <= count // 2:
        return len(order) >= _FEWEST and len(_runs(order)) > 1
    # A small image is read nearly all by its boot, too.
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
