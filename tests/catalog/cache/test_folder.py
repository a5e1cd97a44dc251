"""The cache's folder: who is in it, what goes when it is full, and what never does."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder
from catalog.errors import Conflict
from tests.catalog.cache.remote import CHUNK, Remote, open_at, some_data

DATA = some_data(8 * CHUNK, 5)
_EXTRA = CHUNK // 2
"""Bytes for blocks in which the file system notes where an image's blocks are."""


def fill(folder: CacheFolder, *images: str) -> None:
    """Read images from end to end, one after the other."""
    for age, image in enumerate(images):
        cache = BlockCache(folder)
        with closing(open_at(cache, DATA, Remote(), image=image)) as reader:
            assert reader.read_at(0, len(DATA)) == DATA
        cache.close()
        # A file system's clock may be too coarse to tell which came first.
        os.utime(folder.path / "images" / image / "map", (age, age))


def present(folder: CacheFolder) -> set[str]:
    """The images that are there whole."""
    return {found.image for found in folder.images() if found.claimed == found.chunks}


def test_listing(folder: CacheFolder) -> None:
    """Each image with what it has, what was used last first."""
    assert folder.images() == []
    fill(folder, "a", "b")
    folder.pin("a")
    listed = folder.images()
    assert [found.image for found in listed] == ["b", "a"]
    assert [found.is_pinned for found in listed] == [False, True]
    for found in listed:
        assert found.size == len(DATA)
        assert len(DATA) <= found.cached < len(DATA) + CHUNK
        assert (found.chunks, found.claimed, found.is_open) == (8, 8, False)
    assert folder.usage() == sum(found.cached for found in listed)


def test_least_recently_used_goes_first(tmp_path: Path) -> None:
    """The folder never holds more than its size; what nobody has read longest goes."""
    folder = CacheFolder(tmp_path / "cache", 3 * len(DATA) + _EXTRA)
    fill(folder, "a", "b", "c")
    assert present(folder) == {"a", "b", "c"}
    fill(folder, "d")
    assert folder.usage() <= folder.size
    assert "d" in present(folder)
    assert "a" not in present(folder)


def test_pinned_and_open_images_stay(tmp_path: Path) -> None:
    """Neither a pinned image nor one that another process reads is evicted."""
    folder = CacheFolder(tmp_path / "cache", 3 * len(DATA) + _EXTRA)
    fill(folder, "a", "b", "c")
    folder.pin("a")
    other = BlockCache(CacheFolder(folder.path, folder.size))
    with closing(open_at(other, DATA, Remote(), image="b")) as reader:
        fill(folder, "d")
        assert {"a", "b", "d"} <= present(folder)
        assert "c" not in present(folder)
        assert reader.read_at(0, len(DATA)) == DATA
    other.close()
    folder.unpin("a")
    assert not any(found.is_pinned for found in folder.images())


def test_open_image_larger_than_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read all the same: what was read longest ago makes room for the rest."""
    monkeypatch.setattr("catalog.cache.shelf._IN_MEMORY", CHUNK)
    folder = CacheFolder(tmp_path / "cache", len(DATA) // 2)
    cache = BlockCache(folder)
    remote = Remote()
    with closing(open_at(cache, DATA, remote)) as reader:
        for index in range(8):
            assert reader.read_at(index * CHUNK, CHUNK) == DATA[index * CHUNK :][:CHUNK]
            assert folder.usage() <= folder.size
        assert remote.fetched() == len(DATA)
        assert reader.read_at(7 * CHUNK, CHUNK) == DATA[7 * CHUNK :]
        assert remote.fetched() == len(DATA)
        assert reader.read_at(0, CHUNK) == DATA[:CHUNK]
        assert remote.fetched() == len(DATA) + CHUNK
    cache.close()


@pytest.mark.expect_log("nothing can be evicted")
def test_everything_is_pinned(tmp_path: Path) -> None:
    """Then other images are read past the cache."""
    folder = CacheFolder(tmp_path / "cache", len(DATA) + _EXTRA)
    fill(folder, "a")
    folder.pin("a")
    fill_unkept(folder)
    assert present(folder) == {"a"}


def fill_unkept(folder: CacheFolder) -> None:
    """Read an image for which there is no room."""
    cache = BlockCache(folder)
    with closing(open_at(cache, DATA, Remote(), image="b")) as reader:
        assert reader.read_at(0, len(DATA)) == DATA
    cache.close()


def test_dropping(folder: CacheFolder) -> None:
    """An image that nobody reads can be dropped; one that is read cannot."""
    folder.drop("a")
    fill(folder, "a")
    cache = BlockCache(CacheFolder(folder.path, folder.size))
    with closing(open_at(cache, DATA, Remote(), image="a")), pytest.raises(Conflict):
        folder.drop("a")
    cache.close()
    folder.drop("a")
    assert folder.images() == []
    assert folder.usage() == 0


def test_what_a_crash_left_goes(folder: CacheFolder) -> None:
    """Folders half made or half removed are swept when room is made; no image is hurt."""
    fill(folder, "a")
    for name in (".new-1", ".old-2"):
        (folder.path / "images" / name).mkdir()
        (folder.path / "images" / name / "data").write_bytes(b"left")
    folder.make_room(1, 1, lambda wanted: 0)
    assert os.listdir(folder.path / "images") == ["a"]
    assert present(folder) == {"a"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """What root caches can be used by the server's own user, and by nobody else."""
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", 1234, 1234)
    folder = CacheFolder(tmp_path / "cache", 1 << 30)
    fill(folder, "a")
    for path in folder.path.rglob("*"):
        assert path.stat().st_uid == 1234, path
        assert path.stat().st_mode & 0o077 == 0, path
