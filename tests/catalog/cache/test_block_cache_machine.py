"""Any sequence of reads, drops, evictions, restarts and damage, against the plain bytes."""

from __future__ import annotations

import logging
import shutil
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from catalog.cache.block_cache import BlockCache
from catalog.cache.disk import DATA, MAP
from catalog.cache.folder import CacheFolder
from catalog.cache.reader import CachedReader, Verify
from catalog.errors import Conflict, StoreUnavailable
from tests.catalog.cache.remote import CHUNK, Remote, chunks_of, open_at, some_data

IMAGES = {
    name: some_data(size, seed)
    for seed, (name, size) in enumerate({"a": 6 * CHUNK, "b": 9 * CHUNK + 17, "c": 100}.items(), 10)
}
ROOM = 12 * CHUNK

images = st.sampled_from(sorted(IMAGES))
processes = st.sampled_from([0, 1])


class CacheMachine(RuleBasedStateMachine):
    """Two processes on one cache that is too small for all; each is a BlockCache of its own."""

    def __init__(self) -> None:
        super().__init__()
        # Why the disk takes nothing is said in the log; here it may well be.
        logging.disable(logging.WARNING)
        self.path = Path(tempfile.mkdtemp(prefix="imagefs-cache-"))
        self.remote = Remote()
        self.caches = [self._start(Verify.STRICT), self._start(Verify.LAZY)]
        self.readers: dict[tuple[int, str], CachedReader] = {}

    def _start(self, verify: Verify) -> BlockCache:
        return BlockCache(CacheFolder(self.path / "cache", ROOM), verify)

    @property
    def folder(self) -> CacheFolder:
        return CacheFolder(self.path / "cache", ROOM)

    def _reader(self, process: int, image: str) -> CachedReader:
        key = process, image
        if key not in self.readers:
            self.readers[key] = open_at(
                self.caches[process], IMAGES[image], self.remote, image=image
            )
        return self.readers[key]

    @rule(process=processes, image=images, at=st.floats(0, 1), size=st.integers(0, 5 * CHUNK))
    def read(self, process: int, image: str, at: float, size: int) -> None:
        """Read a range; through a descriptor, too, if there is one."""
        data = IMAGES[image]
        offset = int(at * len(data))
        reader = self._reader(process, image)
        assert reader.read_at(offset, size) == data[offset : offset + size]
        fd = reader.fileno()
        if fd is not None:
            with open(f"/proc/self/fd/{fd}", "rb") as file:
                assert file.read() == data

    @rule(image=images, at=st.floats(0, 1))
    def damage_on_the_way(self, image: str, at: float) -> None:
        """A byte is wrong the first time it is sent; strictly read it is right all the same."""
        data = IMAGES[image]
        offset = int(at * (len(data) - 1))
        self.remote.bad[offset] = 1
        assert self._reader(0, image).read_at(offset, 10) == data[offset : offset + 10]
        self.remote.bad.clear()

    @rule(process=processes, image=images)
    def close(self, process: int, image: str) -> None:
        """Close one reader."""
        reader = self.readers.pop((process, image), None)
        if reader is not None:
            reader.close()

    @rule(process=processes)
    def restart(self, process: int) -> None:
        """End a process properly, and start another."""
        for key in [key for key in self.readers if key[0] == process]:
            self.readers.pop(key).close()
        self.caches[process].close()
        self.caches[process] = self._start(list(Verify)[process])

    @rule(image=images)
    def drop(self, image: str) -> None:
        """`imagefs cache drop`."""
        with suppress(Conflict):
            self.folder.drop(image)

    @rule(image=images)
    def pin(self, image: str) -> None:
        """`imagefs cache pin`, and back."""
        if self.folder.is_pinned(image):
            self.folder.unpin(image)
        else:
            self.folder.pin(image)

    @rule(image=images)
    def store_fails(self, image: str) -> None:
        """While the store is away a read is right or an error."""

        def fail(_offset: int, _size: int) -> None:
            raise StoreUnavailable("remote")

        reader = self._reader(0, image)
        self.remote.before = fail
        with suppress(StoreUnavailable):
            assert reader.read_at(0, 2 * CHUNK) == IMAGES[image][: 2 * CHUNK]
        self.remote.before = lambda offset, size: None

    @precondition(lambda self: (self.path / "cache/images").exists())
    @rule()
    def crash(self) -> None:
        """What a crash at this moment would leave claims only what is there."""
        copy = self.path / "copy"
        for image in IMAGES:
            source, target = self.path / "cache/images" / image, copy / "images" / image
            if _copied(source, target):
                self._check(CacheFolder(copy, ROOM), image)
        shutil.rmtree(copy, ignore_errors=True)

    def _check(self, folder: CacheFolder, image: str) -> None:
        chunks = chunks_of(IMAGES[image], image)
        with closing(folder.open(chunks)) as disk:
            for index in range(chunks.count):
                start, end = chunks.span(index, index + 1)
                assert disk.read(index, start, end) in (None, IMAGES[image][start:end])

    @invariant()
    def is_within_its_room(self) -> None:
        """Each process may have taken room that the other does not see yet, and no more."""
        if (self.path / "cache/images").exists():
            assert self.folder.usage() <= ROOM + 2 * (ROOM // 8 + 4 * CHUNK)

    def teardown(self) -> None:
        """End both processes: nothing of them is left."""
        for process in (0, 1):
            self.restart(process)
            self.caches[process].close()
        shutil.rmtree(self.path)
        logging.disable(logging.NOTSET)


def _copied(source: Path, target: Path) -> bool:
    """Copy an image of the cache, unless it is evicted meanwhile, by what goes on behind a read."""
    target.mkdir(parents=True)
    try:
        for name in (MAP, DATA):
            shutil.copyfile(source / name, target / name)
    except FileNotFoundError:
        shutil.rmtree(target)
        return False
    return True


TestCache: Any = CacheMachine.TestCase
TestCache.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
