"""What comes between the end of an upload and the step that publishes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from catalog.errors import Conflict, DigestMismatch, Locked, Protected
from catalog.model.access import ADMIN
from catalog.process import this_process
from catalog.rules import locks, uploads
from catalog.rules.entries import Rename
from catalog.rules.locks import LockRequest, Writing
from catalog.tree.vfs import Vfs
from catalog.uploads.upload import UploadState
from tests.kit.catalog import (
    ALICE,
    begin,
    image_at,
    keys_in,
    names_in,
    put,
    read,
    rename,
    set_fields,
)

STORES = ["file", "other", "memory"]
DATA = b"all of the data"
NOBODY = Writing("/nowhere", "nobody", ())


@pytest.fixture
def just_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something happen once, when the store has an upload's data and the catalog not yet."""

    def arrange(happens: Callable[[], object]) -> None:
        finish = uploads.finish_upload
        left = [happens]

        def delayed(*arguments: object) -> object:
            while left:
                left.pop()()
            return finish(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(uploads, "finish_upload", delayed)

    return arrange


@pytest.mark.parametrize("store", STORES)
def test_a_digest_that_is_announced_last(
    vfs: Vfs, just_before: Callable[[Callable[[], object]], None], store: str
) -> None:
    """It is compared all the same: with the right one the image is active, else killed."""
    path = f"/{store}/a"
    right = hashlib.sha256(DATA).hexdigest()
    upload = begin(vfs, path, DATA)
    just_before(lambda: set_fields(vfs, path, ALICE, os_hash_value=right))
    assert upload.commit()
    assert read(vfs, path) == DATA
    other = begin(vfs, f"{path}2", DATA)
    wrong = hashlib.sha512(b"other").hexdigest()
    just_before(lambda: set_fields(vfs, f"{path}2", ALICE, os_hash_value=wrong))
    with pytest.raises(DigestMismatch):
        other.commit()
    assert image_at(vfs, f"{path}2").status == "killed"
    assert keys_in(vfs, store) == {image_at(vfs, path).id}


@pytest.mark.parametrize("store", STORES)
def test_a_name_that_becomes_temporary(
    vfs: Vfs, just_before: Callable[[Callable[[], object]], None], store: str
) -> None:
    """No image has it: the upload waits for another name, and is not written any more."""
    path = f"/{store}/a"
    upload = begin(vfs, path, DATA)
    just_before(lambda: rename(vfs, path, f"{path}.part"))
    assert not vfs.publish(upload, NOBODY)
    assert (image_at(vfs, f"{path}.part").status, upload.state) == ("saving", UploadState.FINISHED)
    with pytest.raises(Conflict, match="lacks only a name"):
        upload.write(0, b"x")
    assert upload.read_at(0, 100) == DATA
    rename(vfs, f"{path}.part", path)
    assert (read(vfs, path), image_at(vfs, path).status) == (DATA, "active")


def test_a_lock_that_is_taken_last(
    vfs: Vfs, just_before: Callable[[Callable[[], object]], None]
) -> None:
    """Whoever holds it trusts that the name stays as it was."""
    old = put(vfs, "/file/a")
    upload = begin(vfs, "/file/.new", DATA)
    move = Rename(vfs.place("/file/.new"), vfs.place("/file/a"), ALICE, replace=True)
    just_before(lambda: locks.create(vfs.catalog, LockRequest("/file/a", "bob")))
    with pytest.raises(Locked):
        vfs.publish(upload, Writing("/file/a", "alice", ()), move)
    assert (upload.state, image_at(vfs, "/file/a").id) == (UploadState.CANCELLED, old.id)


def test_a_replacement_that_is_refused_is_not_made(vfs: Vfs) -> None:
    """Whether it may have the name is asked in the step that would make it."""
    put(vfs, "/file/a")
    set_fields(vfs, "/file/a", ADMIN, protected="true")
    with pytest.raises(Protected):
        vfs.create(vfs.place("/file/.new"), ALICE, target=vfs.place("/file/a"))
    assert names_in(vfs, "/file") == {"a"}


def test_an_upload_into_a_store_that_is_not_its_own(vfs: Vfs) -> None:
    """What was seen of the image is asked again where the upload begins."""
    entry = vfs.create(vfs.place("/file/a"), ALICE)
    with pytest.raises(Conflict, match="elsewhere"):
        uploads.start_upload(vfs.catalog, entry.image.number, this_process(), "", "other")
    assert image_at(vfs, "/file/a").status == "queued"
