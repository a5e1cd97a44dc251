"""fsck: each thing that can be wrong is found, and repaired without losing a byte."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.catalog import Catalog
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.status import Status
from catalog.model.tree import LocationState
from catalog.process import Process, this_process
from catalog.service.bootstrap import open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import Finding, FindingKind, fsck
from tests.kit.catalog import (
    ALICE,
    begin,
    entry,
    image_at,
    link,
    names_in,
    put,
    read,
    remove,
    rename,
    set_fields,
    staged_files,
)

UNKNOWN = "6b7f9dd2-0f8c-4b43-b3a0-6a6b2f0d1c11"
DAY = 86400


def kinds(catalog: Catalog, *, repair: bool = False) -> list[FindingKind]:
    """What fsck finds."""
    return [finding.kind for finding in fsck(catalog, repair=repair)]


def only(catalog: Catalog, *, repair: bool) -> Finding:
    """The one thing fsck finds."""
    (finding,) = fsck(catalog, repair=repair)
    return finding


def lose_location(vfs: Vfs, path: str) -> None:
    """Remove a location's row and keep its data."""
    with vfs.catalog.write() as repository:
        repository.drop_location(entry(vfs, path).location)


def quarantined(path: Path, store: str = "file") -> list[bytes]:
    """What a store keeps in quarantine."""
    folder = path / store / ".quarantine"
    return [file.read_bytes() for file in folder.iterdir()] if folder.is_dir() else []


def make_old(file: Path) -> None:
    """Give a file a time two days ago."""
    os.utime(file, (file.stat().st_mtime - 2 * DAY,) * 2)


def test_a_catalog_with_everything_in_it_is_clean(vfs: Vfs) -> None:
    """Every status, copies, trash, an upload that goes on: nothing is found or touched."""
    put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    put(vfs, "/memory/b")
    rename(vfs, "/memory/b", "/other/b")
    set_fields(vfs, "/other/b", status="deactivated")
    begin(vfs, "/file/killed", b"x").cancel("failed")
    vfs.create(vfs.place("/file/queued"), ALICE)
    for name in ("trashed", "purged"):
        put(vfs, f"/file/{name}")
        remove(vfs, f"/file/{name}")
    remove(vfs, "/file/.trash/purged")
    saving = begin(vfs, "/file/saving", b"x")
    finished = begin(vfs, "/file/.finished", b"y")
    finished.finish()
    assert kinds(vfs.catalog) == []
    assert kinds(vfs.catalog, repair=True) == []
    saving.commit()
    rename(vfs, "/file/.finished", "/file/finished")
    assert read(vfs, "/file/finished") == b"y"
    assert kinds(vfs.catalog) == []


# Data without a location


def test_unknown_data_is_quarantined(vfs: Vfs, tmp_path: Path) -> None:
    """It could be somebody's only copy: it is moved away, byte for byte."""
    (tmp_path / "file" / UNKNOWN).write_bytes(b"precious")
    found = only(vfs.catalog, repair=False)
    assert (found.kind, found.subject) == (FindingKind.UNKNOWN_DATA, f"file/{UNKNOWN}")
    assert found.repaired == ""
    assert (tmp_path / "file" / UNKNOWN).exists()
    assert "quarantine" in only(vfs.catalog, repair=True).repaired
    assert quarantined(tmp_path) == [b"precious"]
    assert kinds(vfs.catalog) == []


def test_data_of_an_image_that_never_had_any_is_quarantined(vfs: Vfs, tmp_path: Path) -> None:
    """Nobody knows what it is."""
    image = vfs.create(vfs.place("/file/a"), ALICE).image
    (tmp_path / "file" / image.id).write_bytes(b"strange")
    assert only(vfs.catalog, repair=True).kind is FindingKind.UNKNOWN_DATA
    assert quarantined(tmp_path) == [b"strange"]
    assert kinds(vfs.catalog) == []


@pytest.mark.parametrize("dead", ["killed", "killed and trashed", "deleted"])
def test_data_of_a_dead_image_is_removed(vfs: Vfs, tmp_path: Path, dead: str) -> None:
    """The catalog says that this data is to be gone."""
    if dead == "deleted":
        image = put(vfs, "/file/a")
        remove(vfs, "/file/a")
        remove(vfs, "/file/.trash/a")
    else:
        upload = begin(vfs, "/file/a", b"x")
        upload.cancel("failed")
        image = upload.image
        if dead != "killed":
            remove(vfs, "/file/a")
    (tmp_path / "file" / image.id).write_bytes(b"rest")
    assert only(vfs.catalog, repair=False).kind is FindingKind.GARBAGE
    assert (tmp_path / "file" / image.id).exists()
    assert only(vfs.catalog, repair=True).repaired == "removed"
    assert not (tmp_path / "file" / image.id).exists()
    assert quarantined(tmp_path) == []
    assert kinds(vfs.catalog) == []


def test_a_lost_location_is_made_again(vfs: Vfs) -> None:
    """Whole data of an image that should have it is adopted under its name."""
    image = put(vfs, "/file/a", b"data")
    lose_location(vfs, "/file/a")
    assert set(kinds(vfs.catalog)) == {FindingKind.LOST_LOCATION, FindingKind.NO_LOCATION}
    assert only(vfs.catalog, repair=True).repaired == "adopted"
    assert image_at(vfs, "/file/a").id == image.id
    assert read(vfs, "/file/a") == b"data"
    assert kinds(vfs.catalog) == []


def test_an_adopted_image_takes_nobody_s_name(vfs: Vfs) -> None:
    """Its name is taken: it gets its id behind it."""
    image = put(vfs, "/file/a", b"lost")
    lose_location(vfs, "/file/a")
    put(vfs, "/file/a", b"new")
    assert kinds(vfs.catalog, repair=True) == [FindingKind.LOST_LOCATION]
    assert read(vfs, "/file/a") == b"new"
    assert read(vfs, f"/file/a.{image.id}") == b"lost"
    assert kinds(vfs.catalog) == []


def test_a_deleted_image_is_adopted_into_the_trash(vfs: Vfs) -> None:
    """It stays deleted, and can be restored."""
    put(vfs, "/file/a", b"data")
    remove(vfs, "/file/a")
    lose_location(vfs, "/file/.trash/a")
    assert only(vfs.catalog, repair=True).kind is FindingKind.LOST_LOCATION
    assert names_in(vfs, "/file") == set()
    rename(vfs, "/file/.trash/a", "/file/a")
    assert read(vfs, "/file/a") == b"data"


def test_a_copy_whose_location_was_lost_is_adopted(vfs: Vfs) -> None:
    """The other copy is there all the time."""
    put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    lose_location(vfs, "/other/a")
    assert only(vfs.catalog, repair=True).repaired == "adopted"
    assert read(vfs, "/other/a") == b"data"


def test_a_location_that_forgot_its_data_is_mended(vfs: Vfs) -> None:
    """A pending location of an active image with whole data becomes active in place."""
    put(vfs, "/file/a", b"data")
    with vfs.catalog.write() as repository:
        location = entry(vfs, "/file/a").location
        repository.set_location(location.number, LocationState.PENDING, None)
    assert only(vfs.catalog, repair=True).repaired == "adopted"
    assert read(vfs, "/file/a") == b"data"
    assert kinds(vfs.catalog) == []


@pytest.mark.parametrize("damage", [b"dat", b"DATA", b"data and more"])
def test_damaged_data_is_not_adopted(vfs: Vfs, tmp_path: Path, damage: bytes) -> None:
    """It goes to quarantine, and the image says that it has no data."""
    image = put(vfs, "/file/a", b"data")
    lose_location(vfs, "/file/a")
    stored = tmp_path / "file" / image.id
    stored.chmod(0o600)
    stored.write_bytes(damage)
    assert set(kinds(vfs.catalog, repair=True)) == {
        FindingKind.LOST_LOCATION,
        FindingKind.NO_LOCATION,
    }
    assert quarantined(tmp_path) == [damage]
    assert "no store" in vfs.catalog.image(image.number).message


# A location without its data


def test_the_last_copy_that_is_missing_is_told_in_the_message(vfs: Vfs, tmp_path: Path) -> None:
    """No row is removed: the image stays, and says what happened."""
    image = put(vfs, "/file/a", b"data")
    (tmp_path / "file" / image.id).unlink()
    found = only(vfs.catalog, repair=False)
    assert (found.kind, found.subject) == (FindingKind.MISSING_DATA, f"file/{image.id}")
    assert image_at(vfs, "/file/a").message == ""
    only(vfs.catalog, repair=True)
    assert "missing in store file" in image_at(vfs, "/file/a").message
    assert kinds(vfs.catalog) == [FindingKind.MISSING_DATA]


def test_a_missing_copy_is_dropped_when_another_is_whole(vfs: Vfs, tmp_path: Path) -> None:
    """Then nothing is lost with it."""
    image = put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    (tmp_path / "file" / image.id).unlink()
    assert "dropped" in only(vfs.catalog, repair=True).repaired
    assert names_in(vfs, "/file") == set()
    assert read(vfs, "/other/a") == b"data"
    assert kinds(vfs.catalog) == []


def test_of_two_missing_copies_none_is_dropped(vfs: Vfs, tmp_path: Path) -> None:
    """A location that cannot be relied on is no reason to drop another."""
    image = put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    for store in ("file", "other"):
        (tmp_path / store / image.id).unlink()
    assert kinds(vfs.catalog, repair=True) == [FindingKind.MISSING_DATA] * 2
    assert names_in(vfs, "/file") == names_in(vfs, "/other") == {"a"}


def test_data_of_the_wrong_size(vfs: Vfs, tmp_path: Path) -> None:
    """Is told, and stays: a person must see what it is."""
    image = put(vfs, "/file/a", b"data")
    stored = tmp_path / "file" / image.id
    stored.chmod(0o600)
    stored.write_bytes(b"dat")
    found = only(vfs.catalog, repair=True)
    assert found.kind is FindingKind.WRONG_SIZE
    assert "3 bytes" in found.detail
    assert "3 bytes" in image_at(vfs, "/file/a").message
    assert stored.read_bytes() == b"dat"


# Rows


def test_an_image_with_no_data_anywhere(vfs: Vfs, tmp_path: Path) -> None:
    """Is told in its message; its row stays."""
    image = put(vfs, "/file/a")
    lose_location(vfs, "/file/a")
    (tmp_path / "file" / image.id).unlink()
    assert only(vfs.catalog, repair=True).kind is FindingKind.NO_LOCATION
    assert vfs.catalog.image(image.number).status == "active"
    assert vfs.catalog.image(image.number).message


def test_an_upload_of_a_dead_process_is_given_up(vfs: Vfs, tmp_path: Path) -> None:
    """As at the start of a mount."""
    upload = begin(vfs, "/file/a", b"x")
    here = this_process()
    gone = Process(here.host, here.boot, here.pid, here.started + 1)
    staged = tmp_path / "file" / ".staging" / staged_files(tmp_path)[0]
    with vfs.catalog.write() as repository:
        record = UploadRecord(upload.image.number, gone, str(staged), now(), now())
        repository.add_upload(record)
    assert only(vfs.catalog, repair=False).kind is FindingKind.DEAD_UPLOAD
    assert only(vfs.catalog, repair=True).repaired
    assert image_at(vfs, "/file/a").status == "killed"
    assert staged_files(tmp_path) == []
    assert kinds(vfs.catalog) == []


def test_an_image_nobody_is_saving_is_killed(vfs: Vfs) -> None:
    """`saving` without an upload is a state nobody ends."""
    image = vfs.create(vfs.place("/file/a"), ALICE).image
    with vfs.catalog.write() as repository:
        repository.change_status(image.number, Status.SAVING)
    assert only(vfs.catalog, repair=True).kind is FindingKind.NO_UPLOADER
    assert image_at(vfs, "/file/a").status == "killed"
    assert kinds(vfs.catalog) == []


def test_data_of_an_image_nobody_is_saving_is_kept(vfs: Vfs, tmp_path: Path) -> None:
    """It may be all that is left of an upload: into quarantine before the image is killed."""
    image = vfs.create(vfs.place("/file/a"), ALICE).image
    with vfs.catalog.write() as repository:
        repository.change_status(image.number, Status.SAVING)
    (tmp_path / "file" / image.id).write_bytes(b"precious")
    kinds(vfs.catalog, repair=True)
    assert quarantined(tmp_path) == [b"precious"]
    assert kinds(vfs.catalog) == []


def test_a_copy_that_was_never_completed_is_removed(vfs: Vfs) -> None:
    """A pending location that is no entry and of which no upload knows."""
    image = put(vfs, "/file/a", b"data")
    with vfs.catalog.write() as repository:
        repository.add_location(image.number, "other", None, None)
    assert only(vfs.catalog, repair=False).kind is FindingKind.LEFTOVER
    assert only(vfs.catalog, repair=True).repaired == "removed"
    assert read(vfs, "/file/a") == b"data"
    assert kinds(vfs.catalog) == []


def test_a_removal_that_was_begun_is_finished(vfs: Vfs, tmp_path: Path) -> None:
    """A location in DELETING, with its data still there."""
    image = put(vfs, "/file/a")
    remove(vfs, "/file/a")
    with vfs.catalog.write() as repository:
        repository.change_status(image.number, Status.DELETED)
        repository.detach_location(repository.locations_of(image.number)[0])
    assert only(vfs.catalog, repair=False).kind is FindingKind.LEFTOVER
    assert only(vfs.catalog, repair=True).repaired == "removed"
    assert not (tmp_path / "file" / image.id).exists()
    assert kinds(vfs.catalog) == []


# Staging


@pytest.mark.parametrize("folder", ["file/.staging", "staging"])
@pytest.mark.parametrize("name", [f"{UNKNOWN}.12ab34cd", "strange"])
def test_an_old_staging_file_of_nobody_is_removed(
    vfs: Vfs, tmp_path: Path, folder: str, name: str
) -> None:
    """A young one may belong to an upload that is about to be noted."""
    (tmp_path / folder).mkdir(exist_ok=True)
    file = tmp_path / folder / name
    file.write_bytes(b"x")
    assert kinds(vfs.catalog, repair=True) == []
    make_old(file)
    assert only(vfs.catalog, repair=False).kind is FindingKind.STRAY_STAGING
    assert file.exists()
    assert only(vfs.catalog, repair=True).repaired == "removed"
    assert not file.exists()


@pytest.mark.parametrize("store", ["file", "memory"])
def test_an_old_staging_file_of_an_upload_stays(vfs: Vfs, tmp_path: Path, store: str) -> None:
    """However long it takes: its uploader is there."""
    upload = begin(vfs, f"/{store}/a", b"data")
    (name,) = staged_files(tmp_path)
    folder = tmp_path / ("file/.staging" if store == "file" else "staging")
    make_old(folder / name)
    # What a store's own writer stages is named after the image as well.
    (folder / f"{upload.image.id}.0123456789abcdef").touch()
    make_old(folder / f"{upload.image.id}.0123456789abcdef")
    assert kinds(vfs.catalog, repair=True) == []
    upload.commit()
    assert read(vfs, f"/{store}/a") == b"data"


# Stores that are away


def test_a_store_that_does_not_answer_is_a_finding(vfs: Vfs, tmp_path: Path) -> None:
    """Its images are not called lost, and the other stores are examined all the same."""
    put(vfs, "/file/a")
    missing = put(vfs, "/other/b")
    (tmp_path / "other" / missing.id).unlink()
    (tmp_path / "file").rename(tmp_path / "unmounted")
    (tmp_path / "file").mkdir()
    assert kinds(vfs.catalog, repair=True) == [
        FindingKind.STORE_UNAVAILABLE,
        FindingKind.MISSING_DATA,
    ]
    assert list((tmp_path / "file").iterdir()) == []
    (tmp_path / "file").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "file")
    assert image_at(vfs, "/file/a").message == ""


def test_a_store_that_is_no_longer_configured(vfs: Vfs, settings: Settings) -> None:
    """Is named with the number of its images, and nothing is done to them."""
    put(vfs, "/other/a")
    stores = {name: section for name, section in settings.stores.items() if name != "other"}
    catalog = open_catalog(Settings(settings.source, settings.catalog, stores))
    found = only(catalog, repair=True)
    assert (found.kind, found.subject) == (FindingKind.STORE_UNAVAILABLE, "other")
    assert "1 images" in found.detail
    assert image_at(vfs, "/other/a").message == ""
    catalog.close()


def test_a_repair_that_fails_is_told(vfs: Vfs, tmp_path: Path) -> None:
    """The finding says why nothing was done, and the rest goes on."""
    (tmp_path / "file" / UNKNOWN).write_bytes(b"x")
    (tmp_path / "file" / ".quarantine").write_bytes(b"in the way")
    found = only(vfs.catalog, repair=True)
    assert found.repaired == ""
    assert "not repaired" in found.detail
    assert (tmp_path / "file" / UNKNOWN).exists()


# While others work


WORK: list[Callable[[Vfs, int], object]] = [
    lambda vfs, turn: put(vfs, f"/file/{turn}", b"x" * turn),
    lambda vfs, turn: rename(vfs, f"/file/{turn}", f"/other/{turn}"),
    lambda vfs, turn: link(vfs, f"/other/{turn}", f"/file/{turn}"),
    lambda vfs, turn: remove(vfs, f"/other/{turn}"),
    lambda vfs, turn: vfs.uploads.reopen(image_at(vfs, f"/file/{turn}").number).commit(),
    lambda vfs, turn: remove(vfs, f"/file/{turn}"),
    lambda vfs, turn: remove(vfs, f"/file/.trash/{turn}"),
    lambda vfs, turn: begin(vfs, f"/file/{turn}", b"x").cancel("failed"),
]


@pytest.mark.stress
def test_fsck_harms_nobody_who_works(vfs: Vfs, tmp_path: Path) -> None:
    """With everything going on, repair touches nothing but removals it may share."""
    stopped = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for turn in range(10):
                for step in WORK:
                    step(vfs, turn)
        except BaseException as error:  # noqa: BLE001  (a thread's failure is shown below)
            failures.append(error)
        finally:
            stopped.set()

    worker = threading.Thread(target=work)
    worker.start()
    found: list[Finding] = []
    while not stopped.is_set():
        found += fsck(vfs.catalog, repair=True)
    worker.join()
    assert failures == []
    assert {finding.kind for finding in found} <= {FindingKind.LEFTOVER}
    assert quarantined(tmp_path) == quarantined(tmp_path, "other") == []
    assert kinds(vfs.catalog) == []
