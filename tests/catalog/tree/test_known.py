"""What is answered from memory is what the database would answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

import pytest

from catalog.errors import NotFound
from catalog.model.tree import Entry, Folder
from catalog.service.bootstrap import open_catalog
from catalog.settings import Settings
from catalog.tree import known
from catalog.tree.known import Known
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    ALICE,
    begin,
    entry,
    folder_at,
    image_at,
    link,
    make_folder,
    put,
    remove,
    rename,
    set_fields,
)


class Clock:
    """The time as `known` sees it: it goes only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of what is known."""
    clock = Clock()
    monkeypatch.setattr(known, "time", clock)
    return clock


@pytest.fixture
def other(settings: Settings, vfs: Vfs) -> Iterator[Vfs]:
    """The same catalog as another process has it open."""
    catalog = open_catalog(settings)
    yield Vfs(catalog)
    catalog.close()


@pytest.fixture
def file(vfs: Vfs) -> int:
    """The number of the store's folder; the feed was just read to its end."""
    vfs.known.fresh()
    return folder_at(vfs, "/file").number


def replace(vfs: Vfs, path: str) -> None:
    """Give the name to a new image."""
    put(vfs, f"{path} new")
    rename(vfs, f"{path} new", path)


def follow(vfs: Vfs) -> None:
    """Do what a mount does four times a second."""
    vfs.known.drop(vfs.catalog.changes(0, 1000))
    vfs.known.fresh()


def test_a_name_that_was_looked_up_is_known(vfs: Vfs, file: int) -> None:
    """By its name and by its number, with what a lookup finds."""
    image = put(vfs, "/file/a")
    assert vfs.known.name(file, "a") is None
    found = vfs.lookup(file, "a")
    assert isinstance(found, Entry)
    assert vfs.known.name(file, "a") == vfs.known.image(image.number) == found
    assert found.links == 1


def test_an_image_that_was_looked_up_is_known(vfs: Vfs, file: int) -> None:
    """By its number only."""
    image = put(vfs, "/file/a")
    found = vfs.image(image.number)
    assert isinstance(found, Entry)
    assert vfs.known.image(image.number) == found
    assert vfs.known.name(file, "a") is None


def test_a_folder_is_known(vfs: Vfs, file: int) -> None:
    """By its name and by its number."""
    folder = make_folder(vfs, "/file/f")
    vfs.lookup(file, "f")
    assert vfs.known.name(file, "f") == vfs.known.folder(folder.number) == folder


def test_without_a_follower_nothing_is_kept(vfs: Vfs) -> None:
    """Nobody would tell of changes elsewhere."""
    put(vfs, "/file/a")
    file = folder_at(vfs, "/file").number
    vfs.lookup(file, "a")
    vfs.known.fresh()
    assert vfs.known.name(file, "a") is None


def test_an_absent_name_is_asked_for_each_time(vfs: Vfs, other: Vfs, file: int) -> None:
    """It may be made elsewhere at any time."""
    with pytest.raises(NotFound):
        vfs.lookup(file, "a")
    put(other, "/file/a")
    assert isinstance(vfs.lookup(file, "a"), Entry)


def test_what_has_not_settled_is_not_kept(vfs: Vfs, file: int) -> None:
    """A size that grows, and names in the trash, are asked for each time."""
    vfs.create(vfs.place("/file/queued"), ALICE)
    upload = begin(vfs, "/file/saving", b"data")
    put(vfs, "/file/deleted")
    remove(vfs, "/file/deleted")
    trash = folder_at(vfs, "/file/.trash").number
    for folder, name in ((file, "queued"), (file, "saving"), (trash, "deleted")):
        assert isinstance(vfs.lookup(folder, name), Entry)
        assert vfs.known.name(folder, name) is None
    upload.commit()


@pytest.mark.parametrize(
    "change",
    [
        lambda vfs: remove(vfs, "/file/a"),
        lambda vfs: rename(vfs, "/file/a", "/file/b"),
        lambda vfs: rename(vfs, "/file/a", "/file/f/a"),
        lambda vfs: set_fields(vfs, "/file/a", visibility="private"),
        lambda vfs: set_fields(vfs, "/file/a", status="deactivated"),
        lambda vfs: vfs.uploads.reopen(image_at(vfs, "/file/a").number).cancel("a test"),
        lambda vfs: link(vfs, "/file/a", "/other/a"),
        lambda vfs: replace(vfs, "/file/a"),
    ],
    ids=["remove", "rename", "move", "visibility", "status", "reopen", "link", "replace"],
)
@pytest.mark.parametrize("by", ["this process", "another"])
def test_a_change_drops_what_is_known(
    vfs: Vfs, other: Vfs, file: int, change: Callable[[Vfs], object], by: str
) -> None:
    """Of this process before it returns, of another one when the feed was read."""
    put(vfs, "/file/a")
    make_folder(vfs, "/file/f")
    number = image_at(vfs, "/file/a").number
    vfs.lookup(file, "a")
    change(vfs if by == "this process" else other)
    if by == "another":
        assert vfs.known.name(file, "a") is not None
        follow(vfs)
    assert vfs.known.name(file, "a") is None
    assert vfs.known.image(number) is None


def test_a_folder_that_was_changed(vfs: Vfs, file: int) -> None:
    """It has another time when something in it has changed, and other names when it moves."""
    number = make_folder(vfs, "/file/f").number
    for change in (
        lambda: put(vfs, "/file/f/a"),
        lambda: rename(vfs, "/file/f", "/file/g"),
        lambda: rename(vfs, "/file/g", "/file/f"),
        lambda: remove(vfs, "/file/f/a"),
        lambda: vfs.remove_folder(vfs.place("/file/f"), ALICE),
    ):
        vfs.lookup(file, vfs.folder(number).name)
        assert vfs.known.folder(number) is not None
        change()
        assert vfs.known.folder(number) is None
        assert vfs.known.name(file, "f") is None


def test_the_number_of_names(vfs: Vfs, file: int) -> None:
    """It changes for one name when another one comes or goes."""
    put(vfs, "/file/a")
    for links, change in (
        (1, lambda: link(vfs, "/file/a", "/other/b")),
        (2, lambda: remove(vfs, "/other/b")),
        (1, lambda: None),
    ):
        vfs.lookup(file, "a")
        found = vfs.known.name(file, "a")
        assert isinstance(found, Entry)
        assert found.links == links
        number = found.image.number
        assert (vfs.known.image(number) is None) is (links > 1)
        change()


def test_another_form_of_a_name(vfs: Vfs, file: int) -> None:
    """It is known by itself, and dropped with the stored name."""
    name = "\u00e9"
    decomposed = unicodedata.normalize("NFD", name)
    put(vfs, f"/file/{name}")
    vfs.lookup(file, decomposed)
    found = vfs.known.name(file, decomposed)
    assert found is not None
    assert found.name == name
    assert vfs.known.name(file, name) is None
    remove(vfs, f"/file/{name}")
    assert vfs.known.name(file, decomposed) is None


def test_rows_that_were_read_before_a_change_are_not_kept(vfs: Vfs, file: int) -> None:
    """Otherwise they would stay, as their change has been dropped already."""
    put(vfs, "/file/a")
    drops = vfs.known.drops
    old = entry(vfs, "/file/a")
    set_fields(vfs, "/file/a", visibility="private")
    vfs.known.keep(old, drops, "a")
    assert vfs.known.name(file, "a") is None
    vfs.known.keep(entry(vfs, "/file/a"), vfs.known.drops, "a")
    assert vfs.known.name(file, "a") is not None


def test_a_transaction_that_fails_drops_as_well(vfs: Vfs, file: int) -> None:
    """Whether a COMMIT has happened is not always known."""
    put(vfs, "/file/a")
    vfs.lookup(file, "a")
    with pytest.raises(ZeroDivisionError):
        _fail(vfs, image_at(vfs, "/file/a").number)
    assert vfs.known.name(file, "a") is None


def _fail(vfs: Vfs, number: int) -> None:
    with vfs.catalog.write() as repository:
        repository.set_image(number)
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "change",
    [
        lambda vfs: put(vfs, "/file/f/new"),
        lambda vfs: remove(vfs, "/file/f/a"),
        lambda vfs: set_fields(vfs, "/file/f/a", visibility="private"),
        lambda vfs: link(vfs, "/file/f/a", "/other/a"),
        lambda vfs: put(vfs, "/file/f/g/inside"),
    ],
    ids=["new", "remove", "field", "link", "inside"],
)
def test_a_listing_is_known_until_something_in_it_changes(
    vfs: Vfs, file: int, change: Callable[[Vfs], object]
) -> None:
    """Also when a folder in it has another time, or an image another number of names."""
    folder = make_folder(vfs, "/file/f").number
    make_folder(vfs, "/file/f/g")
    put(vfs, "/file/f/a")
    put(vfs, "/file/b")
    found = vfs.page(folder, limit=10)
    assert vfs.known.page(folder, 0, 10) == found
    assert vfs.known.page(folder, 0, 9) is None
    set_fields(vfs, "/file/b", visibility="private")
    assert vfs.known.page(folder, 0, 10) == found
    change(vfs)
    assert vfs.known.page(folder, 0, 10) is None


def test_a_listing_with_an_upload_is_not_kept(vfs: Vfs, file: int) -> None:
    """Sizes in it grow."""
    upload = begin(vfs, "/file/saving", b"data")
    vfs.page(file, limit=10)
    assert vfs.known.page(file, 0, 10) is None
    upload.commit()


def test_no_more_listings_are_kept_than_is_allowed(vfs: Vfs, file: int) -> None:
    """The oldest go."""
    for limit in range(1, known.MOST_PAGES + 3):
        vfs.page(file, limit=limit)
    assert vfs.known.page(file, 0, 2) is None
    assert vfs.known.page(file, 0, known.MOST_PAGES + 2) is not None


def test_answers_end_some_time_after_the_feed_was_read(vfs: Vfs, clock: Clock) -> None:
    """And what was kept before is then no longer believed."""
    vfs.known.fresh()
    file = folder_at(vfs, "/file").number
    put(vfs, "/file/a")
    vfs.lookup(file, "a")
    clock.now += known.AWAY - 1
    assert vfs.known.name(file, "a") is not None
    clock.now += 2
    assert vfs.known.name(file, "a") is None
    vfs.known.fresh()
    assert vfs.known.name(file, "a") is None
    vfs.lookup(file, "a")
    assert vfs.known.name(file, "a") is not None


def test_no_more_is_kept_than_is_allowed(vfs: Vfs) -> None:
    """The oldest answers go, and nothing is left of them."""
    few = Known(vfs.catalog, most=6)
    few.fresh()
    file = folder_at(vfs, "/file").number
    for number in range(5):
        put(vfs, f"/file/{number}")
    for number in range(5):
        few.keep(_looked_up(vfs, file, str(number)), few.drops, str(number))
    assert few.name(file, "0") is None
    assert [few.name(file, name) is not None for name in "234"] == [True] * 3
    assert len(few._kept) == 6
    few.drop(vfs.catalog.changes(0, 1000))
    assert not few._kept
    assert not few._by_subject


def _looked_up(vfs: Vfs, folder: int, name: str) -> Entry | Folder:
    node = vfs.lookup(folder, name)
    assert isinstance(node, Entry | Folder)
    return node
