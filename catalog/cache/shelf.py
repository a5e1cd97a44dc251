"""Where verified chunks are put: on the disk, or a few in memory while that cannot be.

Users: `image`.  Scope: room, and what to do without it: reads go on, and it is said once.
Threading: any.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import OrderedDict, defaultdict
from contextlib import suppress

from catalog.cache.chunks import Chunks
from catalog.cache.disk import DiskImage
from catalog.cache.flusher import Flusher
from catalog.cache.folder import CacheFolder

_log = logging.getLogger(__name__)

_GRANT = 64 << 20
"""Bytes of room asked for at once."""
_AT_ONCE = 4
"""Chunks dropped together, as it costs a flush of the disk."""
_IN_MEMORY = 32 << 20
"""Bytes of chunks kept while the disk takes none."""
_PAUSE = 30.0
"""Seconds after which a disk that took nothing is tried again."""


class Shelf:
    """The chunks of all open images."""

    def __init__(self, folder: CacheFolder | None) -> None:
        """None: no disk, only memory."""
        self._folder = folder
        self._flusher = Flusher(self._trouble)
        self._lock = threading.Lock()
        self._disks: set[DiskImage] = set()
        self._granted = 0
        self._landing = 0
        self._paused_until = 0.0
        self._has_warned = False
        self._reads = itertools.count(1)
        self._memory: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._memory_lock = threading.Lock()

    def open(self, chunks: Chunks) -> DiskImage | None:
        """The image on the disk; None if it cannot be there."""
        if self._folder is None or chunks.count == 0:
            return None
        try:
            disk = self._folder.open(chunks)
        except (OSError, ValueError) as error:
            self._trouble(error)
            return None
        with self._lock:
            self._disks.add(disk)
        return disk

    def release(self, disk: DiskImage | None) -> None:
        """Close an image that `open` has opened."""
        if disk is None:
            return
        with self._lock:
            self._disks.discard(disk)
        try:
            disk.close()
        except OSError as error:
            self._trouble(error)

    def takes(self, disk: DiskImage | None) -> bool:
        """Whether chunks of an image go to the disk now."""
        return disk is not None and time.monotonic() >= self._paused_until

    def has(self, disk: DiskImage | None, chunks: Chunks, index: int) -> bool:
        """Whether a chunk is here."""
        if disk is not None and disk.has(index):
            return True
        return (chunks.fingerprint, index) in self._memory

    def get(
        self, disk: DiskImage | None, chunks: Chunks, index: int, start: int, end: int
    ) -> bytes | None:
        """The bytes `[start, end)` of an image, which are in chunk `index`; None if not here."""
        if disk is not None:
            try:
                data = disk.read(index, start, end, next(self._reads))
            except OSError as error:
                self._trouble(error)
                with suppress(OSError):
                    disk.drop([index])
            else:
                if data is not None:
                    return data
        with self._memory_lock:
            chunk = self._memory.get((chunks.fingerprint, index))
            if chunk is None:
                return None
            self._memory.move_to_end((chunks.fingerprint, index))
        base, _ = chunks.span(index, index + 1)
        return chunk[start - base : end - base]

    def put(
        self, disk: DiskImage | None, chunks: Chunks, index: int, data: bytes | memoryview
    ) -> bool:
        """Keep a verified chunk; True if it went to the disk, and its lock with it.

        With a disk, the chunk's lock is held.
        """
        if disk is not None and self._reserve(len(data)):
            try:
                disk.land(index, data, next(self._reads))
            except OSError as error:
                self._trouble(error)
            else:
                self._flusher.add(disk)
                return True
            finally:
                with self._lock:
                    self._landing -= len(data)
        with self._memory_lock:
            self._memory[chunks.fingerprint, index] = bytes(data)
            while len(self._memory) > 1 and sum(map(len, self._memory.values())) > _IN_MEMORY:
                self._memory.popitem(last=False)
        return False

    def close(self) -> None:
        """Make durable what has landed, and end the thread.  Idempotent."""
        self._flusher.close()

    def _reserve(self, size: int) -> bool:
        """Take so many bytes of room, for a chunk that lands; whether there are any."""
        assert self._folder is not None
        with self._lock:
            if time.monotonic() < self._paused_until:
                return False
            if self._granted < size:
                # What is just being written is not on the disk yet, but has its room.
                needed = _AT_ONCE * size + self._landing
                wanted = max(needed, min(_GRANT, self._folder.size // 8))
                try:
                    room = self._folder.make_room(needed, wanted, self._shed)
                    self._granted = max(0, room - self._landing)
                except OSError as error:
                    self._trouble(error)
                    return False
            if self._granted < size:
                self._trouble("no room is left, and nothing can be evicted")
                return False
            self._granted -= size
            self._landing += size
            return True

    def _shed(self, wanted: int) -> int:
        """Drop what was read longest ago of images that are open here, `wanted` bytes."""
        assert self._folder is not None
        disks = [disk for disk in self._disks if not self._folder.is_pinned(disk.image)]
        freed = _drop_oldest(disks, wanted)
        if freed < wanted:
            # What has landed can go once it is claimed.  Who fetches waits for the disk here.
            for disk in disks:
                disk.flush()
            freed += _drop_oldest(disks, wanted - freed)
        return freed

    def _trouble(self, reason: object) -> None:
        """Leave the disk alone for a while; say why, the first time."""
        self._paused_until = time.monotonic() + _PAUSE
        if not self._has_warned:
            self._has_warned = True
            path = None if self._folder is None else self._folder.path
            _log.warning("the cache %s takes nothing: %s; reads go on without it", path, reason)


def _drop_oldest(disks: list[DiskImage], wanted: int) -> int:
    """Drop the claimed chunks that were read longest ago; the bytes freed."""
    candidates = ((used, disk, index) for disk in disks for used, index in disk.last_used())
    victims: defaultdict[DiskImage, list[int]] = defaultdict(list)
    for _used, disk, index in sorted(candidates, key=lambda candidate: candidate[0]):
        if wanted <= 0:
            break
        victims[disk].append(index)
        wanted -= disk.chunk_size
    return sum(disk.drop(indices) for disk, indices in victims.items())
