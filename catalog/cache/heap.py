"""Settings of the C library for the memory of chunks, which come and go.

By default each thread has a heap of its own that never shrinks, so that together they keep several
times the memory that is ever in use.  And each large block is a new mapping, which costs as much
as fetching it.  Threading: called once, before the process has many threads.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_HEAPS = 1
"""One heap.  Two are no faster, and free memory of one cannot be used by the other."""
_LARGEST_CHUNKS = 32 << 20
"""Bytes of the largest block that comes from the heap; glibc allows no more."""
_KEPT = 128 << 20
"""Free bytes that the heap keeps."""


def tune() -> None:
    """Let the chunks of all threads share one heap (mallopt(3)); does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _HEAPS)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_CHUNKS)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
