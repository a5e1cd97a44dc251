"""A read-only file system that forgets its open files, as NFS does (ESTALE).

    python -m tests.servers.network.stale_mount FOLDER MOUNTPOINT

It shows the files of FOLDER, one level deep.  When `FOLDER.forget` appears, every file
opened before is stale, for good; files opened later are read.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3
import trio

from tests.servers.programs import running, wait_mounted


@contextmanager
def stale_mount(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount `folder/behind` at `folder/shared`; both are given."""
    behind, path = folder / "behind", folder / "shared"
    behind.mkdir(exist_ok=True)
    path.mkdir()
    command = [sys.executable, "-m", "tests.servers.network.stale_mount", str(behind), str(path)]
    log = folder / "forgetful.log"
    with running(command, log) as process:
        try:
            wait_mounted(path, process, log)
            yield behind, path
        finally:
            subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


def forget(behind: Path) -> None:
    """Make stale what is open now."""
    behind.with_name("behind.forget").touch()


class _StaleMount(pyfuse3.Operations):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._mark = folder.with_name(f"{folder.name}.forget")
        self._names: dict[int, str] = {pyfuse3.ROOT_INODE: "."}
        self._times_forgotten = 0

    async def lookup(self, parent: int, name: bytes, ctx: object = None) -> pyfuse3.EntryAttributes:
        """Find a file of the folder."""
        return self._attributes(os.fsdecode(name))

    async def getattr(self, inode: int, ctx: object = None) -> pyfuse3.EntryAttributes:
        """What stat(2) tells."""
        return self._attributes(self._names[inode])

    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        """Open a file; nothing of it is kept by the kernel, so that each read comes here."""
        self._notice()
        fd = os.open(self._folder / self._names[inode], os.O_RDONLY)
        return pyfuse3.FileInfo(fh=fd << 32 | self._times_forgotten, direct_io=True)

    async def opendir(self, inode: int, ctx: object) -> int:
        """Open the folder."""
        return int(inode)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        """Read a file that is not stale."""
        self._notice()
        if fh & 0xFFFFFFFF != self._times_forgotten:
            raise pyfuse3.FUSEError(errno.ESTALE)
        return os.pread(fh >> 32, size, offset)

    async def release(self, fh: int) -> None:
        """Close a file."""
        os.close(fh >> 32)

    def _notice(self) -> None:
        if self._mark.exists():
            self._mark.unlink()
            self._times_forgotten += 1

    def _attributes(self, name: str) -> pyfuse3.EntryAttributes:
        try:
            found = os.lstat(self._folder / name)
        except FileNotFoundError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.ROOT_INODE if name == "." else found.st_ino
        entry.st_mode, entry.st_size, entry.st_nlink = found.st_mode, found.st_size, 1
        entry.st_mtime_ns = found.st_mtime_ns
        entry.entry_timeout = entry.attr_timeout = 0
        self._names[entry.st_ino] = name
        return entry


def _main(folder: str, mount_point: str) -> None:
    options = set(pyfuse3.default_options) | {"fsname=forgetful"}
    pyfuse3.init(_StaleMount(Path(folder)), mount_point, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    _main(*sys.argv[1:])
