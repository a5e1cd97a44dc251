"""Copies that are made by themselves."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog.catalog import Catalog
from catalog.copies import replicate as replicate_module
from catalog.copies.replicate import replicate
from catalog.errors import Conflict
from catalog.model.access import ADMIN
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.image import CHUNK_SIZE, Image
from catalog.process import Process, this_process
from catalog.repository.copies import SETTLE, WantedCopy
from catalog.rules import copies
from catalog.tree.vfs import Vfs
from catalog.upkeep import replicator
from catalog.upkeep.evacuate import evacuate
from catalog.upkeep.fsck import fsck
from catalog.upkeep.repair import verify_and_repair
from catalog.upkeep.replicator import Replicator
from catalog.upkeep.verify import Verdict, verify
from tests.kit.catalog import (
    ALICE,
    image_at,
    keys_in,
    link,
    make_folder,
    names_in,
    put,
    read,
    remove,
    rename,
    some_bytes,
    staged_files,
)
from tests.kit.damage import overwrite

DATA = some_bytes(2 * CHUNK_SIZE + 77)
LATER = timedelta(days=1)


def want(vfs: Vfs, image: Image, *stores: str, due: timedelta = timedelta()) -> None:
    """As an upload does to a store with `replicas`."""
    with vfs.catalog.write() as repository:
        repository.want_copies(image.number, stores, now() + due)


def wanted(vfs: Vfs) -> list[WantedCopy]:
    """All that is still to be made."""
    with vfs.catalog.read() as repository:
        return repository.due_copies(now() + LATER)


def stores_of(vfs: Vfs, image: Image) -> tuple[str, ...]:
    """The stores that have a copy."""
    return vfs.catalog.details(image.number).stores


def replicated(vfs: Vfs, path: str, *stores: str) -> Image:
    """A new image with copies that were made by themselves."""
    image = put(vfs, path, DATA)
    want(vfs, image, *(stores or ("other",)))
    Replicator(vfs.catalog).work()
    return image


def test_a_wanted_copy_is_made_without_a_name(vfs: Vfs) -> None:
    """In each of its stores, and it is read; nothing is wanted any more."""
    make_folder(vfs, "/file/d")
    image = replicated(vfs, "/file/d/a", "other", "memory")
    assert stores_of(vfs, image) == ("file", "memory", "other")
    assert (names_in(vfs, "/other"), names_in(vfs, "/memory")) == (set(), set())
    assert {one.verdict for one in verify(vfs.catalog, image, ADMIN)} == {Verdict.INTACT}
    file = vfs.catalog.store("file")
    file.delete(file.url_of(image.id))
    assert read(vfs, "/file/d/a") == DATA
    assert wanted(vfs) == []
    assert image_at(vfs, "/file/d/a").message == ""


def test_a_copy_is_not_made_before_its_time(vfs: Vfs) -> None:
    """Until then the writer may open the image again.

    Source: docs/semantics.md#writing-a-file-uploads-an-image.
    """
    want(vfs, put(vfs, "/file/a", DATA), "other", due=SETTLE)
    Replicator(vfs.catalog).work()
    assert keys_in(vfs, "other") == set()
    assert len(wanted(vfs)) == 1


def test_a_store_that_is_away_is_told_and_tried_again(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ever less often; once it is back the copy is made, and the message goes."""
    monkeypatch.setattr(replicator, "_FIRST_PAUSE", timedelta())
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    (tmp_path / "other").rename(tmp_path / "away")
    for attempts in (1, 2):
        Replicator(vfs.catalog).work()
        (left,) = wanted(vfs)
        assert left.attempts == attempts
    assert image_at(vfs, "/file/a").message.startswith("copying to store other failed: ")
    (tmp_path / "away").rename(tmp_path / "other")
    Replicator(vfs.catalog).work()
    assert stores_of(vfs, image) == ("file", "other")
    assert image_at(vfs, "/file/a").message == ""
    assert wanted(vfs) == []


def test_pauses_grow_to_an_hour(vfs: Vfs, tmp_path: Path) -> None:
    """A store that is away is asked 30 s later, a minute later, and so on."""
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    (tmp_path / "other").rename(tmp_path / "away")
    pauses = []
    for _ in range(9):
        with vfs.catalog.write() as repository:
            (left,) = repository.due_copies(now() + LATER)
            repository.postpone_copy(left, left.attempts, now())
        before = now()
        Replicator(vfs.catalog).work()
        pauses.append(round((wanted(vfs)[0].due_at - before).total_seconds(), -1))
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    message = image_at(vfs, "/file/a").message
    assert message.startswith("copying to store other failed: ")


def test_what_is_not_needed_is_forgotten(vfs: Vfs) -> None:
    """There is a copy already; or the image was deleted for good."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/elsewhere")
    gone = put(vfs, "/file/b", DATA)
    want(vfs, image, "other")
    want(vfs, gone, "other")
    remove(vfs, "/file/b")
    remove(vfs, "/file/.trash/b")
    Replicator(vfs.catalog).work()
    assert wanted(vfs) == []
    assert names_in(vfs, "/other") == {"elsewhere"}


def test_what_may_come_back_waits(vfs: Vfs) -> None:
    """An image in the trash is copied after its restoration."""
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    remove(vfs, "/file/a")
    Replicator(vfs.catalog).work()
    (left,) = wanted(vfs)
    assert left.attempts == 0
    assert keys_in(vfs, "other") == set()
    rename(vfs, "/file/.trash/a", "/file/a")
    with vfs.catalog.write() as repository:
        repository.postpone_copy(left, 0, now())
    Replicator(vfs.catalog).work()
    assert stores_of(vfs, image) == ("file", "other")


def test_a_store_that_is_no_longer_configured_is_told(vfs: Vfs) -> None:
    """And waited for."""
    want(vfs, put(vfs, "/file/a", DATA), "ceph")
    Replicator(vfs.catalog).work()
    assert "ceph: no such store" in image_at(vfs, "/file/a").message
    assert len(wanted(vfs)) == 1


@pytest.mark.parametrize("is_dead", [False, True])
def test_two_processes_do_not_make_one_copy(vfs: Vfs, is_dead: bool) -> None:
    """What another makes is left to it while it lives."""
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    here = this_process()
    dead = Process(here.host, here.boot, here.pid, here.started + 1)
    copies.start_copy(vfs.catalog, image.number, "other", dead if is_dead else here)
    Replicator(vfs.catalog).work()
    assert set(keys_in(vfs, "other")) == ({image.id} if is_dead else set())
    assert image_at(vfs, "/file/a").message == ""


def test_stopping_takes_a_copy_back_and_keeps_the_wish(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next process makes it, from its beginning."""
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    replicator = Replicator(vfs.catalog)
    original = Replicator._check
    begun: list[int] = []

    def check(self: Replicator, size: int) -> None:
        begun.append(size)
        self._stopping.set()
        original(self, size)

    monkeypatch.setattr(Replicator, "_check", check)
    replicator.start()
    replicator._thread.join(30)
    replicator.stop(30)
    assert len(begun) == 1
    assert (keys_in(vfs, "other"), staged_files(tmp_path)) == (set(), [])
    assert list(fsck(vfs.catalog, repair=False)) == []
    assert image_at(vfs, "/file/a").message == ""
    monkeypatch.setattr(Replicator, "_check", original)
    Replicator(vfs.catalog).work()
    assert stores_of(vfs, image) == ("file", "other")


@pytest.mark.expect_log("failed unexpectedly")
def test_a_defect_met_by_one_image_does_not_stop_the_others(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and tried again later."""
    bad, good = put(vfs, "/file/a", DATA), put(vfs, "/file/b", DATA)
    want(vfs, bad, "other")
    want(vfs, good, "other")

    def fail(_catalog: Catalog, image: Image, *arguments: Any, **options: Any) -> None:
        if image.number == bad.number:
            raise RuntimeError("a defect")
        replicate(vfs.catalog, image, *arguments, **options)

    monkeypatch.setattr(replicator, "replicate", fail)
    Replicator(vfs.catalog).work()
    assert keys_in(vfs, "other") == {good.id}
    assert len(wanted(vfs)) == 1


def test_the_thread_works_and_stops(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes due while it runs is made without anybody's doing."""
    monkeypatch.setattr(replicator, "_INTERVAL", 0.01)
    running = Replicator(vfs.catalog)
    running.start()
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    deadline = time.monotonic() + 30
    while keys_in(vfs, "other") != {image.id}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.stop(30)
    assert not running._thread.is_alive()


def test_a_record_on_another_host_is_left_alone(vfs: Vfs) -> None:
    """Nobody here can tell whether that process lives."""
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    elsewhere = Process("another-host", "boot/1", 1, 1)
    with vfs.catalog.write() as repository:
        repository.add_upload(UploadRecord(image.number, elsewhere, "", now(), now()))
    Replicator(vfs.catalog).work()
    assert keys_in(vfs, "other") == set()
    assert ALICE.owner == image.owner


# What becomes of them


def test_what_replaces_an_image_takes_its_copies_along(vfs: Vfs) -> None:
    """They are in the trash with it and come back with it; the new image gets its own."""
    old = replicated(vfs, "/file/a")
    new = put(vfs, "/file/.a.part", b"new")
    rename(vfs, "/file/.a.part", "/file/a")
    want(vfs, new, "other")
    Replicator(vfs.catalog).work()
    assert stores_of(vfs, new) == stores_of(vfs, old) == ("file", "other")
    assert image_at(vfs, "/file/.trash/a").id == old.id
    assert read(vfs, "/file/a") == b"new"
    rename(vfs, "/file/.trash/a", "/file/a")
    assert (image_at(vfs, "/file/a").id, read(vfs, "/file/a")) == (old.id, DATA)
    assert stores_of(vfs, old) == ("file", "other")


def test_the_last_name_takes_them_to_the_trash_and_away(vfs: Vfs) -> None:
    """`rm`, and `rm` in the trash: nothing is left in either store."""
    image = replicated(vfs, "/file/a")
    remove(vfs, "/file/a")
    assert keys_in(vfs, "other") == {image.id}
    remove(vfs, "/file/.trash/a")
    assert (keys_in(vfs, "file"), keys_in(vfs, "other")) == (set(), set())
    assert list(fsck(vfs.catalog, repair=False)) == []


def test_stores_tell_of_what_is_complete(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a copy that is being made or removed; each change is in the feed."""
    image = put(vfs, "/file/a", DATA)
    told: list[tuple[str, ...]] = []

    def look(_self: Replicator, _size: int) -> None:
        told.append(stores_of(vfs, image))
        told.append(vfs.catalog.details_of([image.number])[image.number].stores)

    want(vfs, image, "other")
    monkeypatch.setattr(Replicator, "_check", look)
    Replicator(vfs.catalog).work()
    assert set(told) == {("file",)}
    assert stores_of(vfs, image) == ("file", "other")
    before = vfs.catalog.version()
    list(evacuate(vfs.catalog, "other", "memory"))
    changes = vfs.catalog.changes_between(before, vfs.catalog.version(), 10)
    assert changes is not None
    assert image.number in {change.image for change in changes}
    assert stores_of(vfs, image) == ("file",)


def test_a_rename_costs_them_nothing(vfs: Vfs) -> None:
    """The old name is free for another image, which gets its copy as well."""
    old = replicated(vfs, "/file/a")
    rename(vfs, "/file/a", "/file/b")
    new = replicated(vfs, "/file/a")
    assert keys_in(vfs, "other") == {old.id, new.id}


def test_a_link_gives_one_its_name(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another byte; then it is a copy like any other that somebody made."""
    image = replicated(vfs, "/file/a")
    monkeypatch.setattr(replicate_module, "transfer", None)
    link(vfs, "/file/a", "/other/b")
    assert image_at(vfs, "/other/b").id == image.id
    remove(vfs, "/file/a")
    assert read(vfs, "/other/b") == DATA
    assert (stores_of(vfs, image), image_at(vfs, "/other/b").status) == (("other",), "active")


def test_a_move_there_gives_it_its_name(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one it comes from goes."""
    image = replicated(vfs, "/file/a")
    monkeypatch.setattr(replicate_module, "transfer", None)
    rename(vfs, "/file/a", "/other/a")
    assert (keys_in(vfs, "file"), names_in(vfs, "/file")) == (set(), set())
    assert (image_at(vfs, "/other/a").id, read(vfs, "/other/a")) == (image.id, DATA)


@pytest.mark.parametrize("harm", ["missing", "marked"])
def test_one_that_is_not_whole_gets_no_name(vfs: Vfs, tmp_path: Path, harm: str) -> None:
    """A move to it would leave nothing."""
    image = replicated(vfs, "/file/a")
    stored = tmp_path / "other" / image.id
    if harm == "missing":
        stored.unlink()
    else:
        overwrite(stored, 0, b"\0\1\2")
        list(verify(vfs.catalog, image, ADMIN))
    with pytest.raises(Conflict):
        rename(vfs, "/file/a", "/other/a")
    assert read(vfs, "/file/a") == DATA


def test_a_writer_that_returns_takes_them_back(vfs: Vfs) -> None:
    """What they are copies of changes.  They are made anew of what it leaves."""
    image = replicated(vfs, "/file/a")
    upload = vfs.uploads.reopen(image.number)
    assert keys_in(vfs, "other") == set()
    upload.write(0, b"changed")
    upload.commit()
    want(vfs, image, "other")
    Replicator(vfs.catalog).work()
    (_file, other) = verify(vfs.catalog, vfs.catalog.image(image.number), ADMIN)
    assert (other.store, other.verdict) == ("other", Verdict.INTACT)
    assert read(vfs, "/file/a") == b"changed" + DATA[7:]


def test_a_writer_does_not_return_while_one_is_made(vfs: Vfs) -> None:
    """Conflict: the copy would be of neither."""
    image = put(vfs, "/file/a", DATA)
    copies.start_copy(vfs.catalog, image.number, "other", this_process())
    with pytest.raises(Conflict):
        vfs.uploads.reopen(image.number)
    assert read(vfs, "/file/a") == DATA


def test_a_deletion_stops_the_copy(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for no copy; nothing of it is left, and the image can be restored."""
    monkeypatch.setattr("catalog.copies.progress.INTERVAL", 0.0)
    image = put(vfs, "/file/a", DATA)
    done: list[int] = []

    def delete(_self: Replicator, size: int) -> None:
        done.append(size)
        remove(vfs, "/file/a")
        with pytest.raises(Conflict):
            remove(vfs, "/file/.trash/a")

    want(vfs, image, "other")
    monkeypatch.setattr(Replicator, "_check", delete)
    Replicator(vfs.catalog).work()
    assert len(done) == 1
    assert (stores_of(vfs, image), keys_in(vfs, "other")) == (("file",), set())
    rename(vfs, "/file/.trash/a", "/file/a")
    assert read(vfs, "/file/a") == DATA


def test_one_that_ends_after_the_deletion_is_none(vfs: Vfs) -> None:
    """It was all but complete."""
    image = put(vfs, "/file/a", DATA)
    location = copies.start_copy(vfs.catalog, image.number, "other", this_process())
    remove(vfs, "/file/a")
    with pytest.raises(Conflict):
        copies.finish_copy(vfs.catalog, location, "file:///anywhere", None, ADMIN)


def test_fsck_leaves_an_image_its_last_name(vfs: Vfs, tmp_path: Path) -> None:
    """Its data there is gone, and a copy without a name has it: it is read, and repaired."""
    image = replicated(vfs, "/file/a")
    (tmp_path / "file" / image.id).unlink()
    list(fsck(vfs.catalog, repair=True))
    assert read(vfs, "/file/a") == DATA
    assert "missing" in image_at(vfs, "/file/a").message
    assert {one.verdict for one in verify_and_repair(vfs.catalog, image, ADMIN)} == {
        Verdict.REPAIRED,
        Verdict.INTACT,
    }
    assert (tmp_path / "file" / image.id).read_bytes() == DATA
