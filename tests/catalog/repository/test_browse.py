from __future__ import annotations

from itertools import product

import pytest

from catalog.model import access
from catalog.model.access import ADMIN, Principal, Role
from catalog.model.image import Visibility
from catalog.model.listings import FolderPage, Sort
from catalog.model.status import Status
from catalog.model.tree import Folder
from catalog.rules import fields
from catalog.rules.members import add_member
from catalog.tree.vfs import Vfs
from tests.kit.catalog import ALICE, BOB, READER, begin, entry, make_folder, put, remove, set_fields


def page(vfs: Vfs, path: str = "/file", who: Principal = ALICE, **wanted: object) -> FolderPage:
    """One page of a folder."""
    folder = vfs.resolve(path)
    assert isinstance(folder, Folder)
    with vfs.catalog.read() as repository:
        return repository.folder_page(folder.number, who, **wanted)  # type: ignore[arg-type]


def names(found: FolderPage) -> list[str]:
    """The names on a page, in order."""
    return [listed.entry.name for listed in found.listed]


def set_os(vfs: Vfs, path: str, distro: str, version: str) -> None:
    """Say what is in an image."""
    values: dict[str, str | None] = {
        "property.os_distro": distro,
        "property.os_version": version,
    }
    fields.set_attributes(vfs.catalog, entry(vfs, path).image.number, values, ALICE)


def test_pages_of_a_folder_are_disjoint_and_complete(vfs: Vfs) -> None:
    """Offsets walk the whole folder in order; the total counts all of it."""
    wanted = [f"image-{number}.raw" for number in range(7)]
    for name in reversed(wanted):
        put(vfs, f"/file/{name}")
    make_folder(vfs, "/file/below")
    put(vfs, "/file/below/other.raw")
    pages = [page(vfs, offset=offset, limit=3) for offset in (0, 3, 6, 9)]
    assert [names(found) for found in pages] == [wanted[:3], wanted[3:6], wanted[6:], []]
    assert {found.total for found in pages} == {7}


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("descending", [False, True])
def test_every_order_lists_every_image(vfs: Vfs, sort: Sort, descending: bool) -> None:
    """No order loses an image that lacks what it sorts by."""
    put(vfs, "/file/a.raw")
    begin(vfs, "/file/b.raw", b"x")
    set_os(vfs, "/file/a.raw", "debian", "12")
    found = page(vfs, sort=sort, descending=descending)
    assert sorted(names(found)) == ["a.raw", "b.raw"]


def test_images_sort_by_size_and_by_operating_system(vfs: Vfs) -> None:
    """Sizes are ordered as numbers, systems by distribution, then version."""
    for name, size, os in (("a", 10, "ubuntu"), ("b", 9, "debian"), ("c", 100, "debian")):
        put(vfs, f"/file/{name}", b"x" * size)
        set_os(vfs, f"/file/{name}", os, name)
    assert names(page(vfs, sort=Sort.SIZE)) == ["b", "a", "c"]
    assert names(page(vfs, sort=Sort.SIZE, descending=True)) == ["c", "a", "b"]
    by_os = page(vfs, sort=Sort.OS)
    assert names(by_os) == ["b", "c", "a"]
    assert (by_os.listed[0].os_distro, by_os.listed[0].os_version) == ("debian", "b")


def test_filter_takes_the_text_as_it_is(vfs: Vfs) -> None:
    """The wildcards of SQL's LIKE are ordinary characters; case does not matter."""
    for name in ("100%.raw", "100x.raw", "Debian_12", "debian-12", "back\\slash"):
        put(vfs, f"/file/{name}")
    assert names(page(vfs, filter_text="0%")) == ["100%.raw"]
    assert names(page(vfs, filter_text="N_1")) == ["Debian_12"]
    assert names(page(vfs, filter_text="DEBIAN")) == ["Debian_12", "debian-12"]
    assert names(page(vfs, filter_text="k\\s")) == ["back\\slash"]
    assert page(vfs, filter_text="nothing like it").total == 0


def test_filter_by_status_counts_what_it_lets_through(vfs: Vfs) -> None:
    """Total is of the filtered list, not of the folder."""
    put(vfs, "/file/a.raw")
    begin(vfs, "/file/b.raw", b"x")
    found = page(vfs, status=Status.SAVING)
    assert (names(found), found.total) == (["b.raw"], 1)


def test_folder_page_shows_to_each_exactly_what_access_lets_see(vfs: Vfs) -> None:
    """Every visibility against every kind of principal, page and total."""
    for visibility in Visibility:
        put(vfs, f"/file/{visibility}")
        set_fields(vfs, f"/file/{visibility}", visibility=visibility)
    add_member(vfs.catalog, entry(vfs, "/file/shared").image.number, "carol", ALICE)
    carol, project = Principal("carol"), Principal("dave", Role.READER, "carol")
    for who, visibility in product((ADMIN, ALICE, BOB, READER, carol, project), Visibility):
        image = entry(vfs, f"/file/{visibility}").image
        members = frozenset({"carol"}) if visibility is Visibility.SHARED else frozenset[str]()
        expected = [visibility.value] if access.may_see(who, image, members) else []
        found = page(vfs, who=who, filter_text=visibility)
        assert (names(found), found.total) == (expected, len(expected)), (who, visibility)


def test_store_totals_count_each_store_apart(vfs: Vfs) -> None:
    """Trash and uploads are counted on their own; folders below a store belong to it."""
    make_folder(vfs, "/file/below")
    put(vfs, "/file/below/a.raw", b"x" * 10)
    put(vfs, "/file/b.raw", b"x" * 5)
    put(vfs, "/file/gone.raw", b"x" * 100)
    remove(vfs, "/file/gone.raw")
    begin(vfs, "/memory/c.raw", b"x")
    with vfs.catalog.read() as repository:
        totals = repository.store_totals(ADMIN)
        of_bob = repository.store_totals(BOB)["file"]
    assert set(totals) == {"file", "memory"}
    file, memory = totals["file"], totals["memory"]
    assert (file.images, file.size, file.in_progress, file.trashed) == (2, 15, 0, 1)
    assert (memory.images, memory.size, memory.in_progress, memory.trashed) == (1, 0, 1, 0)
    assert (of_bob.images, of_bob.size, of_bob.trashed) == (2, 15, 0)
