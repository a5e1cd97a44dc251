"""`imagefs uploads` and `imagefs abort`: what is in progress, and ending it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from catalog.cli.program import imagefs as program
from catalog.errors import (
    CatalogError,
    Conflict,
    Forbidden,
    ImageKilled,
    InvalidTransition,
    NotFound,
)
from catalog.model.access import ADMIN
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.process import this_process
from catalog.rules import copies, uploads
from catalog.tree.vfs import Vfs
from catalog.upkeep.in_progress import Life, abort, in_progress
from catalog.uploads import upload as upload_module
from tests.kit.catalog import (
    ALICE,
    BOB,
    begin,
    entry,
    image_at,
    keys_in,
    link,
    put,
    read,
    remove,
    staged_files,
)
from tests.kit.configuration import configure


def test_an_upload_in_progress_is_told(vfs: Vfs) -> None:
    """With its process and the bytes that are staged so far."""
    begin(vfs, "/file/a", bytes(1000))
    (going,) = in_progress(vfs.catalog)
    assert (going.image.name, going.staged, going.life) == ("a", 1000, Life.RUNNING)
    assert not going.is_copy


def test_uploads_of_the_dead_and_the_silent(vfs: Vfs) -> None:
    """A process of this host that ended is gone; another host's is silent after a while."""
    here, long_ago = this_process(), now() - timedelta(hours=1)
    for name, process in (
        ("gone", replace(here, started=1)),
        ("silent", replace(here, host="elsewhere", boot="other/1")),
    ):
        image = vfs.create(vfs.place(f"/file/{name}"), ALICE).image
        uploads.start_upload(vfs.catalog, image.number, process, "")
        with vfs.catalog.write() as repository:
            repository.add_upload(UploadRecord(image.number, process, "", now(), long_ago))
    assert {going.image.name: going.life for going in in_progress(vfs.catalog)} == {
        "gone": Life.GONE,
        "silent": Life.SILENT,
    }


def test_an_aborted_upload_cannot_be_committed(vfs: Vfs, tmp_path: Path) -> None:
    """Its image is killed and says by whom; nothing of it is left."""
    upload = begin(vfs, "/file/a", b"data")
    upload.finish()
    abort(vfs.catalog, upload.image, ALICE)
    with pytest.raises(CatalogError):
        upload.commit()
    image = image_at(vfs, "/file/a")
    assert (image.status, image.message) == ("killed", "aborted by alice")
    assert upload.ended
    assert keys_in(vfs) == set()
    assert staged_files(tmp_path) == []
    assert in_progress(vfs.catalog) == []
    remove(vfs, "/file/a")


def test_an_aborted_upload_whose_data_is_in_the_store(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aborted at the last moment it leaves no data there."""
    upload = begin(vfs, "/file/a", b"data")
    finish = uploads.finish_upload

    def aborted_just_before(*arguments: object) -> object:
        abort(vfs.catalog, upload.image, ALICE)
        return finish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(uploads, "finish_upload", aborted_just_before)
    with pytest.raises(InvalidTransition):
        upload.commit()
    assert image_at(vfs, "/file/a").message == "aborted by alice"
    assert keys_in(vfs) == set()


def test_the_writer_of_an_aborted_upload_is_told(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second of writing later at the latest, not after the last of its gigabytes."""
    monkeypatch.setattr(upload_module, "_ASK_AGAIN", -1.0)
    upload = begin(vfs, "/file/a", b"data")
    abort(vfs.catalog, upload.image, ADMIN)
    with pytest.raises(ImageKilled, match="aborted by"):
        upload.write(4, b"more")
    assert staged_files(tmp_path) == []


def test_an_idle_upload_that_was_aborted_is_given_up(vfs: Vfs, tmp_path: Path) -> None:
    """Its client may never write again: the process looks by itself."""
    one, other = begin(vfs, "/file/a", b"data"), begin(vfs, "/file/b", b"data")
    abort(vfs.catalog, one.image, ALICE)
    assert vfs.uploads.give_up_aborted() == [one]
    assert not other.ended
    assert len(staged_files(tmp_path)) == 1
    other.commit()


def test_what_cannot_be_aborted(vfs: Vfs) -> None:
    """Somebody else's, and what is not in progress; an active image stays."""
    upload = begin(vfs, "/file/a", b"data")
    with pytest.raises(Forbidden):
        abort(vfs.catalog, upload.image, BOB)
    upload.commit()
    with pytest.raises(NotFound):
        abort(vfs.catalog, image_at(vfs, "/file/a"), ALICE)
    assert read(vfs, "/file/a") == b"data"


def test_an_aborted_copy(vfs: Vfs, tmp_path: Path) -> None:
    """The copy goes, the image stays as it is."""
    image = put(vfs, "/file/a", b"data")
    copies.start_copy(vfs.catalog, image.number, "other", this_process())
    (going,) = in_progress(vfs.catalog)
    assert going.is_copy
    abort(vfs.catalog, image, ALICE)
    assert in_progress(vfs.catalog) == []
    assert read(vfs, "/file/a") == b"data"
    link(vfs, "/file/a", "/other/a")
    assert read(vfs, "/other/a") == b"data"


def test_a_copy_that_is_aborted_while_it_is_made(vfs: Vfs) -> None:
    """Whoever makes it fails, and takes back what it has written."""
    image = put(vfs, "/file/a", b"data")

    def progress(_size: int) -> None:
        abort(vfs.catalog, image, ALICE)

    number = entry(vfs, "/file/a").image.number
    with pytest.raises(Conflict, match="aborted"):
        vfs.link(number, vfs.place("/other/a"), ALICE, progress=progress)
    assert keys_in(vfs, "other") == set()
    assert read(vfs, "/file/a") == b"data"


def test_the_commands(vfs: Vfs, tmp_path: Path) -> None:
    """`uploads` lists it, `abort` ends it."""
    upload = begin(vfs, "/file/a", bytes(1000))
    config = ("--config", str(configure(tmp_path)))
    listed = CliRunner().invoke(program, [*config, "uploads"])
    row = listed.stdout.splitlines()[1]
    assert row.startswith("running ")
    assert row.endswith(" /file/a")
    assert "1000 B" in row
    (found,) = json.loads(CliRunner().invoke(program, [*config, "uploads", "--json"]).stdout)
    assert (found["id"], found["kind"], found["staged"]) == (upload.image.id, "upload", 1000)
    assert CliRunner().invoke(program, [*config, "abort", "/file/a"]).exit_code == 0
    assert image_at(vfs, "/file/a").status == "killed"
    assert CliRunner().invoke(program, [*config, "abort", "/file/a"]).exit_code == 4
    assert CliRunner().invoke(program, [*config, "uploads", "--json"]).stdout == "[]\n"
