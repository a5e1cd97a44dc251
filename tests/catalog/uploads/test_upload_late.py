"""What an image that has been committed is worth when more was written to it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import CatalogUnavailable
from catalog.model.status import Status
from catalog.tree.vfs import Vfs
from catalog.uploads.upload import Upload
from tests.kit.catalog import begin, entry, image_at, put, read, remove, rename, staged_files


def test_reopened_by_many_at_once(vfs: Vfs) -> None:
    """All find one upload, and none of their bytes is lost."""
    number = put(vfs, "/file/a", b"0123456789").number
    found: list[Upload] = []

    def write(at: int) -> None:
        upload = vfs.uploads.reopen(number)
        upload.write(at, b"x")
        found.append(upload)

    threads = [threading.Thread(target=write, args=(at,)) for at in range(0, 10, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == len(threads)
    found[0].commit()
    assert read(vfs, "/file/a") == b"x1x3x5x7x9"


@pytest.mark.expect_log("killed: it lacks some")
def test_a_forfeited_image_is_killed(vfs: Vfs, tmp_path: Path) -> None:
    """With its reason, and its data goes."""
    image = put(vfs, "/file/a")
    vfs.uploads.forfeit(image.number, "it lacks some")
    found = image_at(vfs, "/file/a")
    assert (found.status, found.message) == (Status.KILLED, "it lacks some")
    assert not (tmp_path / "file" / image.id).exists()
    assert staged_files(tmp_path) == []


@pytest.mark.expect_log("killed: it lacks some")
def test_a_forfeited_image_that_comes_back_is_killed(vfs: Vfs) -> None:
    """Out of the trash, as soon as somebody looks after it."""
    image = put(vfs, "/file/a")
    remove(vfs, "/file/a")
    vfs.uploads.forfeit(image.number, "it lacks some")
    assert vfs.catalog.image(image.number).status is Status.PENDING_DELETE
    rename(vfs, "/file/.trash/a", "/file/a")
    vfs.uploads.settle()
    assert image_at(vfs, "/file/a").status is Status.KILLED


def test_a_cancel_is_recorded_once_the_catalog_is_back(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stays `saving` because the database was away at the wrong moment."""
    upload = begin(vfs, "/file/a", b"data")

    def away(*_arguments: Any) -> bool:
        raise CatalogUnavailable("catalog", "is away")

    with monkeypatch.context() as patch:
        patch.setattr("catalog.rules.uploads.fail_upload", away)
        with pytest.raises(CatalogUnavailable):
            upload.cancel("it was given up")
        vfs.uploads.settle()
        assert vfs.uploads.get(entry(vfs, "/file/a").image.number) is None
    assert image_at(vfs, "/file/a").status is Status.SAVING
    vfs.uploads.settle()
    found = image_at(vfs, "/file/a")
    assert (found.status, found.message) == (Status.KILLED, "it was given up")
