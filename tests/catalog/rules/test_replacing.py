"""An image that was good before a replacement is good after it, if that fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from catalog.copies import recovery
from catalog.errors import Conflict, Spared
from catalog.model.access import ADMIN
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.process import this_process
from catalog.rules import presence, replacing, sparing
from catalog.rules.sparing import Meant
from catalog.tree.vfs import Vfs
from catalog.upkeep import scrub
from tests.kit.catalog import (
    ALICE,
    BOB,
    begin,
    image_at,
    link,
    names_in,
    put,
    read,
    remove,
    rename,
    set_fields,
)

PATH = "/file/a.img"
TRASHED = "/file/.trash/a.img"


def delete(vfs: Vfs, path: str, meant: Meant) -> None:
    """Remove a name as a frontend does."""
    vfs.remove(vfs.place(path), ALICE, meant)


def fail(vfs: Vfs, path: str = PATH) -> Image:
    """Begin to write an image and give it up; return what it was."""
    upload = begin(vfs, path, b"half")
    upload.cancel("writer cp (pid 1) was killed by signal 9")
    return upload.image


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the time be that much later, for the rules of this module."""
    for module in (replacing, sparing):
        monkeypatch.setattr(module, "now", lambda: now() + timedelta(seconds=seconds))


# -- deleted, then written anew ----------------------------------------------------------


@pytest.mark.parametrize("status", ["active", "deactivated"])
def test_what_was_deleted_for_a_failed_image_is_back(vfs: Vfs, status: str) -> None:
    """As it was: its id, status, properties and data; what failed is in the trash, with why."""
    old = put(vfs, PATH, b"good")
    set_fields(vfs, PATH, ADMIN, status=status, tags="a,b")
    remove(vfs, PATH)
    failed = fail(vfs)
    back = image_at(vfs, PATH)
    assert (back.id, back.status, back.deleted_at) == (old.id, status, None)
    assert vfs.catalog.details(old.number).tags == ("a", "b")
    assert read(vfs, PATH) == b"good"
    trashed = vfs.catalog.image(failed.number)
    assert trashed.status is Status.PENDING_DELETE
    assert trashed.message == "writer cp (pid 1) was killed by signal 9"


def test_after_a_crash_it_is_back_too(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host died while the new one was written: the next start finds both."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    begin(vfs, PATH, b"half")
    monkeypatch.setattr(presence, "is_gone", lambda process: process == this_process())
    (killed,) = recovery.recover(vfs.catalog)
    assert killed.name == "a.img"
    assert image_at(vfs, PATH).id == old.id


def test_a_chain_of_failures(vfs: Vfs) -> None:
    """Each attempt deletes what the one before has given back."""
    old = put(vfs, PATH)
    for _ in range(3):
        remove(vfs, PATH)
        fail(vfs)
        assert image_at(vfs, PATH).id == old.id
    remove(vfs, PATH)
    new = put(vfs, PATH, b"new")
    assert image_at(vfs, PATH).id == new.id
    assert read(vfs, PATH) == b"new"


def test_what_has_succeeded_stays(vfs: Vfs) -> None:
    """The old image stays in the trash, also when a later image of that name fails."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    new = put(vfs, PATH)
    rename(vfs, PATH, "/file/b.img")
    fail(vfs)
    assert image_at(vfs, PATH).status is Status.KILLED
    assert vfs.catalog.image(old.number).status is Status.PENDING_DELETE
    assert image_at(vfs, "/file/b.img").id == new.id


def test_a_header_that_was_committed_first(vfs: Vfs) -> None:
    """`qemu-img convert` publishes a header, comes back for the data, and is killed then."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    new = put(vfs, PATH, b"header")
    vfs.uploads.reopen(new.number).cancel("killed")
    assert image_at(vfs, PATH).id == old.id


def test_long_after_its_deletion_it_stays_deleted(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted for its own sake is not what a new image replaces."""
    put(vfs, PATH)
    remove(vfs, PATH)
    later(monkeypatch, 61)
    failed = fail(vfs)
    assert image_at(vfs, PATH).id == failed.id


def test_of_somebody_elses_nothing_comes_back(vfs: Vfs) -> None:
    """Who could not have deleted it does not replace it."""
    put(vfs, PATH)
    remove(vfs, PATH)
    begin(vfs, PATH, b"half", BOB).cancel("killed")
    assert image_at(vfs, PATH).status is Status.KILLED


def test_an_upload_that_is_elsewhere_by_now(vfs: Vfs) -> None:
    """Renamed while it was written, it gives nothing back: its old name may be wanted."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    upload = begin(vfs, PATH, b"half")
    rename(vfs, PATH, "/file/b.img")
    upload.cancel("killed")
    assert image_at(vfs, "/file/b.img").status is Status.KILLED
    assert image_at(vfs, TRASHED).id == old.id


def test_one_that_was_restored_elsewhere_stays_there(vfs: Vfs) -> None:
    """Somebody has taken it out of the trash meanwhile."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    upload = begin(vfs, PATH, b"half")
    rename(vfs, TRASHED, "/file/b.img")
    upload.cancel("killed")
    assert image_at(vfs, PATH).status is Status.KILLED
    assert image_at(vfs, "/file/b.img").id == old.id


def test_a_protected_upload_makes_way(vfs: Vfs) -> None:
    """`protected` was set before it had data: there is nothing to protect."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    upload = begin(vfs, PATH, b"half")
    set_fields(vfs, PATH, protected="true")
    upload.cancel("killed")
    assert image_at(vfs, PATH).id == old.id


def test_an_upload_that_is_deleted_by_whom_means_it(vfs: Vfs) -> None:
    """`imagefs delete` and a second `cp -f` free the name; that one's failure restores."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    begin(vfs, PATH, b"half")
    delete(vfs, PATH, Meant.SURELY)
    assert "a.img" not in names_in(vfs, "/file")
    fail(vfs)
    assert image_at(vfs, PATH).id == old.id


def test_a_rename_of_what_is_not_whole(vfs: Vfs) -> None:
    """`mv new a.img` while it is still being written: the old one is back when it fails."""
    old = put(vfs, PATH)
    upload = begin(vfs, "/file/new.img", b"half")
    rename(vfs, "/file/new.img", PATH)
    assert image_at(vfs, PATH).id == upload.image.id
    upload.cancel("killed")
    assert image_at(vfs, PATH).id == old.id


def test_the_scrub_spares_what_may_come_back(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the upload in its place takes."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    upload = begin(vfs, PATH, b"half")
    scrub_later(vfs, monkeypatch)
    upload.cancel("killed")
    assert image_at(vfs, PATH).id == old.id


def test_one_that_is_never_written(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day after its writer vanished before the first byte, the old one is back."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    empty = vfs.create(vfs.place(PATH), ALICE).image
    scrub_later(vfs, monkeypatch)
    assert image_at(vfs, PATH).id == old.id
    assert vfs.catalog.image(empty.number).status is Status.PENDING_DELETE


def scrub_later(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrub as if it were a month later; what was begun meanwhile has shown life."""
    monkeypatch.setattr(scrub, "now", lambda: now() + timedelta(days=30))
    monkeypatch.setattr(scrub, "ABANDONED_AFTER", timedelta(days=29))
    with vfs.catalog.write() as repository:
        repository.beat_uploads(this_process(), now() + timedelta(days=30))
    list(scrub.scrub(vfs.catalog))


# -- who deletes a name after that -------------------------------------------------------


def replace_from_beside(vfs: Vfs) -> Callable[[], None]:
    """Begin a replacement that grows beside the old image, as PUT does; returns its failure."""
    place = vfs.place(f"/file/.{len(names_in(vfs, '/file'))}.put")
    entry = vfs.create(place, ALICE, target=vfs.place(PATH))
    upload = vfs.uploads.start(entry.image.number)
    upload.write(0, b"half")
    return lambda: upload.cancel("no space left")


def test_while_a_replacement_goes_on(vfs: Vfs) -> None:
    """DELETE may come before the answer to the PUT that it follows."""
    old = put(vfs, PATH)
    failure = replace_from_beside(vfs)
    with pytest.raises(Spared, match="is being replaced"):
        delete(vfs, PATH, Meant.PERHAPS)
    failure()
    assert image_at(vfs, PATH) == old


@pytest.mark.parametrize(
    ("meant", "seconds", "spared"),
    [
        (Meant.PERHAPS, 0, True),
        (Meant.PERHAPS, 3590, True),
        (Meant.PERHAPS, 3610, False),
        (Meant.LIKELY, 0, True),
        (Meant.LIKELY, 4, True),
        (Meant.LIKELY, 6, False),
        (Meant.SURELY, 0, False),
    ],
)
def test_after_a_failed_replacement(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch, meant: Meant, seconds: float, spared: bool
) -> None:
    """For a stated time, and never from who says what it means."""
    old = put(vfs, PATH)
    replace_from_beside(vfs)()
    later(monkeypatch, seconds)
    for _ in range(2 if spared else 1):
        if spared:
            with pytest.raises(Spared, match=r"failed \(no space left\): it is kept until"):
                delete(vfs, PATH, meant)
            assert image_at(vfs, PATH) == old
        else:
            delete(vfs, PATH, meant)
            assert "a.img" not in names_in(vfs, "/file")


def test_what_is_told(vfs: Vfs) -> None:
    """When it is no longer spared, and what to do before."""
    put(vfs, PATH)
    replace_from_beside(vfs)()
    with pytest.raises(Spared) as caught:
        delete(vfs, PATH, Meant.PERHAPS)
    assert re.fullmatch(
        r"a\.img: a replacement failed \(no space left\): it is kept until \d\d:\d\d:\d\d UTC;"
        r" 'imagefs delete' deletes it now",
        str(caught.value),
    )


def test_every_failure_counts_anew(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hour is that of the last one."""
    put(vfs, PATH)
    replace_from_beside(vfs)()
    later(monkeypatch, 3000)
    replace_from_beside(vfs)()
    later(monkeypatch, 6000)
    with pytest.raises(Spared):
        delete(vfs, PATH, Meant.PERHAPS)


def test_success_ends_it(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a minute of the failure: another client's DELETE may still be on its way."""
    put(vfs, PATH)
    replace_from_beside(vfs)()
    put(vfs, "/file/new.img", b"new")
    rename(vfs, "/file/new.img", PATH)
    with pytest.raises(Spared):
        delete(vfs, PATH, Meant.PERHAPS)
    later(monkeypatch, 61)
    delete(vfs, PATH, Meant.PERHAPS)
    assert "a.img" not in names_in(vfs, "/file")


def test_anothers_success_while_one_goes_on(vfs: Vfs) -> None:
    """Who fails later, and cleans up, does not take what has succeeded meanwhile."""
    put(vfs, PATH)
    failure = replace_from_beside(vfs)
    put(vfs, "/file/new.img", b"new")
    rename(vfs, "/file/new.img", PATH)
    for _ in range(2):
        with pytest.raises(Spared):
            delete(vfs, PATH, Meant.PERHAPS)
        failure()
    assert read(vfs, PATH) == b"new"


def test_who_was_refused_beside_an_upload(vfs: Vfs) -> None:
    """Its DELETE comes when the other's upload is complete."""
    upload = begin(vfs, PATH, b"whole")
    vfs.note_failed_replacement(vfs.place(PATH), ALICE, "is being uploaded")
    upload.commit()
    with pytest.raises(Spared):
        delete(vfs, PATH, Meant.PERHAPS)


def test_a_killed_server_spares_it(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody has cleaned up after it, and for an hour from then on."""
    old = put(vfs, PATH)
    replace_from_beside(vfs)
    monkeypatch.setattr(presence, "is_gone", lambda process: process == this_process())
    with pytest.raises(Spared):
        delete(vfs, PATH, Meant.PERHAPS)
    recovery.recover(vfs.catalog)
    with pytest.raises(Spared):
        delete(vfs, PATH, Meant.PERHAPS)
    assert image_at(vfs, PATH) == old


def test_a_killed_server_that_nobody_cleans_up_after(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a sign of life for an hour the replacement keeps nobody from deleting."""
    put(vfs, PATH)
    replace_from_beside(vfs)
    later(monkeypatch, 3700)
    delete(vfs, PATH, Meant.PERHAPS)
    assert "a.img" not in names_in(vfs, "/file")


def test_an_upload_in_its_place_is_all_that_is_deleted(vfs: Vfs) -> None:
    """DELETE of what replaces it, by who may mean only that: the old one is back."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    begin(vfs, PATH, b"half")
    delete(vfs, PATH, Meant.PERHAPS)
    assert image_at(vfs, PATH).id == old.id


def test_one_that_is_about_to_be_written(vfs: Vfs) -> None:
    """The DELETE of who gives up comes before the first byte of its PUT was taken."""
    old = put(vfs, PATH)
    remove(vfs, PATH)
    vfs.create(vfs.place(PATH), ALICE)
    delete(vfs, PATH, Meant.PERHAPS)
    assert image_at(vfs, PATH).id == old.id
    with pytest.raises(Spared):
        delete(vfs, PATH, Meant.PERHAPS)


def test_a_queued_image_is_not_spared(vfs: Vfs) -> None:
    """There is nothing good in it."""
    vfs.create(vfs.place(PATH), ALICE)
    vfs.note_failed_replacement(vfs.place(PATH), ALICE, "too large")
    delete(vfs, PATH, Meant.PERHAPS)
    assert "a.img" not in names_in(vfs, "/file")


def test_a_link_elsewhere_is_kept_as_well(vfs: Vfs) -> None:
    """One of two names of an image: its copy here is as good as an image of its own."""
    old = put(vfs, PATH)
    link(vfs, PATH, "/other/a.img")
    replace_from_beside(vfs)()
    with pytest.raises(Conflict):
        delete(vfs, PATH, Meant.PERHAPS)
    assert image_at(vfs, PATH).id == old.id
