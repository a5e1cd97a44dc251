"""An image on its way into a folder: staged in a private place, then renamed to its key."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from catalog.errors import CatalogError
from catalog.stores.base import IsGood, SendsNothingEarly
from catalog.stores.folder.marker import MarkedFolder
from catalog.stores.os_errors import os_errors
from catalog.stores.sparse import copy_sparse

STAGING = ".staging"


class FilesystemWriter(SendsNothingEarly):
    """A file in `.staging` that `commit` renames to its key."""

    def __init__(self, folder: MarkedFolder, key: str, url: str, left: str = "") -> None:
        """`left` is the unfinished file of another writer, relative to the folder."""
        self._folder = folder
        self._key = key
        self._url = url
        self._unfinished = left or f"{STAGING}/{key}.{secrets.token_hex(8)}"
        """The file that `commit` renames, relative to the folder."""
        self._is_staged = False
        """Whether `take` took that file over: only `commit` may then move it, and `cancel` must
        not remove it."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        flags |= 0 if left else os.O_CREAT | os.O_EXCL
        with folder.opened() as opened:
            _make_private(STAGING, opened)
            with os_errors(url):
                self._fd = os.open(self._unfinished, flags, 0o600, dir_fd=opened)

    def keep(self, step: int, is_good: IsGood) -> int:
        """Cut an unfinished file behind its last good chunk; return its new size."""
        kept = 0
        with os_errors(self._url):
            while (data := os.pread(self._fd, step, kept)) and is_good(kept // step, data):
                kept += len(data)
            os.ftruncate(self._fd, kept)
            os.lseek(self._fd, kept, os.SEEK_SET)
        return kept

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.  Raises StoreFull, ImageTooLarge, StoreUnavailable."""
        rest = memoryview(data)
        with os_errors(self._url):
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def take(self, staged: Path) -> None:
        """Take over a file of the staging folder, which `commit` moves; copy any other now.

        Holes stay holes.
        """
        with os_errors(str(staged)):
            fd = os.open(staged, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        if self._can_move(staged, fd):
            self.cancel()
            self._fd, self._unfinished, self._is_staged = fd, f"{STAGING}/{staged.name}", True
            return
        try:
            self.copy_from(fd)
        finally:
            os.close(fd)

    def copy_from(self, fd: int) -> None:
        """Copy an open file instead of `write`s, holes kept.  Raises as `write`."""
        with os_errors(self._url):
            copy_sparse(fd, self._fd)

    def sync(self) -> None:
        """Make the written bytes durable; nothing becomes visible.  Raises as `write`."""
        with os_errors(self._url):
            os.fsync(self._fd)

    def commit(self) -> str:
        """Flush the file, rename it to its key, flush the folder; return the url."""
        try:
            with self._folder.opened() as folder, os_errors(self._url):
                # This order is needed: data and mode are durable before the rename makes the
                # object visible, and the folder's fsync makes the rename durable.  A crash in
                # between leaves a file in `.staging`, never half an object under its key.
                os.fchmod(self._fd, 0o440)
                _give_to_owner(self._fd, folder)
                os.fsync(self._fd)
                os.rename(self._unfinished, self._key, src_dir_fd=folder, dst_dir_fd=folder)
                self._flush(folder)
        finally:
            self.cancel()
        return self._url

    def cancel(self) -> None:
        """Close and remove our own file; a staged file stays where it is."""
        if self._fd < 0:
            return
        # If the folder is not there any more, the file stays; recovery clears `.staging`.
        with suppress(OSError, CatalogError):
            os.close(self._fd)
            if not self._is_staged:
                with self._folder.opened() as folder:
                    os.unlink(self._unfinished, dir_fd=folder)
        self._fd = -1

    def _flush(self, folder: int) -> None:
        try:
            os.fsync(folder)
        except OSError:
            # The object is visible but perhaps not durable.  A failed commit must leave nothing
            # visible, so it is removed.
            with suppress(OSError):
                os.unlink(self._key, dir_fd=folder)
            raise

    def _can_move(self, staged: Path, fd: int) -> bool:
        with self._folder.opened() as folder, os_errors(self._url):
            same_file_system = os.fstat(fd).st_dev == os.fstat(folder).st_dev
        return same_file_system and staged.parent == self._folder.path / STAGING


def _left_by(folder: Path, key: str) -> list[str]:
    """The unfinished files of a key in `.staging`, relative to the store's folder."""
    try:
        names = os.listdir(folder / STAGING)
    except FileNotFoundError:
        return []
    return [f"{STAGING}/{name}" for name in names if name.rpartition(".")[0] == key]


def _make_private(name: str, folder: int) -> None:
    with os_errors(name), suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            _give_to_owner(made, folder)
        finally:
            os.close(made)


def _give_to_owner(fd: int, folder: int) -> None:
    """Give a file that root has made to the owner of the store's folder.

    A mount runs as root and `imagefs dav` as a user of its own, and both use the same store.
    """
    if os.geteuid() == 0:
        owner = os.fstat(folder)
        os.fchown(fd, owner.st_uid, owner.st_gid)
