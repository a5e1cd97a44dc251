"""Which chunks a cache file has: the file `map` beside the file `data`.

The map has a header, and then a slot for each chunk: a token and a generation, 8 bytes each.  The
token is a digest of the image's fingerprint, the chunk's number and the generation.  So each slot
proves itself: a slot that a crash has torn, or that belongs to other data, has no valid token.
There is no other record that could contradict it, and a claim is one write of 16 bytes.

The generation grows with each claim.  A reader compares the slot before and after its read: if it
is the same, the bytes were not dropped meanwhile, nor dropped and fetched again.

Threading and processes: slots are read from shared memory.  Only who holds the lock of a chunk
(`disk`) writes its slot.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from catalog.cache.chunks import Chunks

VERSION = 1
_HEADER_SIZE = 4096
_SLOT = struct.Struct("<8sQ")
_NO_TOKEN = bytes(8)


@dataclass(frozen=True, slots=True)
class Header:
    """The image of a map."""

    version: int
    image: str
    size: int
    chunk_size: int
    algo: str
    fingerprint: str
    """Hexadecimal; a digest of all fields above and of every chunk's digest
    (`Chunks.fingerprint`)."""

    @classmethod
    def of(cls, chunks: Chunks) -> Header:
        """The header of a new map."""
        digests = chunks.digests
        fingerprint = chunks.fingerprint.hex()
        return cls(
            VERSION, chunks.image, chunks.size, digests.chunk_size, digests.algo, fingerprint
        )

    @classmethod
    def read(cls, fd: int) -> Header | None:
        """The header of an open map; None if it is not of this version.  Raises OSError."""
        try:
            found = cls(**json.loads(os.pread(fd, _HEADER_SIZE, 0).rstrip(b"\0")))
        except (ValueError, TypeError):
            return None
        return found if found.version == VERSION else None

    @property
    def count(self) -> int:
        """The number of chunks."""
        return -(-self.size // self.chunk_size)

    def encode(self) -> bytes:
        """The header's bytes in the file."""
        return json.dumps(asdict(self)).encode().ljust(_HEADER_SIZE, b"\0")


def make(fd: int, header: Header) -> None:
    """Make an empty file a durable map without claims.  Raises OSError."""
    # All room is allocated now, so that no claim can fail for lack of room.
    os.pwrite(fd, header.encode(), 0)
    os.posix_fallocate(fd, _HEADER_SIZE, max(1, header.count) * _SLOT.size)
    os.fsync(fd)


def count_claims(fd: int, header: Header) -> int:
    """The number of chunks that an open map claims.  Raises OSError."""
    slots = Slots(fd, header)
    try:
        return sum(slots.stamp(index) is not None for index in range(header.count))
    finally:
        slots.close()


def place_of(index: int) -> tuple[int, int]:
    """Offset and size of a slot in the file; the lock of its chunk is a lock on this range."""
    return _HEADER_SIZE + index * _SLOT.size, _SLOT.size


class Slots:
    """The slots of one open map."""

    def __init__(self, fd: int, header: Header) -> None:
        """Use the map open at `fd`, which the caller closes.  Raises OSError, ValueError."""
        self._fd = fd
        self._key = bytes.fromhex(header.fingerprint)
        size = _HEADER_SIZE + max(1, header.count) * _SLOT.size
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._proved: dict[int, bytes] = {}

    def stamp(self, index: int) -> bytes | None:
        """The slot's bytes if it claims its chunk; they stay the same while the data does."""
        offset, size = place_of(index)
        found = self._map[offset : offset + size]
        if self._proved.get(index) == found:
            return found
        token, generation = _SLOT.unpack(found)
        if token == _NO_TOKEN or token != self._token(index, generation):
            return None
        self._proved[index] = found
        return found

    def claim(self, indices: Iterable[int]) -> None:
        """Claim chunks whose data is durable; the claims are durable at return.  Raises OSError."""
        for index in indices:
            generation = self._generation(index) + 1
            self._write(index, self._token(index, generation), generation)
        os.fdatasync(self._fd)

    def clear(self, indices: Iterable[int]) -> None:
        """Take claims back before the data is dropped; durable at return.  Raises OSError."""
        for index in indices:
            self._write(index, _NO_TOKEN, self._generation(index))
            self._proved.pop(index, None)
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Unmap the shared memory."""
        self._map.close()

    def _generation(self, index: int) -> int:
        generation: int = _SLOT.unpack_from(self._map, place_of(index)[0])[1]
        return generation % (1 << 63)  # A torn slot may have any number.

    def _write(self, index: int, token: bytes, generation: int) -> None:
        os.pwrite(self._fd, _SLOT.pack(token, generation), place_of(index)[0])

    def _token(self, index: int, generation: int) -> bytes:
        content = struct.pack("<QQ", index, generation)
        return hashlib.blake2b(content, key=self._key, digest_size=8).digest()
