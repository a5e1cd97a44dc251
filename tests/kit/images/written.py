"""Ways to write a file, in order and not, that is followed while it is written."""

from __future__ import annotations

import os
import random
from typing import Protocol

from catalog.model.image import CHUNK_SIZE
from tests.kit.catalog import some_bytes

KIB = 1 << 10
DATA = some_bytes(2 * CHUNK_SIZE + 12345)


class Follower(Protocol):
    """What an upload tells of its file."""

    def before_write(self, offset: int) -> None: ...
    def after_write(self, end: int) -> None: ...
    def truncate(self, size: int) -> None: ...


class Written:
    """A file and its follower, used as an upload uses them."""

    def __init__(self, fd: int, follower: Follower) -> None:
        self.fd = fd
        self._follower = follower

    def write(self, offset: int, data: bytes) -> None:
        """As `Upload.write`."""
        self._follower.before_write(offset)
        os.pwrite(self.fd, data, offset)
        self._follower.after_write(offset + len(data))

    def truncate(self, size: int) -> None:
        """As `Upload.truncate`."""
        self._follower.truncate(size)
        os.ftruncate(self.fd, size)


def in_order(file: Written) -> bytes:
    """Blocks one after the other."""
    for at in range(0, len(DATA), 128 * KIB):
        file.write(at, DATA[at : at + 128 * KIB])
    return DATA


def at_random(file: Written) -> bytes:
    """The same blocks in any order."""
    offsets = list(range(0, len(DATA), 128 * KIB))
    random.Random(1).shuffle(offsets)
    for at in offsets:
        file.write(at, DATA[at : at + 128 * KIB])
    return DATA


def sparse(file: Written) -> bytes:
    """A hole at the start, in the middle and at the end."""
    file.write(CHUNK_SIZE + 5, b"middle")
    file.truncate(2 * CHUNK_SIZE + 1)
    return bytes(CHUNK_SIZE + 5) + b"middle" + bytes(CHUNK_SIZE - 10)


def cut(file: Written) -> bytes:
    """Longer at first, then shortened."""
    in_order(file)
    file.truncate(CHUNK_SIZE - 1)
    return DATA[: CHUNK_SIZE - 1]


def cut_and_grown(file: Written) -> bytes:
    """What is beyond the cut reads as zeros, not as the old data."""
    in_order(file)
    file.truncate(100)
    file.write(200, b"end")
    return DATA[:100] + bytes(100) + b"end"


def header_rewritten(file: Written) -> bytes:
    """As qemu-img does: the header again at the end."""
    in_order(file)
    file.write(0, b"HEADER")
    return b"HEADER" + DATA[6:]


def tail_rewritten(file: Written) -> bytes:
    """A last write within what was written last."""
    in_order(file)
    file.write(len(DATA) - 10, b"x" * 5)
    return DATA[:-10] + b"x" * 5 + DATA[-5:]


def whole_chunks(file: Written) -> bytes:
    """Ends exactly with a chunk."""
    file.write(0, DATA[: 2 * CHUNK_SIZE])
    return DATA[: 2 * CHUNK_SIZE]


def empty(file: Written) -> bytes:
    """No data at all."""
    return b""


WRITERS = [
    in_order,
    at_random,
    sparse,
    cut,
    cut_and_grown,
    header_rewritten,
    tail_rewritten,
    whole_chunks,
    empty,
]


def at_will(file: Written, chance: random.Random, size: int) -> bytes:
    """Like fsx: hundreds of random writes and cuts, most of them forward; what is to be there."""
    model = bytearray()
    for _ in range(300):
        offset = chance.randrange(size)
        if chance.random() < 0.1:
            file.truncate(offset)
            model = model[:offset].ljust(offset, b"\0")
            continue
        if chance.random() < 0.7:
            offset = len(model)  # most writers go forward
        data = chance.randbytes(chance.randrange(1, size // 100))
        file.write(offset, data)
        model = model.ljust(offset, b"\0")
        model[offset : offset + len(data)] = data
    return bytes(model)
