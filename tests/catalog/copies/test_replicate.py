"""Copies in other stores: `ln`, `mv` across stores, `rm` of one link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.copies.recovery import recover
from catalog.copies.replicate import replicate
from catalog.errors import (
    AlreadyExists,
    CatalogError,
    Conflict,
    DataDamaged,
    NotSupported,
    Protected,
    StoreFull,
    StoreUnavailable,
)
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE, Image
from catalog.model.tree import Place
from catalog.rules import copies, fields
from catalog.settings import Settings
from catalog.stores.memory import MemoryStore, MemoryStoreSettings
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from catalog.upkeep.store_check import note
from catalog.upkeep.verify import verify
from tests.kit.catalog import (
    ALICE,
    begin,
    entry,
    folder_at,
    image_at,
    keys_in,
    link,
    make_folder,
    names_in,
    new_catalog,
    put,
    read,
    remove,
    rename,
    set_fields,
    some_bytes,
    staged_files,
)
from tests.kit.damage import overwrite

DATA = some_bytes(2 * CHUNK_SIZE + 77)


@pytest.mark.parametrize(
    ("source", "target"), [("file", "other"), ("file", "memory"), ("memory", "file")]
)
def test_a_link_in_another_store_is_a_copy_there(vfs: Vfs, source: str, target: str) -> None:
    """One image with two entries, each with its own data."""
    image = put(vfs, f"/{source}/a", DATA)
    done: list[int] = []
    vfs.link(image.number, vfs.place(f"/{target}/b"), ALICE, progress=done.append)
    assert sum(done) == len(DATA)
    assert image_at(vfs, f"/{target}/b").id == image.id
    assert keys_in(vfs, source) == keys_in(vfs, target) == {image.id}
    assert read(vfs, f"/{target}/b") == DATA
    assert vfs.catalog.details(image.number).stores == tuple(sorted((source, target)))


def test_rm_of_one_link_drops_that_copy_only(vfs: Vfs) -> None:
    """The image stays active with the other; the last link then goes to the trash."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    remove(vfs, "/file/a")
    assert keys_in(vfs, "file") == set()
    assert names_in(vfs, "/file/.trash") == set()
    assert image_at(vfs, "/other/a").status == "active"
    assert read(vfs, "/other/a") == DATA
    remove(vfs, "/other/a")
    assert image_at(vfs, "/other/.trash/a").id == image.id


def test_a_dropped_copy_can_be_made_again(vfs: Vfs) -> None:
    """Nothing of the first one stands in the way."""
    put(vfs, "/file/a", DATA)
    for _ in range(2):
        link(vfs, "/file/a", "/other/a")
        remove(vfs, "/other/a")
    assert keys_in(vfs, "other") == set()


def test_a_move_across_stores_keeps_the_image(vfs: Vfs) -> None:
    """The same id and properties, with its data there and no longer here."""
    image = put(vfs, "/file/a", DATA)
    fields.set_attributes(vfs.catalog, image.number, {"property.os_distro": "debian"}, ALICE)
    make_folder(vfs, "/other/d")
    rename(vfs, "/file/a", "/other/d/b")
    after = image_at(vfs, "/other/d/b")
    assert (after.id, after.name, after.status) == (image.id, "b", "active")
    assert vfs.catalog.details(image.number).properties == {"os_distro": "debian"}
    assert (keys_in(vfs, "file"), keys_in(vfs, "other")) == (set(), {image.id})
    assert read(vfs, "/other/d/b") == DATA
    assert names_in(vfs, "/file") == set()


def test_a_move_across_stores_replaces(vfs: Vfs) -> None:
    """What had the name goes to its own store's trash."""
    put(vfs, "/file/a", b"new")
    old = put(vfs, "/other/a", b"old")
    with pytest.raises(AlreadyExists):
        rename(vfs, "/file/a", "/other/a", replace=False)
    rename(vfs, "/file/a", "/other/a")
    assert read(vfs, "/other/a") == b"new"
    assert image_at(vfs, "/other/.trash/a").id == old.id


def test_a_damaged_image_is_not_copied(vfs: Vfs, tmp_path: Path) -> None:
    """The bad chunk is named by its offset, and the target stays as it was."""
    image = put(vfs, "/file/a", DATA)
    stored = tmp_path / "file" / image.id
    stored.chmod(0o600)
    with stored.open("r+b") as file:
        file.seek(CHUNK_SIZE + 5)
        file.write(b"\0\1\2")
    with pytest.raises(DataDamaged) as caught:
        link(vfs, "/file/a", "/other/a")
    assert caught.value.offset == CHUNK_SIZE
    assert names_in(vfs, "/other") == set()
    assert (keys_in(vfs, "other"), staged_files(tmp_path)) == (set(), [])


def test_a_full_store_takes_no_half_of_a_copy(vfs: Vfs) -> None:
    """The image keeps what it had, and can be copied elsewhere."""
    image = put(vfs, "/file/a", bytes((1 << 24) + 1))
    with pytest.raises(StoreFull):
        rename(vfs, "/file/a", "/memory/a")
    assert vfs.catalog.details(image.number).stores == ("file",)
    link(vfs, "/file/a", "/other/a")


def test_an_interrupted_copy_leaves_nothing(vfs: Vfs, tmp_path: Path) -> None:
    """Ctrl-C in the middle: no data, no staging file, no row."""
    image = put(vfs, "/file/a", DATA)

    def interrupt(_size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vfs.link(image.number, vfs.place("/other/a"), ALICE, progress=interrupt)
    assert (keys_in(vfs, "other"), staged_files(tmp_path)) == (set(), [])
    with vfs.catalog.read() as repository:
        assert len(repository.locations_of(image.number)) == 1
        assert repository.uploads() == []
    link(vfs, "/file/a", "/other/a")


def test_what_cannot_be_linked(vfs: Vfs) -> None:
    """Within one store, onto a name that is taken, without data."""
    image = put(vfs, "/file/a", DATA)
    with pytest.raises(NotSupported):
        link(vfs, "/file/a", "/file/b")
    put(vfs, "/other/taken")
    with pytest.raises(AlreadyExists):
        link(vfs, "/file/a", "/other/taken")
    link(vfs, "/file/a", "/other/a")
    with pytest.raises(NotSupported):
        link(vfs, "/file/a", "/other/b")
    saving = begin(vfs, "/file/saving", b"x")
    with pytest.raises(Conflict):
        vfs.link(saving.image.number, vfs.place("/other/saving"), ALICE)
    queued = vfs.create(vfs.place("/file/queued"), ALICE).image
    with pytest.raises(Conflict):
        vfs.link(queued.number, vfs.place("/other/queued"), ALICE)
    assert len(keys_in(vfs, "other")) == 2
    assert image.id in keys_in(vfs, "other")


def test_a_protected_target_refuses_a_move(vfs: Vfs) -> None:
    """And the moved image stays where it was, complete."""
    image = put(vfs, "/file/a", DATA)
    put(vfs, "/other/a", b"protected")
    set_fields(vfs, "/other/a", protected="true")
    with pytest.raises(Protected):
        rename(vfs, "/file/a", "/other/a")
    assert read(vfs, "/other/a") == b"protected"
    assert read(vfs, "/file/a") == DATA
    assert image.id not in keys_in(vfs, "other")


def test_an_image_is_copied_by_one_at_a_time(vfs: Vfs) -> None:
    """A second copy while one goes on is Conflict, and does the first no harm."""
    image = put(vfs, "/file/a", DATA)
    refused: list[CatalogError] = []

    def link_meanwhile(_size: int) -> None:
        try:
            vfs.link(image.number, vfs.place("/memory/a"), ALICE)
        except Conflict as error:
            refused.append(error)

    vfs.link(image.number, vfs.place("/other/a"), ALICE, progress=link_meanwhile)
    assert refused
    assert read(vfs, "/other/a") == DATA


def test_dropping_one_copy_leaves_another_s_note(vfs: Vfs) -> None:
    """While a copy is being made, removing another does not make it look finished."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    noted: list[bool] = []

    def drop_other(_size: int) -> None:
        if not noted:
            remove(vfs, "/other/a")
            with vfs.catalog.read() as repository:
                noted.append(repository.upload(image.number) is not None)

    vfs.link(image.number, vfs.place("/memory/a"), ALICE, progress=drop_other)
    assert noted == [True]
    assert vfs.catalog.details(image.number).stores == ("file", "memory")


def test_a_move_never_drops_another_image(vfs: Vfs) -> None:
    """The source's name is given to another image while the data is copied: that one stays."""
    image = put(vfs, "/file/a", DATA)
    put(vfs, "/file/b", b"another")
    source, target = vfs.place("/file/a"), vfs.place("/other/a")
    swapped: list[bool] = []

    def swap(_size: int) -> None:
        if not swapped:
            swapped.append(True)
            rename(vfs, "/file/a", "/file/c")
            rename(vfs, "/file/b", "/file/a")

    with pytest.raises(Conflict):
        replicate(vfs.catalog, image, "other", target, ALICE, progress=swap, instead_of=source)
    assert read(vfs, "/file/a") == b"another"
    assert read(vfs, "/file/c") == DATA
    assert (keys_in(vfs, "other"), names_in(vfs, "/other")) == (set(), set())


def test_a_deactivated_image_is_copied_as_such(vfs: Vfs) -> None:
    """Its status is the image's, not the copy's."""
    put(vfs, "/file/a", DATA)
    set_fields(vfs, "/file/a", status="deactivated")
    link(vfs, "/file/a", "/other/a")
    assert image_at(vfs, "/other/a").status == "deactivated"
    assert read(vfs, "/other/a", ADMIN) == DATA


def test_a_copy_cannot_go_into_the_trash(vfs: Vfs) -> None:
    """Only deleted images are there."""
    put(vfs, "/file/a", DATA)
    trash = folder_at(vfs, "/other/.trash").number
    with pytest.raises(CatalogError):
        vfs.link(image_at(vfs, "/file/a").number, Place(trash, "a"), ALICE)
    assert keys_in(vfs, "other") == set()
    assert entry(vfs, "/file/a").store == "file"


# What a copy is made of


def test_a_bad_chunk_comes_from_another_copy(vfs: Vfs, tmp_path: Path) -> None:
    """The new copy is whole, and the bad one is marked."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/memory/a")
    overwrite(tmp_path / "file" / image.id, CHUNK_SIZE, b"\0\1\2")
    link(vfs, "/file/a", "/other/a")
    assert (tmp_path / "other" / image.id).read_bytes() == DATA
    assert damaged_in(vfs, image) == {"file"}


@pytest.mark.parametrize("size", [CHUNK_SIZE, 2 * CHUNK_SIZE, 0])
def test_a_truncated_copy_is_not_copied(vfs: Vfs, tmp_path: Path, size: int) -> None:
    """Though every chunk that is left is right."""
    image = put(vfs, "/file/a", DATA)
    stored = tmp_path / "file" / image.id
    stored.chmod(0o600)
    os.truncate(stored, size)
    with pytest.raises(StoreUnavailable):
        link(vfs, "/file/a", "/other/a")
    assert (keys_in(vfs, "other"), staged_files(tmp_path)) == (set(), [])


class ReachingStore(MemoryStore):
    """A memory store that has the objects of another as if they were of one service."""

    def __init__(self, beside: MemoryStore) -> None:
        super().__init__("beside", MemoryStoreSettings())
        self._beside = beside
        self.cut = 0

    def reaches(self, url: str) -> bool:
        """Whether the url is of the other store."""
        return url.startswith("memory://memory/")

    def copy(self, url: str, key: str) -> str:
        """Take the other's object, cut by `cut` bytes."""
        reader = self._beside.open(url)
        return self.put(key, reader.read_at(0, reader.size - self.cut))


@pytest.fixture
def reaching(settings: Settings, tmp_path: Path) -> Iterator[tuple[Vfs, ReachingStore]]:
    """A catalog with the stores `memory` and `beside` of one service."""
    stores = {**settings.stores, "beside": MemoryStoreSettings()}
    catalog = new_catalog(Settings("test", settings.catalog, stores))
    memory = catalog.store("memory")
    assert isinstance(memory, MemoryStore)
    beside = ReachingStore(memory)
    catalog.stores = {**catalog.stores, "beside": beside}
    yield Vfs(catalog), beside
    catalog.close()


def test_stores_of_one_service_copy_by_themselves(
    reaching: tuple[Vfs, ReachingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte passes through this host, and the progress says that all is done."""
    vfs, beside = reaching
    image = put(vfs, "/memory/a", DATA)
    monkeypatch.setattr(beside, "writer", None)
    done: list[int] = []
    vfs.link(image.number, vfs.place("/beside/a"), ALICE, progress=done.append)
    assert (sum(done), read(vfs, "/beside/a")) == (len(DATA), DATA)


def test_what_a_service_copied_short_passes_through_this_host(
    reaching: tuple[Vfs, ReachingStore],
) -> None:
    """Its size is asked for, before it gets an entry."""
    vfs, beside = reaching
    put(vfs, "/memory/a", DATA)
    beside.cut = 1
    link(vfs, "/memory/a", "/beside/a")
    assert read(vfs, "/beside/a") == DATA


def test_what_a_service_refuses_to_copy_passes_through_this_host(
    reaching: tuple[Vfs, ReachingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our credentials may not be allowed to read there."""
    vfs, beside = reaching

    def refuse(url: str, _key: str) -> str:
        raise StoreUnavailable(url, "the server refuses our credentials")

    put(vfs, "/memory/a", DATA)
    monkeypatch.setattr(beside, "copy", refuse)
    link(vfs, "/memory/a", "/beside/a")
    assert read(vfs, "/beside/a") == DATA


def test_a_service_is_not_asked_to_copy_what_is_damaged(
    reaching: tuple[Vfs, ReachingStore], tmp_path: Path
) -> None:
    """The good chunks pass through this host instead."""
    vfs, beside = reaching
    image = put(vfs, "/memory/a", DATA)
    link(vfs, "/memory/a", "/file/a")
    memory = vfs.catalog.store("memory")
    assert isinstance(memory, MemoryStore)
    memory.put(image.id, b"x" + DATA[1:])
    list(verify(vfs.catalog, image, ADMIN))
    beside.cut = 1
    link(vfs, "/memory/a", "/beside/a")
    assert read(vfs, "/beside/a") == DATA


def test_a_duplicate_of_a_damaged_copy_is_whole(vfs: Vfs, tmp_path: Path) -> None:
    """A store duplicates what is bad as it is: what is marked comes from another copy."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    overwrite(tmp_path / "file" / image.id, 0, b"\0\1\2")
    list(verify(vfs.catalog, image, ADMIN))
    vfs.copy(entry(vfs, "/file/a"), vfs.place("/file/b"), ALICE, replace=False)
    assert read(vfs, "/file/b") == DATA


# What the message tells


def test_the_message_tells_how_far_a_copy_is(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it goes on; then it is what it was.  The image's time stays all the while."""
    monkeypatch.setattr("catalog.copies.progress.INTERVAL", 0.0)
    image = put(vfs, "/file/a", DATA)
    note(vfs.catalog, image.number, "seen by fsck")
    before = image_at(vfs, "/file/a")
    told: list[str] = []
    times = set()
    changes = []

    def look(_size: int) -> None:
        now = image_at(vfs, "/file/a")
        told.append(now.message)
        times.add(now.updated_at)
        with vfs.catalog.read() as repository:
            changes.append(repository.last_change())

    vfs.link(image.number, vfs.place("/other/a"), ALICE, progress=look)
    assert told == [f"copying to store other: {percent} %" for percent in (49, 99, 100)]
    assert times == {before.updated_at}
    assert len(set(changes)) == 1
    assert image_at(vfs, "/file/a").message == "seen by fsck"


def test_a_short_copy_tells_nothing(vfs: Vfs) -> None:
    """Messages come some seconds apart: the first one too."""
    image = put(vfs, "/file/a", DATA)
    told: list[str] = []
    vfs.link(
        image.number,
        vfs.place("/other/a"),
        ALICE,
        progress=lambda _size: told.append(image_at(vfs, "/file/a").message),
    )
    assert set(told) == {""}


def test_a_failure_stays_in_the_message_until_a_copy_succeeds(vfs: Vfs, tmp_path: Path) -> None:
    """With its reason."""
    image = put(vfs, "/file/a", DATA)
    stored = tmp_path / "file" / image.id
    overwrite(stored, CHUNK_SIZE, b"\0\1\2")
    with pytest.raises(DataDamaged):
        link(vfs, "/file/a", "/other/a")
    message = image_at(vfs, "/file/a").message
    assert message.startswith("copying to store other failed: ")
    assert str(CHUNK_SIZE) in message
    overwrite(stored, 0, DATA)
    link(vfs, "/file/a", "/other/a")
    assert image_at(vfs, "/file/a").message == ""


# When it is cut off


@pytest.mark.parametrize("store", ["other", "memory"])
def test_a_signal_right_after_the_commit_costs_nothing(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """The moved image keeps its new data: that is all there is."""
    put(vfs, "/file/a", DATA)
    finish = copies.finish_copy

    def interrupted(*arguments: Any, **options: Any) -> None:
        finish(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(copies, "finish_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rename(vfs, "/file/a", f"/{store}/a")
    recover(vfs.catalog)
    assert read(vfs, f"/{store}/a") == DATA
    assert names_in(vfs, "/file") == set()
    assert list(fsck(vfs.catalog, repair=False)) == []


def test_what_a_store_does_not_let_go_is_taken_over_by_the_next_copy(
    vfs: Vfs, tmp_path: Path
) -> None:
    """It went away in the middle: its row stays, is no entry, and stands in nobody's way."""
    image = put(vfs, "/file/a", DATA)
    other, away = tmp_path / "other", tmp_path / "away"

    def unmount(_size: int) -> None:
        if other.exists():
            other.rename(away)

    with pytest.raises(StoreUnavailable):
        vfs.link(image.number, vfs.place("/other/a"), ALICE, progress=unmount)
    away.rename(other)
    assert names_in(vfs, "/other") == set()
    assert read(vfs, "/file/a") == DATA
    link(vfs, "/file/a", "/memory/a")
    link(vfs, "/file/a", "/other/a")
    assert read(vfs, "/other/a") == DATA
    assert (staged_files(tmp_path), list(fsck(vfs.catalog, repair=False))) == ([], [])


def damaged_in(vfs: Vfs, image: Image) -> set[str]:
    """The stores whose copy is marked."""
    with vfs.catalog.read() as repository:
        marked = repository.damaged(image.number)
        return {x.store for x in repository.locations_of(image.number) if x.number in marked}
