"""Whether the disk has accepted the pages that the kernel has written back so far.

This is asked about a staging file that does not have to last: its bytes are read from the page
cache, and an fsync would only keep the writer waiting.  But a page that the disk has refused may
have left the cache, and then other bytes are read than were written.
"""

from __future__ import annotations

import ctypes
import os

_WAIT_BEFORE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def check_written_back(fd: int) -> None:
    """Raise OSError if a page of the file could not be written (sync_file_range(2)).

    Waits for pages that are being written back, and not for those that still have to be.
    """
    begin, end = ctypes.c_int64(0), ctypes.c_int64(0)
    if _libc.sync_file_range(fd, begin, end, _WAIT_BEFORE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
