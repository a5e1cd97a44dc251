"""Which chunks one reader will probably need next.

The window grows with the bytes that were read in order, so that little is fetched in vain for a
reader that stops.  It closes when the reader jumps.  Threading: any; the kernel's own read-ahead
sends several reads at once, in any order.
"""

from __future__ import annotations

import threading
from enum import Enum, auto

from catalog.cache.chunks import Chunks

RUN = 2
"""Chunks in one request."""
MAX_RUNS = 8
"""Requests in flight for one reader."""

_SLACK = 8 << 20
"""Bytes by which reads of one stream may be out of order: the kernel has up to twice its
read-ahead of 4 MiB in flight, and threads answer in any order."""
_STREAM = 2 << 20
"""Bytes that have to be read in order to make a stream."""
_AHEAD = 1.0
"""Bytes to fetch ahead for each byte read in order.  Twice as many make 512 MiB from a distant
server 5 % faster, and double what is fetched in vain for a reader that stops."""


class Pattern(Enum):
    """How a reader reads."""

    RANDOM = auto()
    SEQUENTIAL = auto()


class Window:
    """The window of one reader over an image's chunks."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._lock = threading.Lock()
        self._next = 0
        self._length = 0
        """Bytes read in order, up to `_next`."""
        self._issued = 0
        """Chunks below this number have been requested."""

    @property
    def pattern(self) -> Pattern:
        """How the reader has read lately."""
        return Pattern.SEQUENTIAL if self._length >= _STREAM else Pattern.RANDOM

    def note(self, offset: int, end: int, limit: int) -> list[range]:
        """Note a read of `[offset, end)`; return the runs of chunks to fetch now.

        At most `limit` chunks are in the window.
        """
        with self._lock:
            if abs(offset - self._next) > _SLACK:
                self._length, self._next, self._issued = 0, offset, 0
            self._length += end - offset
            self._next = max(self._next, end)
            if self._length < _STREAM:
                return []
            return self._runs(limit)

    def _runs(self, limit: int) -> list[range]:
        here = self._chunks.index_of(self._next)
        size = min(limit, 1 + int(self._length * _AHEAD) // self._chunks.digests.chunk_size)
        first = max(self._issued, here)
        end = min(here + 1 + size, self._chunks.count)
        # Only whole runs, unless the reader would soon wait for the chunks.
        if end - first < RUN and first > here + 1 and end < self._chunks.count:
            return []
        self._issued = max(self._issued, end)
        return [range(at, min(at + RUN, end)) for at in range(first, end, RUN)]
