"""A store that stands for a remote one: it counts what is asked, and fails as it is told."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import cache

from catalog.cache.block_cache import BlockCache
from catalog.cache.chunks import Chunks
from catalog.cache.reader import CachedReader
from catalog.cache.sources import Copy
from catalog.model.image import ChunkDigests
from catalog.stores.memory import MemoryReader, MemoryStore, MemoryStoreSettings

CHUNK = 1 << 16
"""Small, so that a test has many of them."""


@cache
def some_data(size: int, seed: int = 0) -> bytes:
    """Random bytes, the same for each `seed`."""
    return random.Random(seed).randbytes(size)


def chunks_of(data: bytes, image: str = "image", size: int = CHUNK) -> Chunks:
    """The chunks of some data."""
    parts = (data[at : at + size] for at in range(0, len(data), size))
    digests = tuple(hashlib.sha256(part).digest() for part in parts)
    return Chunks(image, len(data), ChunkDigests("sha256", size, digests))


class Remote(MemoryStore):
    """A memory store without a local file, whose reads are counted and can be tampered with."""

    def __init__(self, name: str = "remote") -> None:
        super().__init__(name, MemoryStoreSettings())
        self.asked: list[tuple[int, int]] = []
        """Offset and size of each read."""
        self.opened = 0
        self.before: Callable[[int, int], None] = lambda offset, size: None
        """Called with offset and size when a read begins; may raise."""
        self.bad: Counter[int] = Counter()
        """Offset of a byte -> how often it is still sent wrong."""
        self.lock = threading.Lock()

    def open(self, url: str) -> RemoteReader:
        """Open an object."""
        self.opened += 1
        return RemoteReader(self, super().open(url))

    def fetched(self) -> int:
        """Bytes asked for so far."""
        return sum(size for _offset, size in self.asked)

    def of_chunks(self, size: int = CHUNK) -> Counter[int]:
        """How often each chunk was asked for, wholly or partly."""
        return Counter(
            index
            for offset, length in self.asked
            for index in range(offset // size, -(-(offset + length) // size))
        )


class RemoteReader(MemoryReader):
    """An open object of a Remote."""

    def __init__(self, remote: Remote, reader: MemoryReader) -> None:
        super().__init__(reader.read_at(0, reader.size))
        self._remote = remote

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes, damaged where they shall be."""
        with self._remote.lock:
            self._remote.asked.append((offset, size))
        self._remote.before(offset, size)
        data = bytearray(super().read_at(offset, size))
        with self._remote.lock:
            for at in [at for at, left in self._remote.bad.items() if left > 0]:
                if offset <= at < offset + len(data):
                    self._remote.bad[at] -= 1
                    data[at - offset] ^= 0xFF
        return bytes(data)


def open_at(
    cache: BlockCache, data: bytes, *remotes: Remote, image: str = "image", size: int = CHUNK
) -> CachedReader:
    """Open an image that lies in these stores, put there if need be."""
    copies = []
    for remote in remotes:
        url = remote.url_of(image)
        if image not in set(remote.keys()):
            remote.put(image, data)
        copies.append(Copy(remote, url))
    return cache.open(
        image, chunks_of(data, image, size), lambda: copies, lambda copy, offset: None
    )
