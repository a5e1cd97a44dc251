"""Keeps verified chunks: a few in memory, and behind that on the disk.

Scope: room, and what happens without it: reads go on, and it is logged once.  Threading: any;
readers never wait for writes to the disk.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

from catalog.cache.chunks import Chunks
from catalog.cache.disk import DiskImage
from catalog.cache.flusher import Flusher
from catalog.cache.folder import CacheFolder
from catalog.stores.base import Data

_log = logging.getLogger(__name__)

_GRANT = 64 << 20
"""Bytes of room that are requested at once."""
_AT_ONCE = 4
"""Chunks that are dropped together, as each drop costs a flush of the disk."""
_IN_MEMORY = 56 << 20
"""Bytes of chunks in memory: most of those that one reader has fetched ahead (`window`).  Chunks
that wait for the disk come in addition.  The oldest chunk is dropped first, as it was read first.
"""
_PAUSE = 30.0
"""Seconds after which a disk that failed is tried again."""


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """The parts of chunks that readers wanted so far."""

    hits: int
    """They were here."""
    misses: int
    """They had to be fetched, or another one fetched them just then."""


class Shelf:
    """The chunks of all open images."""

    def __init__(self, folder: CacheFolder | None) -> None:
        """Without a folder chunks are in memory only."""
        self._folder = folder
        self._flusher = Flusher(self._trouble)
        self._lock = threading.Lock()
        self._disks: set[DiskImage] = set()
        self._granted = 0
        self._landing = 0
        self._paused_until = 0.0
        self._has_warned = False
        self._reads = itertools.count(1)
        self._memory: dict[tuple[bytes, int], memoryview] = {}
        self._memory_lock = threading.Lock()
        self._counts_lock = threading.Lock()
        self._hits = self._misses = 0

    def count(self, *, is_hit: bool) -> None:
        """Count a part of a chunk that a reader wanted."""
        with self._counts_lock:
            if is_hit:
                self._hits += 1
            else:
                self._misses += 1

    def counts(self) -> CacheCounts:
        """The counts so far."""
        with self._counts_lock:
            return CacheCounts(self._hits, self._misses)

    def open(self, chunks: Chunks) -> DiskImage | None:
        """Open an image on the disk; None if that is not possible."""
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

    def release(self, disk: DiskImage | None, chunks: Chunks) -> None:
        """Close an image that `open` has opened, and drop its chunks from memory."""
        with self._memory_lock:
            for key in [key for key in self._memory if key[0] == chunks.fingerprint]:
                del self._memory[key]
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
        if (chunks.fingerprint, index) in self._memory:
            return True
        return disk is not None and disk.has(index)

    def get(
        self, disk: DiskImage | None, chunks: Chunks, index: int, start: int, end: int
    ) -> Data | None:
        """The bytes `[start, end)` of an image, which are in chunk `index`; None if not here."""
        with self._memory_lock:
            chunk = self._memory.get((chunks.fingerprint, index))
        if chunk is not None:
            base, _ = chunks.span(index, index + 1)
            return chunk[start - base : end - base]
        if disk is None:
            return None
        try:
            return disk.read(index, start, end, next(self._reads))
        except OSError as error:
            self._trouble(error)
            with suppress(OSError):
                disk.drop([index])
            return None

    def put(
        self, disk: DiskImage | None, chunks: Chunks, index: int, data: bytes | memoryview
    ) -> bool:
        """Keep a verified chunk; True if it goes to the disk, which then releases its lock.

        With a disk, the caller holds the chunk's lock.
        """
        goes_to_disk = disk is not None and self._land(disk, index, data)
        # In memory only now: whoever finds the chunk there may next ask whether the whole image
        # is on the disk.
        self._remember((chunks.fingerprint, index), memoryview(data))
        return goes_to_disk

    def wait_for_room(self) -> None:
        """Wait until there is room in memory for more."""
        self._flusher.wait_for_room()

    def close(self) -> None:
        """Make the landed chunks durable, and end the thread.  Idempotent."""
        self._flusher.close()

    def _land(self, disk: DiskImage, index: int, data: bytes | memoryview) -> bool:
        if not self._reserve(len(data)):
            return False
        try:
            disk.land(index, data, next(self._reads))
        except OSError as error:
            self._trouble(error)
            return False
        finally:
            with self._lock:
                self._landing -= len(data)
        self._flusher.add(disk, len(data))
        return True

    def _remember(self, key: tuple[bytes, int], data: memoryview) -> None:
        with self._memory_lock:
            self._memory.pop(key, None)
            self._memory[key] = data
            while len(self._memory) > 1 and sum(map(len, self._memory.values())) > _IN_MEMORY:
                del self._memory[next(iter(self._memory))]

    def _reserve(self, size: int) -> bool:
        """Reserve room for a chunk of `size` bytes; False if there is none."""
        assert self._folder is not None
        with self._lock:
            if time.monotonic() < self._paused_until:
                return False
            if self._granted < size:
                # Chunks that are just landing have no room on the disk yet, but will need it.
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
        """Drop `wanted` bytes of the chunks, of images open here, that were read longest ago."""
        assert self._folder is not None
        disks = [disk for disk in self._disks if not self._folder.is_pinned(disk.image)]
        freed = _drop_oldest(disks, wanted)
        if freed < wanted:
            # Landed chunks can be dropped only when they are claimed.  Threads that fetch wait for
            # the disk here.
            for disk in disks:
                disk.flush()
            freed += _drop_oldest(disks, wanted - freed)
        return freed

    def _trouble(self, reason: object) -> None:
        """Leave the disk alone for a while; log the reason the first time."""
        self._paused_until = time.monotonic() + _PAUSE
        if not self._has_warned:
            self._has_warned = True
            path = None if self._folder is None else self._folder.path
            _log.warning("the cache %s takes nothing: %s; reads go on without it", path, reason)


def _drop_oldest(disks: list[DiskImage], wanted: int) -> int:
    """Drop the claimed chunks that were read longest ago; return the bytes freed."""
    candidates = ((used, disk, index) for disk in disks for used, index in disk.last_used())
    victims: defaultdict[DiskImage, list[int]] = defaultdict(list)
    for _used, disk, index in sorted(candidates, key=lambda candidate: candidate[0]):
        if wanted <= 0:
            break
        victims[disk].append(index)
        wanted -= disk.chunk_size
    return sum(disk.drop(indices) for disk, indices in victims.items())
