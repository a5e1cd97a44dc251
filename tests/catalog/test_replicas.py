"""Copies that are made by themselves."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from catalog import replicas
from catalog.fsck import fsck
from catalog.image import CHUNK_SIZE, Image, Process, UploadRecord, now
from catalog.process import this_process
from catalog.replicas import Replicator
from catalog.repository import copies
from catalog.repository.copies import WantedCopy
from catalog.vfs import Vfs
from tests.catalog.actions import (
    ALICE,
    image_at,
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

DATA = some_bytes(2 * CHUNK_SIZE + 77)
LATER = timedelta(days=1)


def want(vfs: Vfs, image: Image, *stores: str, due: timedelta = timedelta()) -> None:
    """As an upload does to a store with `replicas`."""
    with vfs.catalog.write() as repository:
        copies.want(repository, image.number, stores, now() + due)


def wanted(vfs: Vfs) -> list[WantedCopy]:
    """All that is still to be made."""
    with vfs.catalog.read() as repository:
        return copies.due(repository, now() + LATER)


def test_a_wanted_copy_is_made_at_the_same_path(vfs: Vfs) -> None:
    """In each of its stores, with the folders; nothing is wanted any more."""
    make_folder(vfs, "/file/d")
    image = put(vfs, "/file/d/a", DATA)
    want(vfs, image, "other", "memory")
    Replicator(vfs.catalog).work()
    assert read(vfs, "/other/d/a") == read(vfs, "/memory/d/a") == DATA
    assert wanted(vfs) == []
    assert image_at(vfs, "/file/d/a").message == ""


def test_a_copy_is_not_made_before_its_time(vfs: Vfs) -> None:
    """The writer may open the image again (DESIGN §6.3)."""
    want(vfs, put(vfs, "/file/a", DATA), "other", due=copies.SETTLE)
    Replicator(vfs.catalog).work()
    assert names_in(vfs, "/other") == set()
    assert len(wanted(vfs)) == 1


def test_a_name_that_is_taken_is_told_and_tried_again(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ever less often; once it is free the copy is made, and the message goes."""
    monkeypatch.setattr(replicas, "_FIRST_PAUSE", timedelta())
    put(vfs, "/other/a", b"another")
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    for attempts in (1, 2):
        Replicator(vfs.catalog).work()
        (left,) = wanted(vfs)
        assert left.attempts == attempts
    assert image_at(vfs, "/file/a").message == "copying to store other failed: a: already exists"
    remove(vfs, "/other/a")
    Replicator(vfs.catalog).work()
    assert read(vfs, "/other/a") == DATA
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
            (left,) = copies.due(repository, now() + LATER)
            copies.postpone(repository, left, left.attempts, now())
        before = now()
        Replicator(vfs.catalog).work()
        pauses.append(round((wanted(vfs)[0].due_at - before).total_seconds(), -1))
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    message = image_at(vfs, "/file/a").message
    assert message.startswith("copying to store other failed: ")


def test_an_image_where_a_folder_should_be_is_told(vfs: Vfs) -> None:
    """Nothing gives way."""
    make_folder(vfs, "/file/d")
    put(vfs, "/other/d", b"an image")
    want(vfs, put(vfs, "/file/d/a", DATA), "other")
    Replicator(vfs.catalog).work()
    assert "d: is an image in store other" in image_at(vfs, "/file/d/a").message
    assert read(vfs, "/other/d") == b"an image"


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
    assert names_in(vfs, "/other") == set()
    rename(vfs, "/file/.trash/a", "/file/a")
    with vfs.catalog.write() as repository:
        copies.postpone(repository, left, 0, now())
    Replicator(vfs.catalog).work()
    assert read(vfs, "/other/a") == DATA


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
    vfs.catalog.start_copy(image.number, "other", dead if is_dead else here)
    Replicator(vfs.catalog).work()
    assert names_in(vfs, "/other") == ({"a"} if is_dead else set())
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
    assert (names_in(vfs, "/other"), staged_files(tmp_path)) == (set(), [])
    assert list(fsck(vfs.catalog, repair=False)) == []
    assert image_at(vfs, "/file/a").message == ""
    monkeypatch.setattr(Replicator, "_check", original)
    Replicator(vfs.catalog).work()
    assert read(vfs, "/other/a") == DATA


@pytest.mark.expect_log("failed unexpectedly")
def test_a_defect_met_by_one_image_does_not_stop_the_others(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and tried again later."""
    bad = put(vfs, "/file/a", DATA)
    want(vfs, bad, "other")
    want(vfs, put(vfs, "/file/b", DATA), "other")
    original = Replicator._place

    def place(self: Replicator, image: Image, store: str) -> object:
        if image.number == bad.number:
            raise RuntimeError("a defect")
        return original(self, image, store)

    monkeypatch.setattr(Replicator, "_place", place)
    Replicator(vfs.catalog).work()
    assert names_in(vfs, "/other") == {"b"}
    assert len(wanted(vfs)) == 1


def test_the_thread_works_and_stops(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes due while it runs is made without anybody's doing."""
    monkeypatch.setattr(replicas, "_INTERVAL", 0.01)
    replicator = Replicator(vfs.catalog)
    replicator.start()
    want(vfs, put(vfs, "/file/a", DATA), "other")
    deadline = time.monotonic() + 30
    while names_in(vfs, "/other") != {"a"}:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    replicator.stop(30)
    assert not replicator._thread.is_alive()


def test_a_record_on_another_host_is_left_alone(vfs: Vfs) -> None:
    """Nobody here can tell whether that process lives."""
    image = put(vfs, "/file/a", DATA)
    want(vfs, image, "other")
    elsewhere = Process("another-host", "boot/1", 1, 1)
    with vfs.catalog.write() as repository:
        repository.add_upload(UploadRecord(image.number, elsewhere, "", now(), now()))
    Replicator(vfs.catalog).work()
    assert names_in(vfs, "/other") == set()
    assert ALICE.owner == image.owner
