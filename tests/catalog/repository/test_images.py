"""The repository's statements: filters, pages, and what each change tells the feed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from catalog.errors import AlreadyExists, Conflict, NotFound
from catalog.model.activity import ChangeKind, UploadRecord
from catalog.model.clock import now
from catalog.model.listings import ImageFilter
from catalog.model.status import Status
from catalog.model.tree import FolderKind, LocationState
from catalog.process import Process, this_process
from catalog.rules import fields, presence
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    ALICE,
    entry,
    link,
    make_folder,
    put,
    put_as_before,
    remove,
    rename,
    set_fields,
)

ANOTHER = Process("another-host", "boot/1", 7, 8)


def names(vfs: Vfs, wanted: ImageFilter) -> list[str]:
    """The names of the images a filter lets through; the count must agree."""
    with vfs.catalog.read() as repository:
        found = [image.name for image in repository.images(wanted)]
        assert repository.count_images(wanted) == len(found)
    return found


def test_filters(vfs: Vfs) -> None:
    """Each field narrows, several narrow together."""
    a = put(vfs, "/file/a")
    b = put(vfs, "/other/b")
    put(vfs, "/file/c")
    fields.set_attributes(
        vfs.catalog, a.number, {"property.os": "debian", "image.tags": "lts,x"}, ALICE
    )
    fields.set_attributes(
        vfs.catalog, b.number, {"property.os": "debian", "image.tags": "lts"}, ALICE
    )
    set_fields(vfs, "/other/b", status="deactivated")
    link(vfs, "/file/a", "/other/a")
    assert names(vfs, ImageFilter()) == ["a", "b", "c"]
    assert names(vfs, ImageFilter(statuses=frozenset({Status.DEACTIVATED}))) == ["b"]
    assert names(vfs, ImageFilter(statuses=frozenset())) == []
    assert names(vfs, ImageFilter(properties=(("os", "debian"),))) == ["a", "b"]
    assert names(vfs, ImageFilter(properties=(("os", "Debian"),))) == []
    assert names(vfs, ImageFilter(tags=("lts",))) == ["a", "b"]
    assert names(vfs, ImageFilter(tags=("lts", "x"))) == ["a"]
    assert names(vfs, ImageFilter(store="other")) == ["a", "b"]
    assert names(vfs, ImageFilter(store="other", tags=("x",))) == ["a"]


def test_only_what_was_deleted_before(vfs: Vfs) -> None:
    """An image that is not deleted was not deleted before anything."""
    put(vfs, "/file/a")
    put(vfs, "/file/b")
    remove(vfs, "/file/b")
    assert names(vfs, ImageFilter(before=now() + timedelta(seconds=1))) == ["b"]
    assert names(vfs, ImageFilter(before=now() - timedelta(days=1))) == []


def test_images_in_pages(vfs: Vfs) -> None:
    """By number, after the last one seen."""
    numbers = [put(vfs, f"/file/{i}").number for i in range(5)]
    with vfs.catalog.read() as repository:
        first = repository.images(ImageFilter(), limit=2)
        second = repository.images(ImageFilter(), after=first[-1].number, limit=10)
    assert [image.number for image in (*first, *second)] == numbers


def test_an_id_s_prefix(vfs: Vfs) -> None:
    """No wildcard of SQL is one here."""
    image = put(vfs, "/file/a")
    put(vfs, "/file/b")
    with vfs.catalog.read() as repository:
        assert repository.images_by_prefix(image.id[:13], 5) == [image]
        assert len(repository.images_by_prefix("", 5)) == 2
        assert len(repository.images_by_prefix("", 1)) == 1
        assert repository.images_by_prefix("%", 5) == repository.images_by_prefix("_", 5) == []


def test_what_is_not_there(vfs: Vfs) -> None:
    """Images and folders that do not exist are NotFound; names are None."""
    with vfs.catalog.read() as repository:
        for find in (repository.image, repository.folder):
            with pytest.raises(NotFound):
                find(4711)
        with pytest.raises(NotFound):
            repository.image_by_id("4711")
        assert repository.entry_at(1, "x") is None
        assert repository.folder_at(1, "x") is None
        assert repository.chunk_digests(1) is None
        assert repository.upload(1) is None


def test_names_differ_by_case_and_byte(vfs: Vfs) -> None:
    """As on any Linux file system, to the tables; the rules are stricter with new names."""
    for name in ("a", "A", "ä", "a\u0308"):
        put_as_before(vfs, f"/file/{name}")
    with vfs.catalog.read() as repository:
        folder = entry(vfs, "/file/a").folder
        assert [found.name for found in repository.entries_in(folder)] == ["a", "A", "ä", "a\u0308"]


def test_a_taken_name_is_refused_by_the_tables(vfs: Vfs) -> None:
    """Whatever was checked before: the unique constraints have the last word."""
    a, b = put(vfs, "/file/a"), put(vfs, "/file/b")
    folder = make_folder(vfs, "/file/d")
    place = entry(vfs, "/file/a")
    with pytest.raises(AlreadyExists), vfs.catalog.write() as repository:
        repository.move_entry(entry(vfs, "/file/b").location, place.folder, "a")
    with pytest.raises(AlreadyExists), vfs.catalog.write() as repository:
        repository.add_folder(folder.parent, "file", "d", FolderKind.PLAIN, "alice", False)
    with pytest.raises(Conflict), vfs.catalog.write() as repository:
        repository.add_location(a.number, "file", None, None)
    with pytest.raises(Conflict), vfs.catalog.write() as repository:
        repository.add_location(b.number, "other", place.folder, "a")


def test_locations(vfs: Vfs) -> None:
    """By image, by state, by store in pages."""
    image = put(vfs, "/file/a")
    link(vfs, "/file/a", "/other/a")
    put(vfs, "/file/b")
    vfs.create(vfs.place("/file/c"), ALICE)
    with vfs.catalog.read() as repository:
        assert [place.store for place in repository.locations_of(image.number)] == ["file", "other"]
        assert len(repository.locations_in_state(LocationState.ACTIVE)) == 3
        assert len(repository.locations_in_state(LocationState.PENDING)) == 1
        assert repository.count_locations("file") == 3
        first = repository.locations_in_store("file", limit=1)
        rest = repository.locations_in_store("file", after=first[0].number)
        assert [place.name for place in (*first, *rest)] == ["a", "b", "c"]


def test_times_are_aware_and_utc(vfs: Vfs) -> None:
    """A time in another zone is the same moment when it is read."""
    image = put(vfs, "/file/a")
    then = datetime.fromisoformat("2024-05-01T12:00:00+02:00")
    with vfs.catalog.write() as repository:
        repository.set_image(image.number, deleted_at=then)
    read = vfs.catalog.image(image.number).deleted_at
    assert read == then
    assert read.tzinfo is UTC
    assert abs(image.created_at - now()) < timedelta(minutes=5)


# What goes on


def test_uploads_are_noted_by_process(vfs: Vfs) -> None:
    """A heartbeat renews those of that process only; a second note replaces the first."""
    image = vfs.create(vfs.place("/file/a"), ALICE).image
    old = now() - timedelta(hours=1)
    with vfs.catalog.write() as repository:
        repository.add_upload(UploadRecord(image.number, ANOTHER, "/staged", old, old))
        repository.beat_uploads(this_process(), now())
        assert [record.heartbeat_at for record in repository.uploads()] == [old]
        repository.beat_uploads(ANOTHER, now())
        assert [record.heartbeat_at > old for record in repository.uploads()] == [True]
        repository.add_upload(UploadRecord(image.number, this_process(), "/other", old, old))
        (record,) = repository.uploads()
        assert (record.process, record.staged) == (this_process(), "/other")


def test_leases_are_what_was_said_last(vfs: Vfs) -> None:
    """Each process speaks for itself."""
    a, b = put(vfs, "/file/a").number, put(vfs, "/file/b").number
    presence.beat(vfs.catalog, ANOTHER, [a, b])
    presence.beat(vfs.catalog, this_process(), [a])
    presence.beat(vfs.catalog, ANOTHER, [b])
    with vfs.catalog.read() as repository:
        assert [process for process, _ in repository.leases(a)] == [this_process()]
        assert [process for process, _ in repository.leases(b)] == [ANOTHER]
        assert {process for process, _ in repository.lease_holders()} == {ANOTHER, this_process()}
    presence.leave(vfs.catalog, ANOTHER)
    with vfs.catalog.read() as repository:
        assert repository.leases(b) == []


# The change feed


def changes_of(vfs: Vfs, action: object) -> set[tuple[str, str | None]]:
    """(kind, name) of every change `action` tells."""
    with vfs.catalog.read() as repository:
        before = repository.last_change()
    assert callable(action)
    action()
    with vfs.catalog.read() as repository:
        changes = repository.changes(before, 100)
    assert {change.origin for change in changes} <= {str(this_process())}
    assert all(change.image for change in changes if change.kind is ChangeKind.IMAGE)
    return {(change.kind.value, change.name) for change in changes}


def test_every_change_is_told(vfs: Vfs) -> None:
    """Names that appear, go or change, and images whose metadata does."""
    assert ("entry", "a") in changes_of(vfs, lambda: vfs.create(vfs.place("/file/a"), ALICE))
    assert changes_of(vfs, lambda: set_fields(vfs, "/file/a", min_disk="1")) == {("image", None)}
    moved = changes_of(vfs, lambda: rename(vfs, "/file/a", "/file/b"))
    assert {("entry", "a"), ("entry", "b")} <= moved
    assert ("entry", "d") in changes_of(vfs, lambda: make_folder(vfs, "/file/d"))
    assert ("entry", "d") in changes_of(vfs, lambda: vfs.remove_folder(vfs.place("/file/d"), ALICE))
    removed = changes_of(vfs, lambda: remove(vfs, "/file/b"))
    assert {("entry", "b"), ("image", None)} <= removed
    assert ("entry", "b") in changes_of(vfs, lambda: remove(vfs, "/file/.trash/b"))


def test_a_change_that_failed_is_not_told(vfs: Vfs) -> None:
    """The feed is written in the same transaction."""
    put(vfs, "/file/a")

    def fail() -> None:
        with pytest.raises(AlreadyExists):
            vfs.create(vfs.place("/file/a"), ALICE)

    assert changes_of(vfs, fail) == set()
