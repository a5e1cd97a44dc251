"""Reading one open file of a filesystem store.

Safe from several threads: a reader has no position.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from catalog.errors import DataChanged, NotFound, StoreUnavailable
from catalog.stores.os_errors import os_errors


def etag_of(found: os.stat_result) -> str:
    """What changes whenever the bytes of a file may have changed: inode, size and time."""
    return f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"


class FilesystemReader:
    """An open file.  Safe from several threads: it has no position."""

    def __init__(self, url: str, open_file: Callable[[], int]) -> None:
        """`open_file` opens the file, and may be called again later.

        Raises NotFound if it is no regular file.
        """
        self._url = url
        self._open_file = open_file
        self._fd = open_file()
        with os_errors(url):
            found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise NotFound(url, "is not a regular file")
        self._etag = etag_of(found)
        self.size = found.st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes `[offset, offset + size)`, cut at the end.

        Raises StoreUnavailable; DataChanged if the file had to be opened again and is now
        another one.
        """
        wanted = max(0, min(size, self.size - offset))
        with os_errors(self._url):
            try:
                return self._read(offset, wanted)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
            self._open_again()
            return self._read(offset, wanted)

    def _read(self, offset: int, wanted: int) -> bytes:
        parts: list[bytes] = []
        while wanted:
            part = os.pread(self._fd, wanted, offset)
            if not part:
                raise StoreUnavailable(self._url, f"the file was cut off before {offset}")
            parts.append(part)
            offset += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _open_again(self) -> None:
        """Open the file again after NFS has lost it (ESTALE), as when its server was restarted."""
        fd = self._open_file()
        try:
            if etag_of(os.fstat(fd)) != self._etag:
                raise DataChanged(self._url)
            # dup2(2) puts the new file under the old number in one step.  Other threads may be
            # reading from that number, so it must never be closed in between.
            os.dup2(fd, self._fd, inheritable=False)
        finally:
            os.close(fd)

    def fileno(self) -> int:
        """The open file."""
        return self._fd

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
