"""The filesystem store on a server that forgets open files (NFS: ESTALE)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog.errors import DataChanged, StoreUnavailable
from catalog.stores.folder.store import FilesystemStore, FilesystemStoreSettings
from tests.kit.stores.contract import DATA
from tests.servers.network.stale_mount import forget, stale_mount

pytestmark = pytest.mark.mount


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Path]:
    """The server's side of a store `nfs` with one object `a`; the other is beside it."""
    folder = tmp_path / "behind"
    FilesystemStore("nfs", FilesystemStoreSettings(path=folder)).initialize()
    (folder / "a").write_bytes(DATA)
    with stale_mount(tmp_path) as (behind, _):
        yield behind


@pytest.fixture
def store(behind: Path) -> FilesystemStore:
    """The store as this host sees it."""
    return FilesystemStore("nfs", FilesystemStoreSettings(path=behind.with_name("shared")))


def test_stale_file_is_opened_again(store: FilesystemStore, behind: Path) -> None:
    """The same file goes on being read, by its descriptor as well."""
    reader = store.open(store.url_of("a"))
    for _ in range(3):
        assert reader.read_at(0, 1000) == DATA[:1000]
        forget(behind)
        assert reader.read_at(1000, 5000) == DATA[1000:6000]
        assert os.pread(reader.fileno(), 10, 0) == DATA[:10]
    reader.close()


def test_stale_file_of_many_readers(store: FilesystemStore, behind: Path) -> None:
    """Threads that find it stale at once all get their bytes."""
    reader = store.open(store.url_of("a"))
    before = len(os.listdir("/proc/self/fd"))
    forget(behind)
    offsets = range(0, len(DATA), 10_000)
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda offset: reader.read_at(offset, 10_000), offsets)
        assert b"".join(found) == DATA
    assert len(os.listdir("/proc/self/fd")) <= before  # fewer: of an earlier test that is over
    reader.close()


def test_another_file_is_never_read_instead(store: FilesystemStore, behind: Path) -> None:
    """What took its name meanwhile is not the object that was opened."""
    reader = store.open(store.url_of("a"))
    (behind / "new").write_bytes(DATA[::-1])
    (behind / "new").rename(behind / "a")
    forget(behind)
    with pytest.raises(DataChanged):
        reader.read_at(0, 1000)
    reader.close()


def test_stale_file_that_is_gone(store: FilesystemStore, behind: Path) -> None:
    """It is opened again once, and what that says is told."""
    reader = store.open(store.url_of("a"))
    (behind / ".imagefs-store").unlink()
    forget(behind)
    with pytest.raises(StoreUnavailable, match="is its disk mounted"):
        reader.read_at(0, 1000)
    reader.close()
