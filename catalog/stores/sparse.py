"""Copying a file with its holes.

Works on descriptors; safe from several threads if each uses its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_STEP = 64 << 20
"""Bytes for the kernel to copy in one call.  Aligned, so that whole blocks can be shared, and
small enough for a signal to be noticed where the bytes are really copied."""

_BUFFER = 1 << 20
"""Bytes of one read where the kernel cannot copy between the two files."""

_CANNOT = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


def copy_sparse(source: int, target: int) -> None:
    """Make `target`, an empty file open for writing, a copy of `source`; holes stay holes.

    Blocks are shared where the file system can (XFS, Btrfs), or copied by the server
    (NFS 4.2).  Raises OSError.
    """
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in data_ranges(source, size):
        while start < end:
            start += _copy_some(source, target, start, min(end - start, _STEP))


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The half-open ranges of a file that are not holes (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # Only a hole is left.
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _copy_some(source: int, target: int, offset: int, size: int) -> int:
    """Copy up to `size` bytes at `offset`; return how many, never 0."""
    try:
        copied = os.copy_file_range(source, target, size, offset, offset)
        if copied:
            return copied
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    # Some network file systems return 0 although there is data.  Only a read shows which it is.
    data = os.pread(source, min(size, _BUFFER), offset)
    if not data:
        raise OSError(errno.EIO, "the file was cut off while it was copied")
    return os.pwrite(target, data, offset)
