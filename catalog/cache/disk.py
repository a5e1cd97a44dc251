"""One image's verified chunks on this host's disk, open in this process.

There are two files in a folder of their own: `data`, sparse, with each chunk at its own offset,
and `map` (`slots`).  A chunk that has *landed* is in memory, and this process reads it from there.
`flush` writes it, makes it durable, and only then claims it in the map.  So no crash and no loss
of power leaves a claim without its data.

Processes share the files, and use these locks:

- Whoever fetches or drops a chunk holds the lock of the chunk's slot: a range of `map`, locked by
  an open file description, so that the lock ends with the process.
- Whoever reads holds no lock, and compares the slot before and after.
- Whoever has an image open holds a shared flock on `map`: then nobody removes the image.
- Whoever has given the descriptor of `data` away holds a shared flock on `data`: then nobody
  drops a chunk, as reads by that descriptor compare nothing.

Threading: any.  Every method may raise OSError.
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
        """Open an image's folder, which `folder.CacheFolder` has made.

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
        # In this order: between the two steps of a flush a chunk has landed and is claimed.  The
        # other way round it could be seen as neither.
        return index in self._landed or self._slots.stamp(index) is not None

    def is_complete(self) -> bool:
        """Whether every chunk is here to be read."""
        return all(self.has(index) for index in range(self._chunks.count))

    def read(self, index: int, start: int, end: int, now: int = 0) -> Data | None:
        """The bytes `[start, end)` of the image, which are in chunk `index`; None if not here.

        `now` is a number that grows with each read: the chunk that was read last is dropped
        last.
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
            # If the slot is still the same, nobody has dropped the chunk during the read.
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
        """A descriptor of the whole data, at its own offsets; None unless all of it is here.

        No chunk is dropped from now on, until `close`.
        """
        if self.is_complete():
            # Chunks that have only landed are not in the file yet, and writing them may fail.
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
        """Lock a chunk to fetch it; False if another process or thread has the lock."""
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
        """Take a verified chunk whose lock is held; from the return on it can be read here.

        Its room on the disk is allocated now.  `data` must never change; it and the lock are
        kept until `flush`.
        """
        self._fallocate(_KEEP_SIZE, index)
        with self._lock:
            self._checked.add(index)
            self._used[index] = now
            self._landed[index] = memoryview(data)

    def flush(self) -> bool:
        """Write, make durable and claim the landed chunks; False if there were none.

        If it fails, none of them is here any more.
        """
        with self._flushing:
            return not self._is_closed and self._flush()

    # -- dropping ----------------------------------------------------------------------

    def last_used(self) -> list[tuple[int, int]]:
        """For each claimed chunk, when this process last read it (0 if never), and its index."""
        if self._is_direct:
            return []
        claimed = [i for i in range(self._chunks.count) if self._slots.stamp(i) is not None]
        return [(self._used.get(index, 0), index) for index in claimed]

    def drop(self, indices: Iterable[int]) -> int:
        """Drop claimed chunks; return the bytes freed, fewer if other processes use them."""
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
        """Note that the image is in use now: the image that was used last is evicted last."""
        with suppress(PermissionError):
            os.utime(self._map)

    def close(self) -> None:
        """Flush the landed chunks, then close the files, which ends all locks.  Idempotent."""
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
            # In this order: a claim is made only for data that is durable.
            self._write(landed)
            self._slots.claim(index for index, _ in landed)
        finally:
            # Removed from memory only now, when the chunks can be read from the disk, and unlocked
            # last: another process that gets the lock sees the claim and does not fetch again.
            with self._lock:
                for index, _ in landed:
                    del self._landed[index]
            for index, _ in landed:
                self.unlock(index)
        return True

    def _write(self, landed: list[tuple[int, memoryview]]) -> None:
        """Make chunks durable; after a failure none of their bytes stays."""
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
            # A chunk in `_held` is locked by this same file description, which could lock it a
            # second time.
            if index not in self._held and self._set_lock(index, fcntl.F_WRLCK):
                dropped.append(index)
        try:
            # The claims go first, durably: a crash in between leaves data without a claim.
            self._slots.clear(dropped)
            return sum(self._punch(index) for index in dropped)
        finally:
            for index in dropped:
                self._set_lock(index, fcntl.F_UNLCK)

    def _check(self, index: int, stamp: bytes) -> bool:
        """Whether the chunk's bytes are still those that were claimed; if not, it is dropped."""
        start, end = self._chunks.span(index, index + 1)
        if self._chunks.is_good(index, os.pread(self._data, end - start, start)):
            self._checked.add(index)
            return True
        if self._slots.stamp(index) == stamp:
            self.drop([index])
        return False

    def _punch(self, index: int) -> int:
        """Free a chunk's room; return the bytes freed, 0 if the file system cannot do it."""
        start, end = self._chunks.span(index, index + 1)
        return end - start if self._fallocate(_PUNCH_HOLE | _KEEP_SIZE, index) else 0

    def _fallocate(self, mode: int, index: int) -> bool:
        """Call fallocate(2) for a chunk; False if the file system does not support it."""
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
