"""A cache of its own for each test, whose threads and files are all gone at the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread of a cache, and no open file of one, outlives its test."""
    before = _in_use()
    yield
    assert _in_use() <= before


def _in_use() -> set[str]:
    """The threads and the open files of caches."""
    found = {f"thread {thread.ident}" for thread in threading.enumerate() if _is_ours(thread)}
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            file = os.readlink(f"/proc/self/fd/{fd}")
            if file.endswith(("/data", "/map", "/lock")):
                found.add(f"{fd} {file}")
    return found


def _is_ours(thread: threading.Thread) -> bool:
    return thread.name.startswith("cache-")


@pytest.fixture
def folder(tmp_path: Path) -> CacheFolder:
    """A folder with room enough."""
    return CacheFolder(tmp_path / "cache", 1 << 30)


@pytest.fixture
def cache(folder: CacheFolder) -> Iterator[BlockCache]:
    """A strict cache in that folder."""
    cache = BlockCache(folder)
    yield cache
    cache.close()
