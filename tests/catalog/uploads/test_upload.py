"""Uploads: what a commit checks, what a cancel leaves, and in which order they may come."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from catalog.errors import (
    CatalogError,
    Conflict,
    DigestMismatch,
    ImageKilled,
    ImageTooLarge,
    IncompleteUpload,
    InvalidImage,
    InvalidTransition,
    InvalidValue,
    Protected,
    StoreFull,
    StoreUnavailable,
)
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE
from catalog.tree.vfs import Vfs
from catalog.uploads.upload import UploadState
from tests.kit.catalog import (
    ALICE,
    begin,
    image_at,
    link,
    new_catalog,
    put,
    read,
    remove,
    rename,
    set_fields,
    settings_at,
    some_bytes,
    staged_files,
)

STORES = ["file", "other", "memory"]


@pytest.mark.parametrize("store", STORES)
def test_an_upload_becomes_active(vfs: Vfs, tmp_path: Path, store: str) -> None:
    """The data is what was written, with size and digest, and nothing stays staged."""
    data = some_bytes(CHUNK_SIZE + 1)
    upload = begin(vfs, f"/{store}/a")
    for at in range(0, len(data), 1 << 16):
        assert upload.write(at, data[at : at + (1 << 16)]) == len(data[at : at + (1 << 16)])
    assert image_at(vfs, f"/{store}/a").status == "saving"
    assert upload.size == len(data)
    upload.commit()
    image = image_at(vfs, f"/{store}/a")
    assert (image.status, image.size) == ("active", len(data))
    assert image.os_hash_value == hashlib.sha256(data).hexdigest()
    assert read(vfs, f"/{store}/a") == data
    assert staged_files(tmp_path) == []
    with vfs.catalog.read() as repository:
        assert repository.uploads() == []


@pytest.mark.parametrize("algo", ["sha256", "sha384", "sha512"])
def test_chunk_digests_are_recorded(tmp_path: Path, algo: str) -> None:
    """Read back they are those of every 4 MiB, in the configured algorithm; md5 if wanted."""
    catalog = new_catalog(settings_at(tmp_path, os_hash_algo=algo, checksum=True))
    data = some_bytes(2 * CHUNK_SIZE + 5)
    image = put(Vfs(catalog), "/file/a", data)
    with catalog.read() as repository:
        chunks = repository.chunk_digests(image.number)
    assert chunks is not None
    parts = [data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)]
    assert list(chunks.digests) == [blake3(part).digest() for part in parts]
    assert (image.os_hash_algo, image.os_hash_value) == (algo, hashlib.new(algo, data).hexdigest())
    assert image.checksum == hashlib.md5(data, usedforsecurity=False).hexdigest()
    catalog.close()


def test_holes_stay_holes(vfs: Vfs, tmp_path: Path) -> None:
    """A sparse upload takes no room for its holes, staged or stored."""
    upload = begin(vfs, "/file/a")
    upload.write(64 << 20, b"end")
    assert upload.staged_bytes < 1 << 20
    upload.commit()
    stored = tmp_path / "file" / upload.image.id
    assert stored.stat().st_blocks * 512 < 1 << 20
    assert image_at(vfs, "/file/a").size == (64 << 20) + 3


def test_the_uploader_reads_what_it_wrote(vfs: Vfs) -> None:
    """Until the end, an upload reads as a file does, zeros where nothing was written."""
    upload = begin(vfs, "/file/a")
    upload.write(5, b"world")
    upload.write(0, b"hello")
    upload.truncate(12)
    assert upload.read_at(0, 100) == b"helloworld\0\0"
    assert upload.read_at(8, 2) == b"ld"
    upload.sync()


def test_a_write_of_nothing_changes_nothing(vfs: Vfs) -> None:
    """As write(2): it does not even make the file longer."""
    upload = begin(vfs, "/file/a", b"data")
    assert upload.write(100, b"") == 0
    upload.commit()
    assert read(vfs, "/file/a") == b"data"


def test_the_time_a_tool_set_is_kept(vfs: Vfs) -> None:
    """mtime is what was set on the upload, or the time of the commit."""
    upload = begin(vfs, "/file/a", b"x")
    upload.mtime = 1_234_567_890
    upload.commit()
    assert image_at(vfs, "/file/a").mtime == 1_234_567_890
    assert put(vfs, "/file/b").mtime > 10**18


# What a commit checks


@pytest.mark.parametrize("algo", ["sha256", "sha384", "sha512"])
def test_an_expected_digest_is_verified(vfs: Vfs, algo: str) -> None:
    """The right one passes, in capitals too and in another algorithm than the catalog's."""
    upload = begin(vfs, "/file/a", b"data")
    set_fields(vfs, "/file/a", os_hash_value=hashlib.new(algo, b"data").hexdigest().upper())
    upload.commit()
    image = image_at(vfs, "/file/a")
    assert image.status == "active"
    assert image.os_hash_value == hashlib.sha256(b"data").hexdigest()


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("os_hash_value", hashlib.sha256(b"other").hexdigest(), DigestMismatch),
        ("os_hash_value", hashlib.sha512(b"other").hexdigest(), DigestMismatch),
        ("size", "5", IncompleteUpload),
        ("disk_format", "qcow2", InvalidImage),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_wrong_expectation_kills(
    vfs: Vfs, tmp_path: Path, field: str, value: str, error: type[CatalogError], finished: bool
) -> None:
    """Whether it was stated before or after the data was finished, commit verifies it."""
    upload = begin(vfs, "/file/a", b"data")
    if finished:
        upload.finish()
    set_fields(vfs, "/file/a", **{field: value})
    with pytest.raises(error) as caught:
        upload.commit()
    image = image_at(vfs, "/file/a")
    assert (image.status, image.size) == ("killed", 0)
    assert image.message == str(caught.value)
    assert staged_files(tmp_path) == []
    with pytest.raises(ImageKilled):
        read(vfs, "/file/a")


def test_a_right_expectation_after_finish_passes(vfs: Vfs) -> None:
    """rsync -X sets attributes before it renames: that costs nothing."""
    upload = begin(vfs, "/file/.a.Xy12", b"data")
    upload.finish()
    set_fields(vfs, "/file/.a.Xy12", size="4", os_hash_value=hashlib.sha256(b"data").hexdigest())
    rename(vfs, "/file/.a.Xy12", "/file/a")
    assert read(vfs, "/file/a") == b"data"


def test_an_expected_size_must_be_a_number(vfs: Vfs) -> None:
    """Anything else is refused when it is set."""
    begin(vfs, "/file/a", b"data")
    with pytest.raises(InvalidValue):
        set_fields(vfs, "/file/a", size="many")


def test_an_image_too_large_is_refused_at_the_write(tmp_path: Path) -> None:
    """Writing or growing past `max_image_size` fails, and so does the commit after it."""
    vfs = Vfs(new_catalog(settings_at(tmp_path, max_image_size=1000)))
    put(vfs, "/file/exact", bytes(1000))
    upload = begin(vfs, "/file/a", bytes(1000))
    with pytest.raises(ImageTooLarge):
        upload.write(1000, b"x")
    with pytest.raises(IncompleteUpload):
        upload.commit()
    upload = begin(vfs, "/file/b")
    with pytest.raises(ImageTooLarge):
        upload.truncate(1001)
    assert image_at(vfs, "/file/a").status == "killed"
    vfs.close()


def test_staging_is_bounded(tmp_path: Path) -> None:
    """Past `staging_limit` a write is StoreFull; what others staged is not lost."""
    vfs = Vfs(new_catalog(settings_at(tmp_path, staging_limit=1 << 20)))
    first = begin(vfs, "/file/a", b"x" * (600 << 10))
    second = begin(vfs, "/file/b", b"x" * (300 << 10))
    with pytest.raises(StoreFull, match="1048576"):
        second.write(300 << 10, b"x" * (300 << 10))
    with pytest.raises(IncompleteUpload):
        second.commit()
    first.commit()
    assert put(vfs, "/file/c", b"x" * (900 << 10)).status == "active"
    vfs.close()


def test_a_write_that_failed_is_never_committed(vfs: Vfs) -> None:
    """A writer that ignores an error gets no image with a gap."""
    upload = begin(vfs, "/file/a", b"data")
    upload.fail(StoreUnavailable("the connection", "was cut"))
    with pytest.raises(IncompleteUpload, match="was cut"):
        upload.commit()
    assert image_at(vfs, "/file/a").status == "killed"
    assert "was cut" in image_at(vfs, "/file/a").message


def test_a_full_store_kills(vfs: Vfs, tmp_path: Path) -> None:
    """A store that is full at commit leaves nothing of the image."""
    upload = begin(vfs, "/memory/a", bytes(1 << 24) + b"x")
    with pytest.raises(StoreFull):
        upload.commit()
    assert image_at(vfs, "/memory/a").status == "killed"
    assert list(vfs.catalog.store("memory").keys()) == []
    assert staged_files(tmp_path) == []


def test_a_store_that_went_away_kills(vfs: Vfs, tmp_path: Path) -> None:
    """If the store's disk is not there at commit, the image is killed with the reason."""
    upload = begin(vfs, "/file/a", b"data")
    (tmp_path / "file").rename(tmp_path / "unmounted")
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreUnavailable):
        upload.commit()
    (tmp_path / "file").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "file")
    assert image_at(vfs, "/file/a").status == "killed"


# The order of things


def test_commit_is_idempotent(vfs: Vfs) -> None:
    """A second commit, and a cancel after it, change nothing."""
    upload = begin(vfs, "/file/a", b"data")
    upload.finish()
    upload.finish()
    upload.commit()
    before = image_at(vfs, "/file/a")
    upload.commit()
    upload.cancel("too late")
    assert image_at(vfs, "/file/a") == before
    assert read(vfs, "/file/a") == b"data"
    assert upload.state is UploadState.COMMITTED


@pytest.mark.parametrize("finished", [False, True])
def test_cancel_is_idempotent(vfs: Vfs, tmp_path: Path, finished: bool) -> None:
    """The first reason stays; a commit after it is refused; nothing is left."""
    upload = begin(vfs, "/file/a", b"data")
    if finished:
        upload.finish()
    upload.cancel("the first reason")
    upload.cancel("the second reason")
    with pytest.raises(ImageKilled):
        upload.commit()
    with pytest.raises(ImageKilled):
        upload.write(0, b"x")
    image = image_at(vfs, "/file/a")
    assert (image.status, image.message) == ("killed", "the first reason")
    assert staged_files(tmp_path) == []
    assert list(vfs.catalog.store("file").keys()) == []


@pytest.mark.parametrize("store", STORES)
def test_a_finished_upload_can_be_written_again(vfs: Vfs, store: str) -> None:
    """A write takes it back to OPEN, and the commit stores what is there then."""
    upload = begin(vfs, f"/{store}/a", b"first data")
    upload.finish()
    assert image_at(vfs, f"/{store}/a").status == "saving"
    upload.write(0, b"other")
    assert upload.state is UploadState.OPEN
    upload.finish()
    upload.truncate(5)
    upload.commit()
    assert read(vfs, f"/{store}/a") == b"other"
    assert image_at(vfs, f"/{store}/a").os_hash_value == hashlib.sha256(b"other").hexdigest()


def test_commit_and_cancel_at_the_same_time(vfs: Vfs, tmp_path: Path) -> None:
    """Whichever comes first wins; the image is whole or killed, never between."""
    for turn in range(20):
        upload = begin(vfs, f"/file/{turn}", b"data")
        canceller = threading.Thread(target=upload.cancel, args=("raced",))
        canceller.start()
        try:
            upload.commit()
        except ImageKilled:
            assert image_at(vfs, f"/file/{turn}").status == "killed"
        else:
            assert read(vfs, f"/file/{turn}") == b"data"
        canceller.join()
    assert staged_files(tmp_path) == []


def test_one_image_has_one_upload(vfs: Vfs) -> None:
    """Starting again gives the same one while it goes on, and no other after it."""
    upload = begin(vfs, "/file/a", b"data")
    assert vfs.uploads.start(upload.image.number) is upload
    assert vfs.uploads.get(upload.image.number) is upload
    assert list(vfs.uploads) == [upload]
    upload.commit()
    assert vfs.uploads.get(upload.image.number) is None
    assert list(vfs.uploads) == []
    with pytest.raises(InvalidTransition):
        vfs.uploads.start(upload.image.number)


def test_two_processes_cannot_upload_one_image(vfs: Vfs) -> None:
    """The second is refused by the status, whatever it knows of the first."""
    upload = begin(vfs, "/file/a", b"data")
    with pytest.raises(InvalidTransition):
        Vfs(vfs.catalog).uploads.start(upload.image.number)
    upload.commit()


def test_an_image_deleted_meanwhile_is_not_committed(vfs: Vfs, tmp_path: Path) -> None:
    """`rm` of what is being uploaded cancels it."""
    upload = begin(vfs, "/file/a", b"data")
    remove(vfs, "/file/a")
    with pytest.raises(ImageKilled):
        upload.commit()
    assert image_at(vfs, "/file/.trash/a").status == "pending_delete"
    assert staged_files(tmp_path) == []


def test_closing_cancels_what_goes_on(vfs: Vfs, tmp_path: Path) -> None:
    """A mount that stops leaves no image that looks as if it were being saved."""
    upload = begin(vfs, "/file/a", b"data")
    vfs.close()
    assert upload.state is UploadState.CANCELLED
    again = Vfs(new_catalog(settings_at(tmp_path)))
    assert "stopped" in image_at(again, "/file/a").message
    again.close()


# Reopening (docs/semantics.md#writing-a-file-uploads-an-image)


@pytest.mark.parametrize("store", STORES)
def test_the_writer_reopens_what_it_committed(vfs: Vfs, tmp_path: Path, store: str) -> None:
    """The image goes back to saving with its data, and becomes active with the new."""
    image = put(vfs, f"/{store}/a", b"header")
    upload = vfs.uploads.reopen(image.number)
    assert image_at(vfs, f"/{store}/a").status == "saving"
    assert upload.read_at(0, 100) == b"header"
    upload.write(6, b" and data")
    upload.commit()
    after = image_at(vfs, f"/{store}/a")
    assert (after.id, after.size, after.status) == (image.id, 15, "active")
    assert after.os_hash_value == hashlib.sha256(b"header and data").hexdigest()
    assert read(vfs, f"/{store}/a") == b"header and data"
    assert staged_files(tmp_path) == []


def test_a_reader_keeps_what_it_opened(vfs: Vfs) -> None:
    """Whoever has the image open reads the old data to its end while it is replaced."""
    image = put(vfs, "/file/a", b"old data")
    reader = vfs.open(image.number, ADMIN)
    upload = vfs.uploads.reopen(image.number)
    upload.write(0, b"NEW DATA")
    upload.commit()
    assert reader.read_at(0, 100) == b"old data"
    reader.close()
    assert read(vfs, "/file/a") == b"NEW DATA"


def test_a_reopened_upload_that_is_cancelled_leaves_no_data(vfs: Vfs) -> None:
    """Half of it may have been overwritten: neither the old nor the new is the image."""
    image = put(vfs, "/file/a", b"header")
    vfs.uploads.reopen(image.number).cancel("killed by a signal")
    assert image_at(vfs, "/file/a").status == "killed"
    assert list(vfs.catalog.store("file").keys()) == []


def test_what_cannot_be_reopened(vfs: Vfs, tmp_path: Path) -> None:
    """An image with copies, one in the trash, one without data: refused, and no trace left."""
    image = put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    trashed = put(vfs, "/file/b")
    remove(vfs, "/file/b")
    queued = vfs.create(vfs.place("/file/c"), ALICE).image
    gc.collect()
    open_files = len(os.listdir("/proc/self/fd"))
    for number in (image.number, trashed.number, queued.number):
        with pytest.raises((Conflict, InvalidTransition)):
            vfs.uploads.reopen(number)
    assert len(os.listdir("/proc/self/fd")) == open_files
    assert staged_files(tmp_path) == []
    assert read(vfs, "/file/a") == b"data"


# Publishing


def test_commit_publishes_in_one_step(vfs: Vfs) -> None:
    """The rename, what it replaces and the commit are one change."""
    old = put(vfs, "/file/a", b"old")
    upload = begin(vfs, "/file/.a.Xy12", b"new")
    upload.finish()
    rename(vfs, "/file/.a.Xy12", "/file/a")
    assert read(vfs, "/file/a") == b"new"
    assert image_at(vfs, "/file/.trash/a").id == old.id


def test_a_refused_publication_costs_nothing(vfs: Vfs) -> None:
    """If the target is protected the upload stays as it was and can be published elsewhere."""
    put(vfs, "/file/a", b"old")
    set_fields(vfs, "/file/a", protected="true")
    upload = begin(vfs, "/file/.a.Xy12", b"new")
    upload.finish()
    with pytest.raises(Protected):
        rename(vfs, "/file/.a.Xy12", "/file/a")
    rename(vfs, "/file/.a.Xy12", "/file/b")
    assert (read(vfs, "/file/a"), read(vfs, "/file/b")) == (b"old", b"new")


def test_a_partial_file_of_rsync_is_not_published(vfs: Vfs) -> None:
    """A source with mtime 0 s is one rsync keeps although it is not whole."""
    upload = begin(vfs, "/file/.a.Xy12", b"half")
    upload.mtime = 5
    upload.finish()
    with pytest.raises(IncompleteUpload):
        rename(vfs, "/file/.a.Xy12", "/file/a")
    assert image_at(vfs, "/file/.a.Xy12").status == "saving"
