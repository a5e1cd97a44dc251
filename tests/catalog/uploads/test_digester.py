"""Digests that follow the writer, against hashlib over the finished file."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from catalog.model.image import CHUNK_SIZE
from catalog.uploads.digester import Digester, Digests
from tests.kit.images.written import DATA, KIB, WRITERS, Written, at_will, in_order


class Digested(Written):
    """A file and the digester that follows it."""

    def __init__(self, path: Path, algo: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.digester = Digester(fd, algo, checksum=True)
        super().__init__(fd, self.digester)

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


@pytest.fixture(params=["sha256", "sha384", "sha512"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Digested]:
    """An empty file that is followed."""
    written = Digested(tmp_path / "file", request.param)
    yield written
    written.digester.stop()
    os.close(written.fd)


@pytest.mark.parametrize("write", WRITERS)
def test_digests_are_those_of_the_file(file: Digested, write: Callable[[Written], bytes]) -> None:
    """Whatever the order of writes, every digest is that of the finished file."""
    data = write(file)
    check(file.finish(), data)


@pytest.mark.parametrize("seed", range(5))
def test_random_writes_and_cuts(tmp_path: Path, seed: int) -> None:
    """Like fsx: hundreds of random steps, compared with a plain buffer."""
    file = Digested(tmp_path / "file", "sha256")
    model = at_will(file, random.Random(seed), CHUNK_SIZE + 100 * KIB)
    check(file.finish(), model)
    file.digester.stop()
    os.close(file.fd)


def test_a_file_that_shrinks_behind_our_back_is_an_error(file: Digested) -> None:
    """A digest is never that of a part: finish raises instead."""
    in_order(file)
    os.ftruncate(file.fd, 10)
    with pytest.raises(OSError, match="ended"):
        file.digester.finish(len(DATA) + 1)


def test_stop_is_idempotent(file: Digested) -> None:
    """Ending the threads twice does no harm."""
    file.digester.stop()
    file.digester.stop()
