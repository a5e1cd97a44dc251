"""Rendered pages that are kept (`dav.propfind.kept_pages`)."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random

import pytest

from catalog.model.tree import Entry, Folder
from catalog.rules import fields
from catalog.tree.vfs import Vfs
from dav.propfind import answer
from dav.propfind.kept_pages import Page, Pages
from tests.kit.catalog import (
    ALICE,
    folder_at,
    image_at,
    make_folder,
    names_in,
    new_catalog,
    put,
    remove,
    rename,
    set_fields,
    settings_at,
)

END = 1 << 60
"""A cookie behind all others."""


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[Vfs]:
    """A catalog with two images in /file/a, and nothing in /file/b."""
    vfs = Vfs(new_catalog(settings_at(tmp_path)))
    for path in ("/file/a", "/file/b"):
        make_folder(vfs, path)
    for path in ("/file/a/1", "/file/a/2"):
        put(vfs, path)
    yield vfs
    vfs.close()


def _keep(vfs: Vfs, pages: Pages, path: str) -> None:
    """Keep each member of a folder, and what may come, as a page of its own."""
    version = pages.refresh()
    folder = folder_at(vfs, path)
    first = 0
    for cookie, member in vfs.page(folder.number):
        is_folder = isinstance(member, Folder)
        numbers = frozenset({member.number}) if not hasattr(member, "target") else frozenset()
        page = Page(
            body=b"1234",
            folder=folder.number,
            first=first,
            last=cookie,
            is_end=False,
            names=frozenset({member.name}),
            images=frozenset() if is_folder else numbers,
            folders=numbers if is_folder else frozenset(),
        )
        pages.put((path, member.name), page, version)
        first = cookie
    nothing: frozenset[int] = frozenset()
    rest = Page(b"1234", folder.number, first, END, True, frozenset(), nothing, nothing)
    pages.put((path, "rest"), rest, version)


def _kept(pages: Pages) -> set[str]:
    pages.refresh()
    paths = (("/file", "a"), ("/file", "b"), ("/file/a", "1"), ("/file/a", "2"))
    rests = (("/file", "rest"), ("/file/a", "rest"), ("/file/b", "rest"))
    return {f"{path}/{name}" for path, name in (*paths, *rests) if pages.get((path, name))}


ALL = {
    "/file/a",
    "/file/b",
    "/file/rest",
    "/file/a/1",
    "/file/a/2",
    "/file/a/rest",
    "/file/b/rest",
}


@pytest.fixture
def pages(vfs: Vfs) -> Pages:
    """Every member of /file, /file/a and /file/b is kept."""
    pages = Pages(vfs)
    for path in ("/file", "/file/a", "/file/b"):
        _keep(vfs, pages, path)
    assert _kept(pages) == ALL
    return pages


def test_a_property_concerns_its_image(vfs: Vfs, pages: Pages) -> None:
    """Only the page that shows the image is forgotten."""
    set_fields(vfs, "/file/a/1", min_disk="1")
    assert _kept(pages) == ALL - {"/file/a/1"}


def test_a_new_image_concerns_the_end_of_its_folder(vfs: Vfs, pages: Pages) -> None:
    """And the folder itself, whose time of change is listed above."""
    put(vfs, "/file/b/new")
    assert _kept(pages) == ALL - {"/file/b/rest", "/file/b"}


def test_an_older_image_moves_into_the_middle(vfs: Vfs, pages: Pages) -> None:
    """An image keeps its cookie when it is moved: it need not come last."""
    put(vfs, "/file/a/3")
    _keep(vfs, pages, "/file/a")
    rename(vfs, "/file/a/1", "/file/b/1")
    pages.refresh()
    _keep(vfs, pages, "/file/b")
    rename(vfs, "/file/b/1", "/file/a/1")
    kept = _kept(pages)
    assert "/file/a/2" in kept
    assert "/file/a/1" not in kept


def test_a_renamed_image_concerns_its_page(vfs: Vfs, pages: Pages) -> None:
    """Under its old name and under its new one."""
    rename(vfs, "/file/a/2", "/file/a/two")
    assert _kept(pages) == ALL - {"/file/a/2", "/file/a"}


def test_a_deleted_image_concerns_its_page(vfs: Vfs, pages: Pages) -> None:
    """What has gone is forgotten, what stays is kept."""
    remove(vfs, "/file/a/1")
    kept = _kept(pages)
    assert "/file/a/1" not in kept
    assert {"/file/a/2", "/file/b", "/file/b/rest"} <= kept


def test_many_changes_concern_all(vfs: Vfs, pages: Pages) -> None:
    """Rather than follow them one by one, everything is forgotten."""
    number = image_at(vfs, "/file/a/1").number
    with vfs.catalog.write() as repository:
        for _ in range(500):
            repository.set_image(number)
    assert _kept(pages) == set()


def test_forgotten_changes_concern_all(vfs: Vfs, pages: Pages) -> None:
    """A feed that no longer tells what has happened is not believed."""
    put(vfs, "/file/b/new")
    remove(vfs, "/file/a/1")
    with vfs.catalog.write() as repository:
        (newest,) = repository.changes(repository.last_change() - 1, 1)
        repository.trim_changes(newest.at)
    put(vfs, "/file/b/newer")
    assert _kept(pages) == set()


def test_a_page_read_before_a_change_is_not_kept(vfs: Vfs) -> None:
    """Two requests may overlap: what the slower one read is of the past."""
    pages = Pages(vfs)
    version = pages.refresh()
    put(vfs, "/file/a/new")
    pages.refresh()
    none: frozenset[int] = frozenset()
    pages.put("late", Page(b"old", 1, 0, 1, True, frozenset(), none, none), version)
    assert pages.get("late") is None


def test_the_least_recently_used_page_goes_first(vfs: Vfs) -> None:
    """What is kept never has more than `limit` bytes."""
    pages = Pages(vfs, limit=10)
    none: frozenset[int] = frozenset()
    version = pages.refresh()
    for key in "abc":
        page = Page(b"1234", 1, 0, 1, True, frozenset(), none, none)
        pages.put(key, page, version)
        pages.get("a")
    assert [key for key in "abc" if pages.get(key)] == ["a", "c"]
    pages.put("d", Page(bytes(11), 1, 0, 1, True, frozenset(), none, none), version)
    assert [key for key in "abcd" if pages.get(key)] == []


_FOLDERS = ("/file", "/file/a", "/file/b")


def _listing(vfs: Vfs, pages: Pages, path: str) -> bytes:
    folder = folder_at(vfs, path)
    environ = {"HTTP_DEPTH": "1", "wsgi.input": BytesIO(b"")}
    return b"".join(answer.respond(vfs, folder, ALICE, environ, pages).body)


def _change(vfs: Vfs, random: Random, number: int) -> None:
    """Do something to an image or a folder."""
    names = [f"{above}/{name}" for above in _FOLDERS for name in sorted(names_in(vfs, above))]
    paths = [path for path in names if path not in _FOLDERS and "." not in path]
    empty = [path for path in paths if path.rpartition("/")[2].startswith("f")]
    images = [path for path in paths if isinstance(vfs.resolve(path), Entry)]
    above = random.choice(_FOLDERS)
    match random.choice(("put", "put", "folder", "drop", "rename", "rename", "set", "remove")):
        case "put":
            put(vfs, f"{above}/i{number}")
        case "folder":
            make_folder(vfs, f"{above}/f{number}")
        case "drop" if empty:
            vfs.remove_folder(vfs.place(random.choice(empty)), ALICE)
        case "rename" if images:
            rename(vfs, random.choice(images), f"{above}/r{number}")
        case "set" if images:
            number = image_at(vfs, random.choice(images)).number
            fields.set_attributes(vfs.catalog, number, {"property.note": str(number)}, ALICE)
        case "remove" if images:
            remove(vfs, random.choice(images))


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(3))
def test_listings_are_as_if_nothing_were_kept(
    vfs: Vfs, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any changes, by pages of three members, a listing is byte for byte the true one."""
    monkeypatch.setattr(answer, "_PAGE", 3)
    random = Random(seed)
    pages = Pages(vfs)
    for number in range(40):
        for again in range(random.randrange(1, 4)):
            _change(vfs, random, number * 10 + again)
        for path in _FOLDERS:
            assert _listing(vfs, pages, path) == _listing(vfs, Pages(vfs), path)
