"""The virtual tree: looking, listing while it changes, temporary names, /.by-id."""

from __future__ import annotations

import random

import pytest

from catalog.catalog import Catalog
from catalog.errors import Conflict, Forbidden, NotAFolder, NotFound, NotSupported
from catalog.model.access import ADMIN
from catalog.repository.database import Database
from catalog.settings import Settings
from catalog.tree.namespace import Link
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    ALICE,
    begin,
    entry,
    folder_at,
    image_at,
    link,
    make_folder,
    names_in,
    put,
    read,
    remove,
    rename,
)

# Looking


@pytest.mark.parametrize("path", ["/", "/file", "/file/d", "/file/d/a", "/file/.trash", "/.by-id"])
def test_a_path_leads_to_its_node_and_back(vfs: Vfs, path: str) -> None:
    """`path` is the inverse of `resolve`; slashes too many do not matter."""
    make_folder(vfs, "/file/d")
    put(vfs, "/file/d/a")
    assert vfs.path(vfs.resolve(path)) == path
    assert vfs.path(vfs.resolve(f"/{path}/".replace("/", "//"))) == path


def test_what_is_not_in_the_tree(vfs: Vfs) -> None:
    """The error names the whole path."""
    put(vfs, "/file/a")
    with pytest.raises(NotFound, match="/file/x/y"):
        vfs.resolve("/file/x/y")
    with pytest.raises(NotAFolder, match="/file/a/y"):
        vfs.resolve("/file/a/y")
    with pytest.raises(NotFound):
        vfs.place("/nowhere/a")
    with pytest.raises(NotAFolder):
        vfs.place("/file/a/b")


def test_a_tree_needs_a_catalog(settings: Settings) -> None:
    """A database without its tree says what to do."""
    database = Database.open(settings.catalog.url, create=True)
    database.make_schema()
    with pytest.raises(NotFound, match="imagefs init"):
        Vfs(Catalog(database, settings.catalog, {}))
    database.close()


def test_usage_is_the_store_s(vfs: Vfs) -> None:
    """Of the named store; of the default one for the root."""
    put(vfs, "/memory/a", bytes(1000))
    usage = vfs.usage("memory")
    assert (usage.total, usage.free) == (1 << 24, (1 << 24) - 1000)
    assert vfs.usage("").total == vfs.usage("file").total


# Listing


def listed(vfs: Vfs, path: str, limit: int) -> list[str]:
    """A folder's members, fetched in pages of `limit`."""
    number, after, names = folder_at(vfs, path).number, 0, []
    while page := vfs.page(number, after=after, limit=limit):
        names += [node.name for _cookie, node in page]
        after = page[-1][0]
    return names


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("path", ["/", "/file", "/.by-id"])
def test_pages_are_the_whole(vfs: Vfs, path: str, limit: int) -> None:
    """Whatever the size of a page, each member comes once."""
    for number in range(5):
        put(vfs, f"/file/{number}")
        make_folder(vfs, f"/file/d{number}")
    found = listed(vfs, path, limit)
    assert len(found) == len(set(found))
    assert set(found) == names_in(vfs, path)


@pytest.mark.parametrize("seed", range(2))
def test_a_listing_goes_on_while_the_folder_changes(vfs: Vfs, seed: int) -> None:
    """What stays is listed exactly once; what comes, goes or is renamed, at most once."""
    chance = random.Random(seed)
    for number in range(10):
        vfs.create(vfs.place(f"/file/stays-{number}"), ALICE)
        vfs.create(vfs.place(f"/file/goes-{number}"), ALICE)
        vfs.create(vfs.place(f"/file/renamed-{number}"), ALICE)
        make_folder(vfs, f"/file/folder-{number}")
    going, renaming = list(range(10)), list(range(10))
    chance.shuffle(going)
    number, after, seen = folder_at(vfs, "/file").number, 0, []
    while page := vfs.page(number, after=after, limit=5):
        seen += page
        after = page[-1][0]
        if going:
            vfs.create(vfs.place(f"/file/new-{len(going)}"), ALICE)
            remove(vfs, f"/file/goes-{going.pop()}")
            turn = renaming.pop()
            rename(vfs, f"/file/renamed-{turn}", f"/file/other-{turn}")
    names = [node.name for _, node in seen]
    for kept in range(10):
        assert names.count(f"stays-{kept}") == 1
        assert names.count(f"folder-{kept}") == 1
        # A rename keeps the cookie: the image comes under one of its names, and once.
        assert names.count(f"renamed-{kept}") + names.count(f"other-{kept}") == 1
        assert names.count(f"goes-{kept}") <= 1
    cookies = [cookie for cookie, _ in seen]
    assert cookies == sorted(set(cookies))


def test_the_trash_is_found_and_not_listed(vfs: Vfs) -> None:
    """`rsync --delete` and `rclone sync` must not come upon it."""
    put(vfs, "/file/a")
    remove(vfs, "/file/a")
    assert names_in(vfs, "/file") == set()
    assert names_in(vfs, "/file/.trash") == {"a"}


def test_a_member_keeps_its_cookie(vfs: Vfs) -> None:
    """Through renames and changes of its image."""
    put(vfs, "/file/a")
    make_folder(vfs, "/file/d")
    folder = folder_at(vfs, "/file").number
    before = {node.name: cookie for cookie, node in vfs.page(folder)}
    put(vfs, "/file/b")
    rename(vfs, "/file/a", "/file/c")
    after = {node.name: cookie for cookie, node in vfs.page(folder)}
    assert after["c"] == before["a"]
    assert after["d"] == before["d"]


# /.by-id


def test_by_id_leads_to_the_path(vfs: Vfs) -> None:
    """A relative link that follows renames and moves across stores."""
    make_folder(vfs, "/file/d")
    image = put(vfs, "/file/a")
    for path in ("/file/a", "/file/d/b", "/other/c"):
        if path != "/file/a":
            rename(vfs, vfs.path(vfs.entries_of(image.number)[0]), path)
        node = vfs.resolve(f"/.by-id/{image.id}")
        assert isinstance(node, Link)
        assert node.target == f"..{path}"
        assert vfs.path(node) == f"/.by-id/{image.id}"
    remove(vfs, "/other/c")
    trashed = vfs.resolve(f"/.by-id/{image.id}")
    assert isinstance(trashed, Link)
    assert trashed.target == "../other/.trash/c"


def test_by_id_lists_what_is_in_the_tree(vfs: Vfs) -> None:
    """Every image once, with copies too, and none that is deleted."""
    images = [put(vfs, f"/file/{number}") for number in range(3)]
    link(vfs, "/file/0", "/other/0")
    remove(vfs, "/file/1")
    remove(vfs, "/file/2")
    remove(vfs, "/file/.trash/2")
    assert listed(vfs, "/.by-id", 1) == [images[0].id, images[1].id]
    with pytest.raises(NotFound):
        vfs.resolve(f"/.by-id/{images[2].id}")
    with pytest.raises(NotFound):
        vfs.resolve("/.by-id/nothing")


def test_an_image_without_an_entry_does_not_hide_the_others(vfs: Vfs) -> None:
    """A catalog fsck has work with can still be listed."""
    put(vfs, "/file/a")
    kept = put(vfs, "/file/b")
    with vfs.catalog.write() as repository:
        repository.drop_location(entry(vfs, "/file/a").location)
    assert names_in(vfs, "/.by-id") == {kept.id}


def test_by_id_cannot_be_changed(vfs: Vfs) -> None:
    """It is made by the catalog."""
    image = put(vfs, "/file/a")
    path = f"/.by-id/{image.id}"
    for attempt in (
        lambda: remove(vfs, path),
        lambda: rename(vfs, path, "/file/b"),
        lambda: rename(vfs, "/file/a", "/.by-id/a"),
        lambda: vfs.create(vfs.place("/.by-id/a"), ADMIN),
        lambda: vfs.remove_folder(vfs.place("/.by-id"), ADMIN),
        lambda: vfs.link(image.number, vfs.place("/.by-id/a"), ADMIN),
    ):
        with pytest.raises(Forbidden):
            attempt()


# Temporary names


def test_a_temporary_name_is_published_by_its_rename(vfs: Vfs) -> None:
    """Until then it is saving, whatever has been done to its data."""
    upload = begin(vfs, "/file/.a.Xy12", b"data")
    upload.finish()
    assert vfs.is_temporary(entry(vfs, "/file/.a.Xy12"))
    assert image_at(vfs, "/file/.a.Xy12").status == "saving"
    rename(vfs, "/file/.a.Xy12", "/file/a")
    assert image_at(vfs, "/file/a").status == "active"
    assert not vfs.is_temporary(entry(vfs, "/file/a"))
    assert names_in(vfs, "/file") == {"a"}


def test_a_temporary_name_may_become_another(vfs: Vfs) -> None:
    """A browser's .part to .crdownload is no publication."""
    begin(vfs, "/file/a.part", b"data").finish()
    rename(vfs, "/file/a.part", "/file/b.part")
    assert image_at(vfs, "/file/b.part").status == "saving"
    rename(vfs, "/file/b.part", "/file/b")
    assert read(vfs, "/file/b") == b"data"


def test_a_temporary_folder_publishes_nothing(vfs: Vfs) -> None:
    """What is renamed out of it is published."""
    make_folder(vfs, "/file/.partial")
    make_folder(vfs, "/file/.partial/deep")
    begin(vfs, "/file/.partial/deep/a", b"data").finish()
    assert vfs.is_temporary(entry(vfs, "/file/.partial/deep/a"))
    rename(vfs, "/file/.partial/deep/a", "/file/a")
    assert read(vfs, "/file/a") == b"data"


def test_a_rename_while_it_is_written_is_no_publication(vfs: Vfs) -> None:
    """The name changes; the image becomes active when its writer is done."""
    upload = begin(vfs, "/file/.a.Xy12", b"data")
    rename(vfs, "/file/.a.Xy12", "/file/a")
    assert image_at(vfs, "/file/a").status == "saving"
    upload.commit()
    assert read(vfs, "/file/a") == b"data"


def test_another_process_s_upload_is_not_published(vfs: Vfs) -> None:
    """Nor deleted: only the process that has it can."""
    begin(vfs, "/file/.a.Xy12", b"data").finish()
    elsewhere = Vfs(vfs.catalog)
    with pytest.raises(Conflict):
        rename(elsewhere, "/file/.a.Xy12", "/file/a")
    with pytest.raises(Conflict):
        remove(elsewhere, "/file/.a.Xy12")
    rename(vfs, "/file/.a.Xy12", "/file/a")


# Moving into the trash


def test_mv_into_the_trash_is_rm(vfs: Vfs) -> None:
    """Of its own store only."""
    put(vfs, "/file/a")
    with pytest.raises(NotSupported):
        rename(vfs, "/file/a", "/other/.trash/a")
    rename(vfs, "/file/a", "/file/.trash/a")
    assert image_at(vfs, "/file/.trash/a").status == "pending_delete"


def test_registering_needs_a_store_for_it(vfs: Vfs) -> None:
    """`ln -s URL` into a file store is refused before anything is fetched."""
    with pytest.raises(NotSupported):
        vfs.register(vfs.place("/file/a"), "https://example.com/a", ALICE)
    assert names_in(vfs, "/file") == set()
