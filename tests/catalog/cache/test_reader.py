"""Reading through the block cache: each byte right, each chunk fetched once."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder
from catalog.cache.reader import CachedReader, Verify
from catalog.cache.sources import Copy
from catalog.errors import DataChanged, DataDamaged, StoreUnavailable
from tests.catalog.cache.remote import CHUNK, Remote, chunks_of, open_at, some_data

DATA = some_data(50 * CHUNK + 12_345)


@contextmanager
def opened(folder: CacheFolder | None, verify: Verify = Verify.STRICT) -> Iterator[BlockCache]:
    """A cache as another process would open it."""
    cache = BlockCache(folder, verify)
    try:
        yield cache
    finally:
        cache.close()


@pytest.mark.parametrize("verify", Verify)
@pytest.mark.parametrize("on_disk", [True, False])
def test_each_range_is_exact(folder: CacheFolder, verify: Verify, on_disk: bool) -> None:
    """Any range, cut at the end, cold and warm, in both modes, with a disk and without."""
    chance = random.Random(1)
    with opened(folder if on_disk else None, verify) as cache:
        reader = open_at(cache, DATA, Remote())
        assert reader.size == len(DATA)
        for _ in range(300):
            offset = chance.randrange(len(DATA) + 10)
            size = chance.choice([0, 1, 4096, CHUNK, 3 * CHUNK + 1, len(DATA)])
            assert reader.read_at(offset, size) == DATA[offset : offset + size]
        reader.close()
        reader.close()


def test_empty_image(cache: BlockCache) -> None:
    """An image without bytes has no chunks."""
    with closing(open_at(cache, b"", Remote())) as reader:
        assert (reader.size, reader.read_at(0, 10)) == (0, b"")


def test_many_readers_fetch_each_chunk_once(cache: BlockCache) -> None:
    """16 readers of one cold image, each in its own order: the store sends each chunk once."""
    remote = Remote()
    readers = [open_at(cache, DATA, remote) for _ in range(16)]

    def read_all(number: int) -> bool:
        offsets = list(range(0, len(DATA), 10_000))
        random.Random(number).shuffle(offsets)
        return all(readers[number].read_at(at, 10_000) == DATA[at : at + 10_000] for at in offsets)

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(read_all, range(16)))
    for reader in readers:
        reader.close()
    assert set(remote.of_chunks().values()) == {1}
    assert remote.fetched() == len(DATA)


def test_what_is_cached_needs_no_store(folder: CacheFolder) -> None:
    """A whole image in the cache is opened and read without asking any store."""
    remote = Remote()
    with opened(folder) as cache, closing(open_at(cache, DATA, remote)) as reader:
        assert reader.read_at(0, len(DATA)) == DATA
        assert reader.fileno() is None
    remote.opened = 0
    remote.before = _fail
    with opened(folder) as cache, closing(open_at(cache, DATA, remote)) as reader:
        fd = reader.fileno()
        assert fd is not None
        assert os.pread(fd, len(DATA) + 1, 0) == DATA
        assert reader.read_at(100, 1000) == DATA[100:1100]
    assert remote.opened == 0


def test_no_copy_that_opens(cache: BlockCache) -> None:
    """What is not cached needs a copy at once: open fails, not the first read."""
    with pytest.raises(StoreUnavailable, match="no copy can be read"):
        cache.open("image", chunks_of(DATA), list, lambda copy, offset: None)
    remote = Remote()
    url = remote.put("image", DATA + b"more")
    with pytest.raises(StoreUnavailable, match="bytes instead of"):
        cache.open("image", chunks_of(DATA), lambda: [Copy(remote, url)], lambda c, o: None)


def test_failure_passes(cache: BlockCache) -> None:
    """A read that failed fails once: the next one asks again."""
    remote = Remote()
    reader = open_at(cache, DATA, remote)
    remote.before = _fail
    with pytest.raises(StoreUnavailable, match="is gone"):
        reader.read_at(0, 10)
    remote.before = lambda offset, size: None
    assert reader.read_at(0, 10) == DATA[:10]
    reader.close()


def test_changed_object_is_opened_again(cache: BlockCache) -> None:
    """Whatever a store did with the object, the digests tell whether its bytes are right."""
    remote = Remote()
    reader = open_at(cache, DATA, remote)
    failures = [DataChanged("image")]
    remote.before = lambda offset, size: _raise_next(failures)
    assert reader.read_at(5, 10) == DATA[5:15]
    assert remote.opened == 2
    reader.close()


@pytest.mark.parametrize("size", [10, 5 * CHUNK])
def test_chunk_damaged_on_the_way(cache: BlockCache, size: int) -> None:
    """A chunk that came wrong once is fetched once more, and nobody is told."""
    remote, told = Remote(), list[int]()
    remote.bad[3 * CHUNK + 7] = 1
    reader = _reporting(cache, told, remote)
    assert reader.read_at(3 * CHUNK, size) == DATA[3 * CHUNK : 3 * CHUNK + size]
    assert remote.of_chunks()[3] == 2
    assert told == []
    reader.close()


def test_bad_copy_is_passed_over_and_reported(cache: BlockCache) -> None:
    """A chunk that is wrong in one store comes from the next, and the bad copy is reported."""
    first, second, told = Remote("first"), Remote("second"), list[int]()
    first.bad[3 * CHUNK + 7] = 1000
    reader = _reporting(cache, told, first, second)
    assert reader.read_at(0, len(DATA)) == DATA
    assert told == [3 * CHUNK]
    assert second.of_chunks()[3] == 1
    reader.close()


def test_no_good_copy(cache: BlockCache) -> None:
    """Bytes that no copy has right are an error, and never handed out."""
    first, second = Remote("first"), Remote("second")
    first.bad[7] = second.bad[CHUNK - 1] = 1000
    reader = open_at(cache, DATA, first, second)
    for _ in range(2):
        with pytest.raises(DataDamaged) as caught:
            reader.read_at(0, 3 * CHUNK)
        assert caught.value.offset == 0
    assert reader.read_at(CHUNK, 10) == DATA[CHUNK : CHUNK + 10]
    reader.close()


def test_lazy_hands_nothing_out_that_is_known_to_be_bad(folder: CacheFolder) -> None:
    """A lazy read may see a bad byte once, before its chunk was verified, and not again."""
    remote, told = Remote(), list[int]()
    remote.bad[7] = 1000
    with opened(folder, Verify.LAZY) as cache:
        reader = _reporting(cache, told, remote)
        reader.read_at(0, 10)
        with pytest.raises(DataDamaged):
            reader.read_at(0, 10)
        with pytest.raises(DataDamaged):
            reader.read_at(0, 10)
        assert told == [0]
        reader.close()


def test_store_that_fails_is_passed_over(cache: BlockCache) -> None:
    """The next copy answers where the first does not."""
    first, second = Remote("first"), Remote("second")
    reader = open_at(cache, DATA, first, second)
    first.before = _fail
    assert reader.read_at(0, len(DATA)) == DATA
    reader.close()


def test_store_that_fails_costs_one_failure(cache: BlockCache) -> None:
    """After its first failure the other copy is asked first, whatever the weights say."""
    first, second = Remote("first"), Remote("second")
    reader = open_at(cache, DATA, first, second)
    first.before = _fail
    for index in (30, 5, 17, 2, 45, 11):
        assert reader.read_at(index * CHUNK, 10) == DATA[index * CHUNK : index * CHUNK + 10]
    assert (len(first.asked), len(second.asked)) == (1, 6)
    reader.close()


def test_copies_that_moved_are_found(cache: BlockCache) -> None:
    """An image that was moved to another store while it is open is read there."""
    old, new = Remote("old"), Remote("new")
    copies = [Copy(old, old.put("image", DATA))]
    reader = cache.open("image", chunks_of(DATA), lambda: copies, lambda copy, offset: None)
    assert reader.read_at(0, 10) == DATA[:10]
    copies[:] = [Copy(new, new.put("image", DATA))]
    old.before = _fail
    assert reader.read_at(5 * CHUNK, 10) == DATA[5 * CHUNK : 5 * CHUNK + 10]
    reader.close()


def test_lazy_answers_at_once_and_verifies_behind(folder: CacheFolder) -> None:
    """A small read at random is one small request; its chunk is then fetched and kept."""
    remote, may_fill = Remote(), threading.Event()

    def hold_chunks(_offset: int, size: int) -> None:
        if size == CHUNK:
            assert may_fill.wait(30)

    remote.before = hold_chunks
    with opened(folder, Verify.LAZY) as cache:
        reader = open_at(cache, DATA, remote)
        assert reader.read_at(20 * CHUNK + 5, 1000) == DATA[20 * CHUNK + 5 :][:1000]
        assert (20 * CHUNK + 5, 1000) in remote.asked
        may_fill.set()
        # The chunk is on its way now: this read waits for it.
        assert reader.read_at(20 * CHUNK + 2000, 1000) == DATA[20 * CHUNK + 2000 :][:1000]
        assert sorted(remote.asked) == [(20 * CHUNK, CHUNK), (20 * CHUNK + 5, 1000)]
        reader.close()


def test_strict_reads_nothing_but_chunks(cache: BlockCache) -> None:
    """One byte asked at random is one chunk fetched."""
    remote = Remote()
    reader = open_at(cache, DATA, remote)
    for index in (40, 3, 17):
        reader.read_at(index * CHUNK + 9, 1)
    assert sorted(remote.asked) == [(index * CHUNK, CHUNK) for index in (3, 17, 40)]
    reader.close()


def test_reading_in_order_keeps_requests_in_flight(cache: BlockCache) -> None:
    """A reader in order finds the next chunks there: several requests run at once, up to 8."""
    data = some_data(300 * CHUNK, 2)
    remote, most, running = Remote(), [0], [0]

    def count(_offset: int, _size: int) -> None:
        with remote.lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.002)
        with remote.lock:
            running[0] -= 1

    remote.before = count
    reader = open_at(cache, data, remote)
    for offset in range(0, len(data), 30_000):
        assert reader.read_at(offset, 30_000) == data[offset : offset + 30_000]
    reader.close()
    assert 2 <= most[0] <= 8
    assert remote.fetched() == len(data)
    assert len(remote.asked) < 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_small_disk(small_disk: Path) -> None:
    """A disk smaller than the image holds what was read last, and reading ahead is not undone."""
    remote = Remote()
    with opened(CacheFolder(small_disk, 1 << 30)) as cache:
        with closing(open_at(cache, DATA, remote)) as reader:
            for offset in range(0, len(DATA), 10_000):
                assert reader.read_at(offset, 10_000) == DATA[offset : offset + 10_000]
            assert remote.fetched() == len(DATA)
            assert reader.read_at(len(DATA) - 10, 10) == DATA[-10:]
        assert remote.fetched() == len(DATA)


@pytest.mark.parametrize("first", [0, 10])
@pytest.mark.expect_log("reads go on without it")
def test_full_disk(small_disk: Path, first: int) -> None:
    """Reads go on when the disk is full, from the beginning or suddenly, and it is said once."""
    remote = Remote()
    cache_folder = CacheFolder(small_disk / "cache", 1 << 30)
    with opened(cache_folder) as cache:
        if first == 0:
            _fill(small_disk)
        with closing(open_at(cache, DATA, remote)) as reader:
            assert reader.read_at(0, first) == DATA[:first]
            _fill(small_disk)
            for offset in range(0, len(DATA), 10_000):
                assert reader.read_at(offset, 10_000) == DATA[offset : offset + 10_000]
    assert remote.fetched() <= 1.5 * len(DATA)


@pytest.mark.expect_log("reads go on without it")
def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A cache whose path is a file is no reason not to read."""
    (tmp_path / "file").write_text("not a folder")
    with (
        opened(CacheFolder(tmp_path / "file/cache", 1 << 30)) as cache,
        closing(open_at(cache, DATA, Remote())) as reader,
    ):
        assert reader.read_at(0, len(DATA)) == DATA


def test_closing_gives_up_what_is_being_fetched(folder: CacheFolder) -> None:
    """Reads that wait when the cache is closed end with an error, and all threads end."""
    remote, begun, go_on = Remote(), threading.Event(), threading.Event()

    def hold(_offset: int, _size: int) -> None:
        begun.set()
        assert go_on.wait(30)

    remote.before = hold
    with ThreadPoolExecutor(20) as threads:
        cache = BlockCache(folder)
        reader = open_at(cache, DATA, remote)
        reads = [threads.submit(reader.read_at, at * CHUNK, 10) for at in range(20)]
        assert begun.wait(30)
        closing_thread = threads.submit(cache.close)
        threading.Timer(0.1, go_on.set).start()
        closing_thread.result()
        failed = [read for read in reads if read.exception() is not None]
        assert all(isinstance(read.exception(), StoreUnavailable) for read in failed)
        reader.close()


def _fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _reporting(cache: BlockCache, told: list[int], *remotes: Remote) -> CachedReader:
    copies = [Copy(remote, remote.put("image", DATA)) for remote in remotes]
    return cache.open(
        "image", chunks_of(DATA), lambda: copies, lambda copy, offset: told.append(offset)
    )


def _fail(_offset: int, _size: int) -> None:
    raise StoreUnavailable("remote", "is gone")


def _raise_next(failures: list[DataChanged]) -> None:
    if failures:
        raise failures.pop()
