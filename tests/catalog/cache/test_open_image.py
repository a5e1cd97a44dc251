"""Which images go through the cache, and what becomes of their bad and absent copies."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from catalog.cache.pool import THREADS, Job, Pool, Urgency
from catalog.cache.reader import CachedReader
from catalog.catalog import Catalog
from catalog.copies.reader import BOOT_PROFILE
from catalog.errors import DataDamaged, StoreUnavailable
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE
from catalog.settings import CacheSettings, Settings
from catalog.stores.memory import MemoryStore, MemoryStoreSettings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import ALICE, link, new_catalog, put, read_image, settings_at, some_bytes
from tests.kit.daemon import wait_until

DATA = some_bytes(5_200_000)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A catalog with a cache: its memory store is what is remote."""
    plain = settings_at(tmp_path)
    cache = CacheSettings(path=tmp_path / "cache")
    stores = {**plain.stores, "memory": MemoryStoreSettings()}
    catalog = new_catalog(Settings("test", plain.catalog, stores, cache))
    yield catalog
    catalog.close()


@pytest.fixture
def vfs(catalog: Catalog) -> Vfs:
    """The tree of that catalog."""
    return Vfs(catalog)


def damage(catalog: Catalog, image: str) -> None:
    """Change one byte of the copy in memory."""
    store = catalog.store("memory")
    assert isinstance(store, MemoryStore)
    store.put(image, DATA[:5_000_000] + bytes([DATA[5_000_000] ^ 1]) + DATA[5_000_001:])


def test_remote_image_is_cached(vfs: Vfs) -> None:
    """It is read through the cache, and the second time from its file."""
    image = put(vfs, "/memory/a", DATA)
    assert read_image(vfs, image.number) == DATA

    def has_file() -> bool:
        with closing(vfs.open(image.number, ALICE)) as reader:
            assert isinstance(reader, CachedReader)
            return reader.fileno() is not None

    wait_until(has_file, "the cache has written it")


def test_local_image_is_read_as_it_is(vfs: Vfs, tmp_path: Path) -> None:
    """A copy in a folder of this host is preferred, and never cached."""
    image = put(vfs, "/memory/a", DATA)
    link(vfs, "/memory/a", "/file/a")
    reader = vfs.open(image.number, ALICE)
    assert not isinstance(reader, CachedReader)
    assert reader.read_at(0, len(DATA)) == DATA
    reader.close()
    (tmp_path / "file" / image.id).unlink()
    assert read_image(vfs, image.number) == DATA


def test_cached_image_outlives_its_store(vfs: Vfs) -> None:
    """What is all in the cache is read while its store is away; what is not, is not."""
    image, other = put(vfs, "/memory/a", DATA), put(vfs, "/memory/b", DATA)
    assert read_image(vfs, image.number) == DATA
    for each in (image, other):
        vfs.catalog.store("memory").delete(vfs.catalog.store("memory").url_of(each.id))
    assert read_image(vfs, image.number) == DATA
    with pytest.raises(StoreUnavailable, match="no copy can be read"):
        read_image(vfs, other.number)


@pytest.mark.expect_log(r"memory: a \(.*\): the chunk at offset 4194304 is damaged")
def test_damaged_image_is_an_error(vfs: Vfs, catalog: Catalog) -> None:
    """Never other bytes: the chunk that is wrong is an error, the others are read."""
    image = put(vfs, "/memory/a", DATA)
    damage(catalog, image.id)
    with pytest.raises(DataDamaged):
        read_image(vfs, image.number)
    reader = vfs.open(image.number, ADMIN)
    assert reader.read_at(0, 1 << 22) == DATA[: 1 << 22]
    with pytest.raises(DataDamaged):
        reader.read_at(5_000_000, 1)
    reader.close()


@pytest.mark.expect_log("is damaged")
def test_damaged_copy_is_replaced_by_a_good_one(vfs: Vfs, catalog: Catalog, tmp_path: Path) -> None:
    """A chunk of which the only copy that answers is bad is read as soon as another answers."""
    image = put(vfs, "/memory/a", DATA)
    link(vfs, "/memory/a", "/file/a")
    damage(catalog, image.id)
    assert catalog.cache.folder is not None
    catalog.cache.folder.drop(image.id)
    file = tmp_path / "file" / image.id
    file.rename(tmp_path / "away")
    reader = vfs.open(image.number, ADMIN)
    assert isinstance(reader, CachedReader)
    with pytest.raises(DataDamaged):
        reader.read_at(0, len(DATA))
    (tmp_path / "away").rename(file)
    assert reader.read_at(0, len(DATA)) == DATA
    reader.close()


def test_reopened_image_is_other_data(vfs: Vfs) -> None:
    """What a writer that reopened its image has changed is never read from the cache."""
    image = put(vfs, "/memory/a", DATA)
    assert read_image(vfs, image.number) == DATA
    upload = vfs.uploads.reopen(image.number)
    upload.write(100, b"changed")
    upload.commit()
    changed = DATA[:100] + b"changed" + DATA[107:]
    assert read_image(vfs, image.number) == changed


def test_boot_profile_is_a_property(vfs: Vfs) -> None:
    """What the first boot reads is kept with the image, where the next host finds it."""
    data = some_bytes(12 * CHUNK_SIZE)
    image = put(vfs, "/memory/a", data)
    reader = vfs.open(image.number, ALICE)
    for index in (0, 7, 8, 3):
        at = index * CHUNK_SIZE + 5
        assert reader.read_at(at, 512) == data[at : at + 512]
    reader.close()

    def properties() -> Mapping[str, str]:
        with vfs.catalog.read() as repository:
            return repository.properties(image.number)

    # The last thread that worked for the image saves it.
    wait_until(properties, "the profile is not saved")
    assert properties() == {BOOT_PROFILE: "0,7-8,3"}
    assert read_image(vfs, image.number) == data
    assert properties() == {BOOT_PROFILE: "0,7-8,3"}


def test_a_prefetch_leaves_threads_to_readers() -> None:
    """However much is fetched soon, what somebody waits for begins at once."""
    pool, go, began = Pool(), threading.Event(), threading.Event()

    def work(urgency: Urgency) -> None:
        if urgency is Urgency.WANTED:
            began.set()
        go.wait(30)

    for _ in range(2 * THREADS):
        pool.submit(Job("remote", Urgency.SOON, work, go.set))
    pool.submit(Job("remote", Urgency.WANTED, work, go.set))
    assert began.wait(30)
    go.set()
    pool.close()
