"""The chunks of an image's data and their digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from catalog.model.digests import digest_of
from catalog.model.image import ChunkDigests


@dataclass(frozen=True)
class Chunks:
    """The chunks of one image's data.  Frozen; safe to share."""

    image: str
    """The image's id."""
    size: int
    """Bytes of the whole image."""
    digests: ChunkDigests

    @cached_property
    def count(self) -> int:
        return -(-self.size // self.digests.chunk_size)

    @cached_property
    def fingerprint(self) -> bytes:
        """16 bytes that differ from those of any other data, of this image or another one."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.image} {self.size} {self.digests.chunk_size} ".encode())
        digest.update(self.digests.algo.encode() + b" " + b"".join(self.digests.digests))
        return digest.digest()

    def index_of(self, offset: int) -> int:
        """The chunk that has the byte at `offset`."""
        return offset // self.digests.chunk_size

    def span(self, first: int, end: int) -> tuple[int, int]:
        """The bytes `[start, end)` of the chunks `[first, end)`."""
        return first * self.digests.chunk_size, min(end * self.digests.chunk_size, self.size)

    def is_good(self, index: int, data: bytes | memoryview) -> bool:
        """Whether `data` is right for chunk `index`."""
        start, end = self.span(index, index + 1)
        digest = digest_of(self.digests.algo, data)
        return len(data) == end - start and self.digests.digests[index : index + 1] == (digest,)
