"""Digest algorithms, by the names that images record.

An image records the name of the algorithm with its digests, so that digests of an earlier
algorithm stay valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from catalog.errors import InvalidValue
from catalog.model.image import CHUNK_SIZE, ChunkDigests

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK_ALGO = "blake3"
"""The algorithm of new chunk digests: as strong as SHA-256, and four times as fast, even where
the processor has instructions for SHA-256."""


class Hash(Protocol):
    """What hashlib's objects and those of other libraries have in common."""

    @property
    def digest_size(self) -> int: ...

    def update(self, data: ReadableBuffer, /) -> object: ...

    def digest(self) -> bytes: ...

    def hexdigest(self) -> str: ...


_OTHERS: dict[str, Callable[[], Hash]] = {"blake3": blake3}


def new_hash(algo: str) -> Hash:
    """An empty digest.  Raises ValueError for an algorithm that is not known."""
    make = _OTHERS.get(algo)
    return make() if make else hashlib.new(algo, usedforsecurity=False)


def digest_of(algo: str, data: ReadableBuffer) -> bytes:
    """The digest of some bytes.  Raises ValueError as `new_hash`."""
    found = new_hash(algo)
    found.update(data)
    return found.digest()


class ChunkDigester:
    """Computes a digest for every CHUNK_SIZE bytes; the bytes are given in order."""

    def __init__(self) -> None:
        self._done: list[bytes] = []
        self._start()

    def _start(self) -> None:
        self._hash = new_hash(CHUNK_ALGO)
        self._room = CHUNK_SIZE

    def update(self, data: memoryview) -> None:
        """Give the next bytes."""
        while data:
            part = data[: self._room]
            self._hash.update(part)
            self._room -= len(part)
            if self._room == 0:
                self._done.append(self._hash.digest())
                self._start()
            data = data[len(part) :]

    def value(self) -> ChunkDigests:
        """The digests of all bytes given so far."""
        last = () if self._room == CHUNK_SIZE else (self._hash.digest(),)
        return ChunkDigests(CHUNK_ALGO, CHUNK_SIZE, (*self._done, *last))


_HASH_LENGTHS = {64: "sha256", 96: "sha384", 128: "sha512"}


def hash_algorithm(value: str) -> str:
    """The algorithm of a hexadecimal digest, by its length.  Raises InvalidValue."""
    algo = _HASH_LENGTHS.get(len(value))
    if algo is None or any(digit not in "0123456789abcdefABCDEF" for digit in value):
        raise InvalidValue("os_hash_value", "is a sha256, sha384 or sha512 in hexadecimal")
    return algo
