"""How the C library keeps the memory of chunks: for a program that has them come and go.

By default each thread has a heap of its own that keeps what it held at its most, several times
what is ever in use at once; and large blocks are mapped anew each time, which costs as much as
fetching them.  Threading: called once, before the process has many threads.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_HEAPS = 1
"""Two are no faster, and what is free in one is of no use to the other."""
_LARGEST_CHUNKS = 32 << 20
"""Bytes of a block that is still taken from it; glibc allows no more."""
_KEPT = 128 << 20
"""Free bytes that it keeps."""


def tune() -> None:
    """Have chunks of all threads share one heap (mallopt(3)).  Only glibc knows how."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _HEAPS)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_CHUNKS)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
