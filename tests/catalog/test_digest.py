"""Digests that follow the writer, against hashlib over the finished file."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from catalog.digest import Digester, Digests
from catalog.image import CHUNK_SIZE
from tests.catalog.actions import some_bytes

KIB = 1 << 10
DATA = some_bytes(2 * CHUNK_SIZE + 12345)


class Written:
    """A file and the digester that follows it, used as an upload uses them."""

    def __init__(self, path: Path, algo: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.digester = Digester(self.fd, algo, checksum=True)

    def write(self, offset: int, data: bytes) -> None:
        """As `Upload.write`."""
        self.digester.before_write(offset)
        os.pwrite(self.fd, data, offset)
        self.digester.after_write(offset + len(data))

    def truncate(self, size: int) -> None:
        """As `Upload.truncate`."""
        self.digester.truncate(size)
        os.ftruncate(self.fd, size)

    def finish(self) -> Digests:
        """The digests of the whole file."""
        return self.digester.finish(os.fstat(self.fd).st_size)


def check(found: Digests, data: bytes) -> None:
    """Compare every digest with hashlib's."""
    algo = found.os_hash_algo
    assert found.os_hash_value == hashlib.new(algo, data).hexdigest()
    assert found.checksum == hashlib.md5(data, usedforsecurity=False).hexdigest()
    parts = [data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)]
    assert found.chunks.digests == tuple(blake3(part).digest() for part in parts)
    assert (found.chunks.algo, found.chunks.chunk_size) == ("blake3", CHUNK_SIZE)


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


@pytest.fixture(params=["sha256", "sha384", "sha512"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Written]:
    """An empty file that is followed."""
    written = Written(tmp_path / "file", request.param)
    yield written
    written.digester.stop()
    os.close(written.fd)


@pytest.mark.parametrize("write", WRITERS)
def test_digests_are_those_of_the_file(file: Written, write: Callable[[Written], bytes]) -> None:
    """Whatever the order of writes, every digest is that of the finished file."""
    data = write(file)
    check(file.finish(), data)


@pytest.mark.parametrize("seed", range(5))
def test_random_writes_and_cuts(tmp_path: Path, seed: int) -> None:
    """Like fsx: hundreds of random steps, compared with a plain buffer."""
    chance = random.Random(seed)
    file, model = Written(tmp_path / "file", "sha256"), bytearray()
    for _ in range(300):
        offset = chance.randrange(CHUNK_SIZE + 100 * KIB)
        if chance.random() < 0.1:
            file.truncate(offset)
            model = model[:offset].ljust(offset, b"\0")
            continue
        if chance.random() < 0.7:
            offset = len(model)  # most writers go forward
        data = chance.randbytes(chance.randrange(1, 40 * KIB))
        file.write(offset, data)
        model = model.ljust(offset, b"\0")
        model[offset : offset + len(data)] = data
    check(file.finish(), bytes(model))
    file.digester.stop()
    os.close(file.fd)


def test_a_file_that_shrinks_behind_our_back_is_an_error(file: Written) -> None:
    """A digest is never that of a part: finish raises instead."""
    in_order(file)
    os.ftruncate(file.fd, 10)
    with pytest.raises(OSError, match="ended"):
        file.digester.finish(len(DATA) + 1)


def test_stop_is_idempotent(file: Written) -> None:
    """Ending the threads twice does no harm."""
    file.digester.stop()
    file.digester.stop()
