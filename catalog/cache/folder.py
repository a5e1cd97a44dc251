"""The cache's folder, shared by the processes of one host: its images and its room.

    <path>/lock              held while an image's folder is made, opened or removed
    <path>/images/<id>/      one image: `data` and `map` (`disk`)
    <path>/images/.*         being made or removed; removed at the next look if a crash left it
    <path>/pins/<id>         this image is never evicted

Eviction first takes whole images that nobody has open, the one that was used longest ago first.
Their files are unlinked, so that a process that still reads them is not harmed.  Only if that is
not enough it drops chunks, and only of images that this process itself has open.  The folder must
be on a local file system.  Threading: any.  Every method may raise OSError.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from catalog.cache import slots
from catalog.cache.chunks import Chunks
from catalog.cache.disk import DATA, MAP, DiskImage
from catalog.cache.slots import Header
from catalog.errors import Conflict

_RESERVE = 20
"""One of this many parts of the file system is left free for others."""

Shed = Callable[[int], int]
"""Drops that many bytes of chunks of open images; returns the bytes that were freed."""


@dataclass(frozen=True, slots=True)
class CachedImage:
    """One image in the cache, as `imagefs cache` shows it."""

    image: str
    """Its id."""
    size: int
    """Bytes of the whole image."""
    cached: int
    """Bytes on the disk."""
    chunks: int
    claimed: int
    """The number of its chunks that are here."""
    is_open: bool
    """Whether a process has it open."""
    is_pinned: bool
    used_at: datetime


class CacheFolder:
    """The images in one folder, up to `size` bytes."""

    def __init__(self, path: Path, size: int, *, recheck: bool = False) -> None:
        """`recheck` as in `DiskImage`.  Makes no folder yet."""
        self.path = path
        self.size = size
        self._recheck = recheck
        self._images = path / "images"
        self._pins = path / "pins"

    def open(self, chunks: Chunks) -> DiskImage:
        """Open an image; it is made if it is missing, or if the folder has other data."""
        self._make()
        folder = self._images / chunks.image
        with self._locked():
            if not _is_of(folder, chunks):
                self._remove(folder)
                self._make_image(folder, chunks)
            return DiskImage(folder, chunks, recheck=self._recheck)

    def make_room(self, needed: int, wanted: int, shed: Shed) -> int:
        """Make room for `needed` bytes, and if possible for `wanted`; return how many there are.

        Nothing is evicted while there is room for `needed` bytes.
        """
        with self._locked():
            self._sweep()
            free = self._free()
            if free < needed:
                free += self._evict(wanted - free)
        if free < needed:
            free += shed(needed - free)
        return max(0, min(wanted, free))

    def usage(self) -> int:
        """Bytes on the disk, of all images."""
        return sum(_blocks(folder / DATA) for folder in self._folders())

    def images(self) -> list[CachedImage]:
        """All images that are here, the one that was used last first."""
        if not self.path.exists():
            return []
        with self._locked():
            found = list(self._found(count=True))
        return sorted(found, key=lambda each: each.used_at, reverse=True)

    def drop(self, image: str) -> None:
        """Remove an image from the cache, if it is there.  Raises Conflict if it is open."""
        if not self.path.exists():
            return
        with self._locked():
            folder = self._images / image
            if folder.exists() and _is_open(folder):
                raise Conflict(image, "is being read")
            self._remove(folder)

    def pin(self, image: str) -> None:
        """Never evict an image, which need not be here yet."""
        self._make()
        (self._pins / image).touch()

    def unpin(self, image: str) -> None:
        """Let an image be evicted again."""
        (self._pins / image).unlink(missing_ok=True)

    def is_pinned(self, image: str) -> bool:
        """Whether an image is never evicted."""
        return (self._pins / image).exists()

    # -- parts -------------------------------------------------------------------------

    def _evict(self, wanted: int) -> int:
        """Remove images that nobody has open, used longest ago first; the bytes freed."""
        freed = 0
        for found in sorted(self._found(), key=lambda found: found.used_at):
            if freed < wanted and not found.is_pinned and not found.is_open:
                self._remove(self._images / found.image)
                freed += found.cached
        return freed

    def _make(self) -> None:
        for folder in (self.path, self._images, self._pins):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _give_to_owner(folder, folder.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else opens, makes or removes an image meanwhile."""
        path = self.path / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _give_to_owner(path, self.path)
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make_image(self, folder: Path, chunks: Chunks) -> None:
        new = self._images / f".new-{secrets.token_hex(8)}"
        new.mkdir(mode=0o700)
        try:
            for name in (DATA, MAP):
                with open(new / name, "xb", buffering=0, opener=_private) as file:
                    if name == DATA:
                        file.truncate(chunks.size)
                    else:
                        slots.make(file.fileno(), Header.of(chunks))
                _give_to_owner(new / name, self.path)
            _give_to_owner(new, self.path)
            _sync(new)
            # One rename for both files: a map never stands beside the data of another image.
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _remove(self, folder: Path) -> None:
        old = self._images / f".old-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            folder.rename(old)
            shutil.rmtree(old)

    def _sweep(self) -> None:
        """Remove folders that a crash has left half made or half removed."""
        for left in self._images.iterdir():
            if left.name.startswith("."):
                shutil.rmtree(left, ignore_errors=True)

    def _free(self) -> int:
        system = os.statvfs(self.path)
        reserve = system.f_blocks // _RESERVE
        on_disk = max(0, system.f_bavail - reserve) * system.f_frsize
        return min(self.size - self.usage(), on_disk)

    def _folders(self) -> list[Path]:
        try:
            return [each for each in self._images.iterdir() if not each.name.startswith(".")]
        except FileNotFoundError:
            return []

    def _found(self, *, count: bool = False) -> Iterator[CachedImage]:
        for folder in self._folders():
            with suppress(FileNotFoundError):
                fd = os.open(folder / MAP, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    yield self._describe(folder, fd, count=count)
                finally:
                    os.close(fd)

    def _describe(self, folder: Path, fd: int, *, count: bool) -> CachedImage:
        header = Header.read(fd)
        return CachedImage(
            image=folder.name,
            size=header.size if header else 0,
            cached=_blocks(folder / DATA),
            chunks=header.count if header else 0,
            claimed=slots.count_claims(fd, header) if header and count else 0,
            is_open=_is_open(folder),
            is_pinned=self.is_pinned(folder.name),
            used_at=datetime.fromtimestamp(os.fstat(fd).st_mtime, UTC),
        )


def _is_of(folder: Path, chunks: Chunks) -> bool:
    """Whether a folder is the cache of exactly these chunks."""
    try:
        fd = os.open(folder / MAP, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        is_whole = os.fstat(fd).st_size >= sum(slots.place_of(chunks.count - 1))
        is_same = Header.read(fd) == Header.of(chunks)
        return is_whole and is_same and (folder / DATA).exists()
    finally:
        os.close(fd)


def _is_open(folder: Path) -> bool:
    """Whether a process has the image open.  Only to be called while the folder is locked."""
    with suppress(FileNotFoundError):
        fd = os.open(folder / MAP, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def _blocks(file: Path) -> int:
    """Bytes that a file takes on the disk; 0 if it does not exist."""
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _give_to_owner(path: Path, folder: Path) -> None:
    """Give a file that root has made to the folder's owner: a server may run as a user."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
