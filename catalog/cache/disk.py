"""One image's verified chunks on this host's disk, open in this process.

Two files in a folder of their own: `data`, sparse, with each chunk at its own offset, and `map`
(`slots`).  A chunk that *lands* is in memory, and this process reads it from then on; `flush`
writes it, makes it durable and only then claims it, so that no crash and no loss of power
leaves a claim without its data.

Processes share the files.  Whoever fetches or drops a chunk holds its lock (an open file
description's range of `map`, so that it ends with its process); whoever reads holds
none, and compares the slot before and after.  Who uses an image holds `map` locked
(shared); who gave its descriptor away holds `data` locked, too, and then nothing is
dropped.  Threading: any.  Every method may raise OSError.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from catalog.cache.chunks import Chunks
from catalog.cache.direct import DirectFile
from catalog.cache.slots import Header, Slots, place_of
from catalog.stores.base import Data

DATA = "data"
MAP = "map"

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class DiskImage:
    """The chunks of one image that are on the disk."""

    def __init__(self, folder: Path, chunks: Chunks, *, recheck: bool = False) -> None:
        """Open what `folder.CacheFolder` has made.

        `recheck` compares a chunk with its digest when this process first reads it.
        """
        self.image = chunks.image
        self.chunk_size = chunks.digests.chunk_size
        self._chunks = chunks
        self._folder = folder
        self._recheck = recheck
        self._checked: set[int] = set()
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._is_closed = False
        self._held: set[int] = set()
        self._landed: dict[int, memoryview] = {}
        self._is_direct = False
        self._used: dict[int, int] = {}
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._map = os.open(folder / MAP, flags)
        try:
            fcntl.flock(self._map, fcntl.LOCK_SH)
            self._data = os.open(folder / DATA, flags)
            try:
                self._slots = Slots(self._map, Header.of(chunks))
                self._file = DirectFile(folder / DATA, self._data)
            except BaseException:
                os.close(self._data)
                raise
        except BaseException:
            os.close(self._map)
            raise
        self.touch()

    # -- reading -----------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Whether the chunk is here to be read."""
        # Claimed last: between the two steps of a flush it is both.
        return index in self._landed or self._slots.stamp(index) is not None

    def is_complete(self) -> bool:
        """Whether every chunk is here to be read."""
        return all(self.has(index) for index in range(self._chunks.count))

    def read(self, index: int, start: int, end: int, now: int = 0) -> Data | None:
        """The bytes `[start, end)` of the image, which are in chunk `index`; None if not here.

        `now` is any number that grows: what was read last is dropped last.
        """
        landed = self._landed.get(index)
        if landed is not None:
            base, _ = self._chunks.span(index, index + 1)
            return landed[start - base : end - base]
        stamp = self._slots.stamp(index)
        while stamp is not None:
            if self._recheck and index not in self._checked and not self._check(index, stamp):
                return None
            data = os.pread(self._data, end - start, start)
            after = self._slots.stamp(index)
            if after == stamp:
                self._used[index] = now
                if len(data) == end - start:
                    return data
                self.drop([index])
                return None
            stamp = after
        return None

    def direct(self) -> int | None:
        """A descriptor of all the data, at its own offsets; None unless all of it is here.

        Nothing is dropped from now on, until `close`.
        """
        if self.is_complete():
            # What has only landed may still turn out not to find its way to the disk.
            with suppress(OSError):
                self.flush()
        with self._lock, suppress(BlockingIOError):
            if self._recheck:
                return None
            fcntl.flock(self._data, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if all(self._slots.stamp(index) is not None for index in range(self._chunks.count)):
                self._is_direct = True
                return self._data
            if not self._is_direct:
                fcntl.flock(self._data, fcntl.LOCK_UN)
        return None

    # -- writing -----------------------------------------------------------------------

    def lock(self, index: int) -> bool:
        """Lock a chunk, to fetch it; False if another process or thread has it."""
        with self._lock:
            if index in self._held or not self._set_lock(index, fcntl.F_WRLCK):
                return False
            self._held.add(index)
            return True

    def unlock(self, index: int) -> None:
        """Let others fetch the chunk."""
        with self._lock:
            self._held.discard(index)
            self._set_lock(index, fcntl.F_UNLCK)

    def land(self, index: int, data: bytes | memoryview, now: int = 0) -> None:
        """Take a verified chunk whose lock is held; it can be read here at return.

        Its room on the disk is taken now.  `data` never changes; it and the lock are held
        until `flush`.
        """
        self._fallocate(_KEEP_SIZE, index)
        with self._lock:
            self._checked.add(index)
            self._used[index] = now
            self._landed[index] = memoryview(data)

    def flush(self) -> bool:
        """Write, make durable and claim what has landed; False if there was nothing.

        If it fails, none of that is here any more.
        """
        with self._flushing:
            return not self._is_closed and self._flush()

    # -- dropping ----------------------------------------------------------------------

    def last_used(self) -> list[tuple[int, int]]:
        """When each claimed chunk was read last by this process (or 0), and its index."""
        if self._is_direct:
            return []
        claimed = [i for i in range(self._chunks.count) if self._slots.stamp(i) is not None]
        return [(self._used.get(index, 0), index) for index in claimed]

    def drop(self, indices: Iterable[int]) -> int:
        """Drop claimed chunks; return the bytes freed: fewer if other processes use them."""
        with self._lock, suppress(BlockingIOError):
            if self._is_direct:
                return 0
            fcntl.flock(self._data, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                return self._drop(indices)
            finally:
                fcntl.flock(self._data, fcntl.LOCK_UN)
        return 0

    def touch(self) -> None:
        """Note that the image is in use now: what is used last is evicted last."""
        with suppress(PermissionError):
            os.utime(self._map)

    def close(self) -> None:
        """Claim what has landed, then let go of the files and of all locks.  Idempotent."""
        with self._flushing:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._flush()
                self.touch()
            finally:
                self._slots.close()
                self._file.close()
                os.close(self._data)
                os.close(self._map)

    def _flush(self) -> bool:
        with self._lock:
            landed = sorted(self._landed.items())
        if not landed:
            return False
        try:
            self._write(landed)
            self._slots.claim(index for index, _ in landed)
        finally:
            with self._lock:
                for index, _ in landed:
                    del self._landed[index]
            for index, _ in landed:
                self.unlock(index)
        return True

    def _write(self, landed: list[tuple[int, memoryview]]) -> None:
        """Make chunks durable, or leave nothing of them."""
        try:
            for index, data in landed:
                self._file.write(data, self._chunks.span(index, index + 1)[0])
            os.fdatasync(self._data)
        except OSError:
            for index, _ in landed:
                with suppress(OSError):
                    self._punch(index)
            raise

    def _drop(self, indices: Iterable[int]) -> int:
        dropped = []
        for index in indices:
            # What is held here is locked by this very description: it could lock it again.
            if index not in self._held and self._set_lock(index, fcntl.F_WRLCK):
                dropped.append(index)
        try:
            self._slots.clear(dropped)
            return sum(self._punch(index) for index in dropped)
        finally:
            for index in dropped:
                self._set_lock(index, fcntl.F_UNLCK)

    def _check(self, index: int, stamp: bytes) -> bool:
        """Whether the chunk's bytes are still what was claimed; if not, it is dropped."""
        start, end = self._chunks.span(index, index + 1)
        if self._chunks.is_good(index, os.pread(self._data, end - start, start)):
            self._checked.add(index)
            return True
        if self._slots.stamp(index) == stamp:
            self.drop([index])
        return False

    def _punch(self, index: int) -> int:
        """Free a chunk's room; how many bytes that were, as far as the file system can."""
        start, end = self._chunks.span(index, index + 1)
        return end - start if self._fallocate(_PUNCH_HOLE | _KEEP_SIZE, index) else 0

    def _fallocate(self, mode: int, index: int) -> bool:
        """fallocate(2) of a chunk; False where the file system has no such thing."""
        start, end = self._chunks.span(index, index + 1)
        if _libc.fallocate(self._data, mode, start, end - start):
            number = ctypes.get_errno()
            if number != errno.EOPNOTSUPP:
                raise OSError(number, os.strerror(number))
            return False
        return True

    def _set_lock(self, index: int, kind: int) -> bool:
        offset, size = place_of(index)
        # struct flock (fcntl(2)); its l_pid must be 0.
        request = struct.pack("hhqqixxxx", kind, os.SEEK_SET, offset, size, 0)
        try:
            fcntl.fcntl(self._map, fcntl.F_OFD_SETLK, request)
        except (BlockingIOError, PermissionError):
            return False
        return True
