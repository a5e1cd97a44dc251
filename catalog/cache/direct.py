"""Writes chunks to the disk past the kernel's page cache.

A chunk that is read soon comes from memory (`shelf`).  A second copy of it in the page cache would
cost time, and take the room of other data.  On a file system that cannot do this (tmpfs), and for
bytes that do not fill whole blocks, it writes as usual.  Threading: any; each thread has a small
buffer of its own.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from pathlib import Path

_BLOCK = 4096
"""Address, offset and length have to be multiples of this many bytes (open(2), O_DIRECT)."""
_BUFFER = 1 << 20

_own = threading.local()


class DirectFile:
    """A file that is written in large pieces."""

    def __init__(self, path: Path, fd: int) -> None:
        """`fd` is the same file, opened to write as usual; the caller closes it."""
        self._fd = fd
        self._direct: int | None = None
        flags = os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._direct = os.open(path, flags)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`.  Raises OSError."""
        whole = len(data) - len(data) % _BLOCK if offset % _BLOCK == 0 else 0
        done = self._write_direct(data[:whole], offset)
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], offset + done)

    def close(self) -> None:
        """Close the descriptor that was opened here.  Idempotent."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _write_direct(self, data: memoryview, offset: int) -> int:
        """Write as many whole blocks as possible; return the bytes written."""
        done = 0
        while self._direct is not None and done < len(data):
            piece = data[done : done + _BUFFER]
            buffer = _buffer()
            buffer[: len(piece)] = piece
            try:
                written = os.pwrite(self._direct, buffer[: len(piece)], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The blocks of this disk are larger, or the file system does not do it any more.
                self.close()
                break
            done += written
            if written % _BLOCK:
                break
        return done


def _buffer() -> memoryview:
    """This thread's buffer.  It is a mapping, so that its address is a multiple of a block."""
    found: memoryview | None = getattr(_own, "buffer", None)
    if found is None:
        found = _own.buffer = memoryview(mmap.mmap(-1, _BUFFER))
    return found
