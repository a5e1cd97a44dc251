"""Several processes of one host on one cache: each is a BlockCache, as locks go by open file."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder
from tests.catalog.cache.remote import CHUNK, Remote, open_at, some_data

pytestmark = pytest.mark.stress

DATA = some_data(40 * CHUNK)


@pytest.mark.parametrize("step", [10_000, 3 * CHUNK])
def test_each_chunk_is_fetched_once(folder: CacheFolder, step: int) -> None:
    """Four processes read one cold image with four threads each: the store sends it once."""
    remote = Remote()
    remote.put("image", DATA)
    caches = [BlockCache(folder) for _ in range(4)]
    readers = [open_at(cache, DATA, remote) for cache in caches]

    def read_all(number: int) -> bool:
        offsets = list(range(0, len(DATA), step))
        if number % 2:
            random.Random(number).shuffle(offsets)
        reader = readers[number % 4]
        return all(reader.read_at(at, step) == DATA[at : at + step] for at in offsets)

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(read_all, range(16)))
    for reader, cache in zip(readers, caches, strict=True):
        reader.close()
        cache.close()
    assert remote.fetched() == len(DATA)
    assert set(remote.of_chunks().values()) == {1}


def test_fetch_of_a_process_that_fails(folder: CacheFolder) -> None:
    """When the one that fetches gives up, the one that waits for it fetches."""
    remote, begun, fail = Remote(), threading.Event(), threading.Event()

    def hold(_offset: int, _size: int) -> None:
        if not begun.is_set():
            begun.set()
            assert fail.wait(30)
            raise ConnectionError("of this process")

    remote.before = hold
    one, other = BlockCache(folder), BlockCache(folder)
    with (
        ThreadPoolExecutor(2) as threads,
        closing(open_at(one, DATA, remote)) as first,
        closing(open_at(other, DATA, remote)) as second,
    ):
        failing = threads.submit(first.read_at, 0, 10)
        assert begun.wait(30)
        waiting = threads.submit(second.read_at, 0, 10)
        fail.set()
        assert waiting.result() == DATA[:10]
        assert failing.result() == DATA[:10]
    one.close()
    other.close()
