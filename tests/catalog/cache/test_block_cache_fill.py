"""`[cache] fill`: the rest of an open image is fetched behind its readers' backs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder
from catalog.errors import StoreUnavailable
from tests.catalog.cache.remote import CHUNK, Remote, open_at, some_data
from tests.kit.daemon import wait_until

DATA = some_data(20 * CHUNK + 7, 3)


@pytest.fixture
def filling(folder: CacheFolder) -> Iterator[BlockCache]:
    """A cache that fills."""
    cache = BlockCache(folder, fill=True)
    yield cache
    cache.close()


def test_an_open_image_becomes_complete(filling: BlockCache) -> None:
    """Though nobody reads it; each chunk is fetched once, and its store is not needed again."""
    remote = Remote()
    with closing(open_at(filling, DATA, remote)) as reader:
        wait_until(reader.is_complete, "the image is not filled")
        assert set(remote.of_chunks().values()) == {1}
        remote.delete(remote.url_of("image"))
        assert reader.read_at(0, len(DATA)) == DATA


def test_a_closed_image_is_left(filling: BlockCache, folder: CacheFolder) -> None:
    """What is on its way when the last reader goes is the last."""
    remote = Remote()
    remote.before = lambda offset, size: time.sleep(0.02)
    open_at(filling, DATA, remote).close()
    wait_until(lambda: not folder.images()[0].is_open, "the image stays open")
    assert remote.fetched() < len(DATA) // 2


def test_it_goes_on_after_a_failure(filling: BlockCache) -> None:
    """A store that was away is asked again when a read has shown that it is back."""
    remote = Remote()
    is_back = threading.Event()

    def away_at_the_fourth(_offset: int, _size: int) -> None:
        if len(remote.asked) > 3 and not is_back.is_set():
            raise StoreUnavailable("remote", "is away")

    remote.before = away_at_the_fourth
    with closing(open_at(filling, DATA, remote)) as reader:
        wait_until(lambda: len(remote.asked) > 3, "nothing is fetched")
        is_back.set()
        assert reader.read_at(len(DATA) - 10, 10) == DATA[-10:]
        wait_until(reader.is_complete, "the image is not filled")


def test_an_image_larger_than_the_cache_is_not_filled(folder: CacheFolder) -> None:
    """It would push itself out."""
    cache = BlockCache(CacheFolder(folder.path, len(DATA) // 2), fill=True)
    remote = Remote()
    with closing(open_at(cache, DATA, remote)) as reader:
        assert reader.read_at(0, 10) == DATA[:10]
        time.sleep(0.1)
        assert remote.of_chunks() == {0: 1}
    cache.close()
