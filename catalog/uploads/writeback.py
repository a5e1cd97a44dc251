"""Whether a disk has taken what the kernel wrote to it in the background so far.

This is asked about a staging file that need not last: its bytes are read from the page cache,
and an fsync would only keep its writer waiting.  But a page the disk has refused may have left
the cache, and what is read then is not what was written.
"""

from __future__ import annotations

import ctypes
import os

_WAIT_BEFORE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def check_written_back(fd: int) -> None:
    """Raise OSError if a page of the file could not be written (sync_file_range(2)).

    Waits for what is being written, not for what is still to be.
    """
    begin, end = ctypes.c_int64(0), ctypes.c_int64(0)
    if _libc.sync_file_range(fd, begin, end, _WAIT_BEFORE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
