"""The catalog's own rules: names that are taken, folders, what may replace what."""

from __future__ import annotations

import uuid

import pytest

from catalog.catalog import Catalog
from catalog.errors import (
    AlreadyExists,
    Conflict,
    FolderNotEmpty,
    Forbidden,
    InvalidName,
    IsAFolder,
    NotAFolder,
    NotFound,
    NotSupported,
    Protected,
)
from catalog.model.access import ADMIN
from catalog.model.tree import Place
from catalog.rules import entries, folders
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.settings import Settings
from catalog.stores.memory import MemoryStoreSettings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    ALICE,
    begin,
    entry,
    image_at,
    keys_in,
    link,
    make_folder,
    names_in,
    put,
    read,
    remove,
    rename,
    set_fields,
)


def test_a_new_catalog_has_its_stores(vfs: Vfs) -> None:
    """Each with a trash, and nothing else."""
    assert names_in(vfs, "/") == {".by-id", "file", "other", "memory"}
    for store in ("file", "other", "memory"):
        assert names_in(vfs, f"/{store}") == names_in(vfs, f"/{store}/.trash") == set()


def test_a_store_added_later_gets_its_folder(settings: Settings) -> None:
    """At the next start; making the catalog again changes nothing else."""
    make_catalog(settings).close()
    stores = {**settings.stores, "late": MemoryStoreSettings()}
    catalog = open_catalog(Settings(settings.source, settings.catalog, stores))
    assert names_in(Vfs(catalog), "/late/.trash") == set()
    catalog.close()
    catalog = make_catalog(settings)
    assert "late" not in names_in(Vfs(catalog), "/")
    with pytest.raises(NotFound):
        Vfs(catalog).resolve("/late")
    catalog.close()


def test_a_store_that_is_not_configured(catalog: Catalog) -> None:
    """Is NotFound, by its name."""
    with pytest.raises(NotFound, match="nowhere"):
        catalog.store("nowhere")


# Creating


def test_a_new_image_is_queued(vfs: Vfs) -> None:
    """Public, of whoever made it, without data."""
    image = vfs.create(vfs.place("/file/a"), ALICE).image
    assert (image.status, image.owner, image.size) == ("queued", "alice", 0)
    assert (image.visibility, image.container_format) == ("public", "bare")
    assert str(uuid.UUID(image.id)) == image.id


def test_a_name_is_unique_in_its_folder(vfs: Vfs) -> None:
    """Among images and folders together; in another folder it is free."""
    put(vfs, "/file/a")
    make_folder(vfs, "/file/d")
    for name in ("a", "d"):
        with pytest.raises(AlreadyExists):
            vfs.create(vfs.place(f"/file/{name}"), ALICE)
        with pytest.raises(AlreadyExists):
            make_folder(vfs, f"/file/{name}")
        put(vfs, f"/file/d/{name}")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/a", Forbidden),
        ("/.by-id", Forbidden),
        ("/.by-id/a", Forbidden),
        ("/file/.trash/a", Forbidden),
        ("/file/.trash", (InvalidName, AlreadyExists)),
    ],
)
def test_where_nothing_is_made(vfs: Vfs, path: str, error: type[Exception]) -> None:
    """The root, /.by-id and the trash are the catalog's own."""
    with pytest.raises(error):
        vfs.create(vfs.place(path), ADMIN)
    with pytest.raises(error):
        make_folder(vfs, path, ADMIN)


def test_a_bad_name_is_refused_everywhere(vfs: Vfs) -> None:
    """Also below the VFS: an entry never gets such a name."""
    put(vfs, "/file/a")
    bad = Place(entry(vfs, "/file/a").folder, "a\nb")
    with pytest.raises(InvalidName):
        entries.create(vfs.catalog, bad, ALICE)
    with pytest.raises(InvalidName):
        folders.make_folder(vfs.catalog, bad, ALICE)
    with pytest.raises(InvalidName):
        entries.rename(vfs.catalog, vfs.place("/file/a"), bad, ALICE)


def test_a_killed_image_s_name_is_taken_anew(vfs: Vfs) -> None:
    """O_TRUNC on it makes a new image; the killed one goes to the trash."""
    old = begin(vfs, "/file/a").image
    vfs.uploads.start(old.number).cancel("failed")
    new = entries.renew(vfs.catalog, vfs.place("/file/a"), ALICE)
    assert new.image.id != old.id
    assert image_at(vfs, "/file/a").status == "queued"
    assert image_at(vfs, "/file/.trash/a").id == old.id


# Folders


def test_folders_nest_and_are_removed_when_empty(vfs: Vfs) -> None:
    """An image or a folder inside keeps one."""
    make_folder(vfs, "/file/d")
    make_folder(vfs, "/file/d/e")
    put(vfs, "/file/d/e/a")
    for path in ("/file/d", "/file/d/e"):
        with pytest.raises(FolderNotEmpty):
            vfs.remove_folder(vfs.place(path), ALICE)
    remove(vfs, "/file/d/e/a")
    vfs.remove_folder(vfs.place("/file/d/e"), ALICE)
    vfs.remove_folder(vfs.place("/file/d"), ALICE)
    assert names_in(vfs, "/file") == set()


def test_a_deleted_image_outlives_its_folder(vfs: Vfs) -> None:
    """It can be restored elsewhere."""
    make_folder(vfs, "/file/d")
    put(vfs, "/file/d/a", b"data")
    remove(vfs, "/file/d/a")
    vfs.remove_folder(vfs.place("/file/d"), ALICE)
    rename(vfs, "/file/.trash/a", "/file/a")
    assert read(vfs, "/file/a") == b"data"


def test_a_folder_moves_with_all_that_is_in_it(vfs: Vfs) -> None:
    """Within its store; an empty folder in its way is replaced, as rename(2) does."""
    make_folder(vfs, "/file/d")
    make_folder(vfs, "/file/e")
    put(vfs, "/file/d/a", b"data")
    rename(vfs, "/file/d", "/file/e")
    assert read(vfs, "/file/e/a") == b"data"
    rename(vfs, "/file/e", "/file/e")
    assert names_in(vfs, "/file") == {"e"}


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/file/d/inside", InvalidName),
        ("/file/d/e/deeper", InvalidName),
        ("/file/full", FolderNotEmpty),
        ("/file/image", NotAFolder),
        ("/other/d", NotSupported),
        ("/file/d.tmp", InvalidName),
        ("/d", Forbidden),
        ("/file/.trash/d", Forbidden),
    ],
)
def test_where_a_folder_does_not_go(vfs: Vfs, target: str, error: type[Exception]) -> None:
    """Into itself, over what is there, out of its store, into a temporary name."""
    for path in ("/file/d", "/file/d/e", "/file/full"):
        make_folder(vfs, path)
    put(vfs, "/file/image")
    put(vfs, "/file/full/a")
    with pytest.raises(error):
        rename(vfs, "/file/d", target)
    assert names_in(vfs, "/file") == {"d", "full", "image"}


def test_fixed_folders_stay(vfs: Vfs) -> None:
    """A store's folder and its trash are neither removed nor renamed."""
    for path in ("/file", "/file/.trash"):
        with pytest.raises(Forbidden):
            vfs.remove_folder(vfs.place(path), ADMIN)
        with pytest.raises((Forbidden, InvalidName)):
            rename(vfs, path, "/other/x", ADMIN)


def test_a_folder_is_no_image_and_an_image_no_folder(vfs: Vfs) -> None:
    """Each operation says which it needs."""
    make_folder(vfs, "/file/d")
    put(vfs, "/file/a")
    with pytest.raises(IsAFolder):
        remove(vfs, "/file/d")
    with pytest.raises(NotAFolder):
        vfs.remove_folder(vfs.place("/file/a"), ALICE)
    with pytest.raises(IsAFolder):
        rename(vfs, "/file/a", "/file/d")
    with pytest.raises(NotAFolder):
        rename(vfs, "/file/d", "/file/a")
    with pytest.raises(NotAFolder):
        vfs.resolve("/file/a/b")
    with pytest.raises(NotFound):
        vfs.remove_folder(vfs.place("/file/x"), ALICE)


def test_a_folder_does_not_become_temporary_with_images_in_it(vfs: Vfs) -> None:
    """Nor stop being temporary: what is inside would never be published."""
    make_folder(vfs, "/file/d.part")
    begin(vfs, "/file/d.part/a", b"x")
    with pytest.raises(InvalidName):
        rename(vfs, "/file/d.part", "/file/d")
    make_folder(vfs, "/file/empty.part")
    rename(vfs, "/file/empty.part", "/file/empty")
    assert put(vfs, "/file/empty/a").status == "active"


# Replacing


def test_replacing_is_one_step(vfs: Vfs) -> None:
    """The new image has the name, the old is in the trash with its own id and data."""
    old, new = put(vfs, "/file/a", b"old"), put(vfs, "/file/b", b"new")
    rename(vfs, "/file/b", "/file/a")
    assert image_at(vfs, "/file/a").id == new.id
    assert image_at(vfs, "/file/a").name == "a"
    assert image_at(vfs, "/file/.trash/a").id == old.id
    assert read(vfs, "/file/.trash/a") == b"old"
    assert names_in(vfs, "/file") == {"a"}


def test_rename_without_replace(vfs: Vfs) -> None:
    """RENAME_NOREPLACE: a taken name is AlreadyExists, its own name is no error."""
    put(vfs, "/file/a", b"old")
    put(vfs, "/file/b", b"new")
    with pytest.raises(AlreadyExists):
        rename(vfs, "/file/b", "/file/a", replace=False)
    rename(vfs, "/file/b", "/file/c", replace=False)
    rename(vfs, "/file/c", "/file/c")
    assert read(vfs, "/file/c") == b"new"


def test_what_is_not_replaced(vfs: Vfs) -> None:
    """An upload that goes on, and the only whole copy of an image with several names."""
    put(vfs, "/file/new")
    saving = begin(vfs, "/file/saving", b"x")
    copied = put(vfs, "/file/copied")
    there = link(vfs, "/file/copied", "/other/copied")
    with vfs.catalog.write() as repository:
        repository.mark_damaged(there.location.number)
    for name in ("saving", "copied"):
        with pytest.raises(Conflict):
            rename(vfs, "/file/new", f"/file/{name}")
    assert keys_in(vfs, "file") >= {copied.id}
    saving.commit()


@pytest.mark.parametrize("source", ["/file/b", "/file/.b.part", "/memory/b"])
def test_what_is_replaced_lives_on_under_its_other_name(vfs: Vfs, source: str) -> None:
    """Only this copy of it goes: by a rename, a publishing, a move from another store."""
    old = put(vfs, "/file/a", b"old")
    link(vfs, "/file/a", "/other/mine")
    new = put(vfs, source, b"new")
    rename(vfs, source, "/file/a")
    assert (image_at(vfs, "/file/a").id, read(vfs, "/file/a")) == (new.id, b"new")
    after = image_at(vfs, "/other/mine")
    assert (after.id, after.status, read(vfs, "/other/mine")) == (old.id, "active", b"old")
    assert vfs.catalog.details(old.number).stores == ("other",)
    assert (keys_in(vfs, "file"), names_in(vfs, "/file/.trash")) == ({new.id}, set())


def test_a_protected_image_is_not_replaced_under_any_name(vfs: Vfs) -> None:
    """Whoever protects it wants to find it where it is."""
    put(vfs, "/file/a", b"old")
    link(vfs, "/file/a", "/other/a")
    set_fields(vfs, "/file/a", protected="true")
    put(vfs, "/file/b", b"new")
    with pytest.raises(Protected):
        rename(vfs, "/file/b", "/file/a")
    assert read(vfs, "/file/a") == b"old"


def test_an_image_takes_no_temporary_name(vfs: Vfs) -> None:
    """What is active stays an image; what is queued may still become a temporary file."""
    put(vfs, "/file/a")
    make_folder(vfs, "/file/d.tmp")
    for target in ("/file/a.part", "/file/.a", "/file/d.tmp/a"):
        with pytest.raises(InvalidName):
            rename(vfs, "/file/a", target)
    vfs.create(vfs.place("/file/q"), ALICE)
    rename(vfs, "/file/q", "/file/.q")
    assert image_at(vfs, "/file/.q").status == "queued"


def test_the_source_must_be_there(vfs: Vfs) -> None:
    """Renaming and removing what is not there is NotFound."""
    with pytest.raises(NotFound):
        rename(vfs, "/file/x", "/file/y")
    with pytest.raises(NotFound):
        remove(vfs, "/file/x")
