"""Trash, restore, purge and scrub."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.errors import Conflict, Forbidden, InvalidName, NotFound, Protected, StoreUnavailable
from catalog.model.access import ADMIN
from catalog.model.clock import now
from catalog.process import Process, this_process
from catalog.rules import fields, presence
from catalog.tree.vfs import Vfs
from catalog.upkeep.scrub import scrub
from tests.kit.catalog import (
    ALICE,
    begin,
    image_at,
    keys_in,
    link,
    make_folder,
    names_in,
    new_catalog,
    put,
    read,
    remove,
    rename,
    set_fields,
    settings_at,
)

ANOTHER_HOST = Process("another-host", "boot/1", 1, 1)


@pytest.fixture
def eager(tmp_path: Path) -> Vfs:
    """A tree whose trash is emptied by every scrub."""
    return Vfs(new_catalog(settings_at(tmp_path, scrub_time=0)))


# Trash and restore


def test_rm_of_the_last_link_goes_to_the_trash(vfs: Vfs) -> None:
    """The data stays, the image is pending_delete, and its name is free."""
    image = put(vfs, "/file/a", b"data")
    remove(vfs, "/file/a")
    trashed = image_at(vfs, "/file/.trash/a")
    assert (trashed.id, trashed.status) == (image.id, "pending_delete")
    assert trashed.deleted_at is not None
    assert keys_in(vfs) == {image.id}
    put(vfs, "/file/a", b"another")
    assert read(vfs, "/file/.trash/a", ADMIN) == b"data"


def test_restore_brings_everything_back(vfs: Vfs) -> None:
    """Status, data, fields, properties and tags are as they were."""
    image = put(vfs, "/file/a", b"data")
    set_fields(vfs, "/file/a", tags="lts,x", min_disk="3", visibility="private", os_hidden="true")
    fields.set_attributes(vfs.catalog, image.number, {"property.os_distro": "debian"}, ALICE)
    before = vfs.catalog.details(image.number)
    with vfs.catalog.read() as repository:
        chunks = repository.chunk_digests(image.number)
    remove(vfs, "/file/a")
    rename(vfs, "/file/.trash/a", "/file/a")
    after = vfs.catalog.details(image.number)
    assert (after.properties, after.tags, after.stores) == (
        before.properties,
        before.tags,
        before.stores,
    )
    for field in ("id", "status", "size", "min_disk", "visibility", "mtime", "os_hash_value"):
        assert getattr(after.image, field) == getattr(before.image, field)
    assert (after.image.deleted_at, after.image.status_before_delete) == (None, None)
    assert read(vfs, "/file/a", ALICE) == b"data"
    with vfs.catalog.read() as repository:
        assert repository.chunk_digests(image.number) == chunks


@pytest.mark.parametrize("status", ["queued", "active", "deactivated", "killed"])
def test_restore_leads_to_what_it_was(vfs: Vfs, status: str) -> None:
    """Each status an image may be deleted in is the one it comes back to."""
    if status == "queued":
        vfs.create(vfs.place("/file/a"), ALICE)
    elif status == "killed":
        begin(vfs, "/file/a").cancel("its reason")
    else:
        put(vfs, "/file/a")
        set_fields(vfs, "/file/a", status=status)
    rename(vfs, "/file/a", "/file/.trash/a")
    assert image_at(vfs, "/file/.trash/a").status == "pending_delete"
    make_folder(vfs, "/file/d")
    rename(vfs, "/file/.trash/a", "/file/d/b")
    assert image_at(vfs, "/file/d/b").status == status
    assert names_in(vfs, "/file/.trash") == set()


def test_a_restore_replaces_what_took_the_name(vfs: Vfs) -> None:
    """The two change places; without `replace` it is refused."""
    old = put(vfs, "/file/a", b"old")
    remove(vfs, "/file/a")
    put(vfs, "/file/a", b"new")
    rename(vfs, "/file/.trash/a", "/file/a")
    assert read(vfs, "/file/a") == b"old"
    (name,) = names_in(vfs, "/file/.trash")
    assert image_at(vfs, f"/file/.trash/{name}").id != old.id


def test_several_of_one_name_in_the_trash(vfs: Vfs) -> None:
    """Each keeps its own entry: the later ones with their id."""
    ids = set()
    for turn in range(3):
        ids.add(put(vfs, "/file/a", b"%d" % turn).id)
        remove(vfs, "/file/a")
    found = {image_at(vfs, f"/file/.trash/{name}").id for name in names_in(vfs, "/file/.trash")}
    assert found == ids
    assert "a" in names_in(vfs, "/file/.trash")


def test_the_newest_has_the_name_in_the_trash(vfs: Vfs) -> None:
    """`mv .trash/NAME` brings back what was deleted last, then what was before that."""
    ids = []
    for number in range(3):
        ids.append(put(vfs, "/file/a", str(number).encode()).id)
        remove(vfs, "/file/a")
    assert names_in(vfs, "/file/.trash") == {"a", f"a.{ids[0]}", f"a.{ids[1]}"}
    assert image_at(vfs, f"/file/.trash/a.{ids[0]}").deleted_by == "alice"
    rename(vfs, "/file/.trash/a", "/file/a")
    assert read(vfs, "/file/a") == b"2"
    assert image_at(vfs, "/file/a").deleted_by is None
    # Back again over what has the name now: that is the newest then.
    rename(vfs, f"/file/.trash/a.{ids[0]}", "/file/a")
    assert read(vfs, "/file/a") == b"0"
    assert image_at(vfs, "/file/.trash/a").id == ids[2]
    assert image_at(vfs, f"/file/.trash/a.{ids[1]}").id == ids[1]


def test_restoring_over_what_has_the_name(vfs: Vfs) -> None:
    """The two change places."""
    old = put(vfs, "/file/a", b"old")
    remove(vfs, "/file/a")
    new = put(vfs, "/file/a", b"new")
    rename(vfs, "/file/.trash/a", "/file/a")
    assert image_at(vfs, "/file/a").id == old.id
    assert image_at(vfs, "/file/.trash/a").id == new.id


def test_a_name_of_255_bytes_is_trashed_twice(vfs: Vfs) -> None:
    """The id finds room, and no character is cut in two."""
    name = "ü" * 127
    for _ in range(2):
        put(vfs, f"/file/{name}")
        remove(vfs, f"/file/{name}")
    assert len(names_in(vfs, "/file/.trash")) == 2


def test_a_protected_image_is_not_deleted(vfs: Vfs) -> None:
    """Neither by rm nor by mv into the trash nor by another that takes its name."""
    put(vfs, "/file/a")
    put(vfs, "/file/b")
    set_fields(vfs, "/file/a", protected="true")
    for attempt in (
        lambda: remove(vfs, "/file/a"),
        lambda: rename(vfs, "/file/a", "/file/.trash/a"),
        lambda: rename(vfs, "/file/b", "/file/a"),
        lambda: remove(vfs, "/file/a", ADMIN),
    ):
        with pytest.raises(Protected):
            attempt()
    set_fields(vfs, "/file/a", protected="false")
    remove(vfs, "/file/a")


def test_nothing_but_deleted_images_is_in_the_trash(vfs: Vfs) -> None:
    """No file is made there, no folder, and nothing is renamed within it."""
    put(vfs, "/file/a")
    remove(vfs, "/file/a")
    for attempt in (
        lambda: vfs.create(vfs.place("/file/.trash/b"), ALICE),
        lambda: make_folder(vfs, "/file/.trash/d"),
        lambda: rename(vfs, "/file/.trash/a", "/file/.trash/b"),
    ):
        with pytest.raises(Forbidden):
            attempt()
    with pytest.raises((Forbidden, InvalidName)):
        rename(vfs, "/file/.trash", "/file/rubbish")
    with pytest.raises(Conflict):
        rename(vfs, "/file/.trash/a", "/other/a")


def test_a_temporary_file_is_deleted_at_once(vfs: Vfs) -> None:
    """What rsync or a browser gives up is nothing anybody would restore."""
    begin(vfs, "/file/.a.Xy12", b"half")
    remove(vfs, "/file/.a.Xy12")
    assert names_in(vfs, "/file/.trash") == set()
    assert keys_in(vfs) == set()


# Purge


def test_rm_in_the_trash_is_now(vfs: Vfs) -> None:
    """Data and entry are gone, and the id is never found again."""
    image = put(vfs, "/file/a")
    remove(vfs, "/file/a")
    remove(vfs, "/file/.trash/a")
    assert keys_in(vfs) == set()
    assert names_in(vfs, "/file/.trash") == set()
    assert vfs.catalog.image(image.number).status == "deleted"
    with pytest.raises(NotFound):
        vfs.resolve(f"/.by-id/{image.id}")


def test_a_purge_in_a_store_that_is_away_changes_nothing(vfs: Vfs, tmp_path: Path) -> None:
    """The image stays in the trash, its message tells, and it can be restored meanwhile."""
    image = put(vfs, "/file/a", b"data")
    remove(vfs, "/file/a")
    (tmp_path / "file").rename(tmp_path / "unmounted")
    with pytest.raises(StoreUnavailable):
        remove(vfs, "/file/.trash/a")
    assert "deleting it for good failed" in image_at(vfs, "/file/.trash/a").message
    rename(vfs, "/file/.trash/a", "/file/a")
    assert image_at(vfs, "/file/a").message == ""
    (tmp_path / "unmounted").rename(tmp_path / "file")
    assert keys_in(vfs) == {image.id}
    assert read(vfs, "/file/a") == b"data"


def test_a_copy_that_cannot_be_removed_stays_a_copy(vfs: Vfs, tmp_path: Path) -> None:
    """While a store is away neither its copy goes nor the one that can still be read."""
    put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/a")
    (tmp_path / "other").rename(tmp_path / "unmounted")
    with pytest.raises(StoreUnavailable):
        remove(vfs, "/other/a")
    with pytest.raises(Conflict, match="store other"):
        remove(vfs, "/file/a")
    assert read(vfs, "/file/a") == b"data"
    (tmp_path / "unmounted").rename(tmp_path / "other")
    remove(vfs, "/other/a")
    remove(vfs, "/file/a")
    remove(vfs, "/file/.trash/a")
    assert (keys_in(vfs), keys_in(vfs, "other")) == (set(), set())


# Scrub


def test_scrub_takes_what_is_old_enough(vfs: Vfs) -> None:
    """Before `scrub_time` (a week) nothing happens."""
    image = put(vfs, "/file/a")
    remove(vfs, "/file/a")
    assert list(scrub(vfs.catalog)) == []
    with vfs.catalog.write() as repository:
        repository.set_image(image.number, deleted_at=now() - timedelta(days=8))
    assert [each.image.id for each in scrub(vfs.catalog)] == [image.id]
    assert keys_in(vfs) == set()


def test_scrub_leaves_what_is_not_deleted(eager: Vfs) -> None:
    """Only images in the trash are ever touched."""
    put(eager, "/file/a", b"data")
    begin(eager, "/file/b", b"x")
    removed = put(eager, "/file/c")
    remove(eager, "/file/c")
    assert [each.image.id for each in scrub(eager.catalog)] == [removed.id]
    assert read(eager, "/file/a") == b"data"
    assert image_at(eager, "/file/b").status == "saving"


def test_a_dry_run_tells_and_changes_nothing(eager: Vfs) -> None:
    """The same images, still there afterwards."""
    image = put(eager, "/file/a")
    remove(eager, "/file/a")
    assert [each.image.id for each in scrub(eager.catalog, dry_run=True)] == [image.id]
    assert keys_in(eager) == {image.id}
    assert image_at(eager, "/file/.trash/a").status == "pending_delete"


def test_a_lease_spares_an_image(eager: Vfs) -> None:
    """What a mount elsewhere holds open stays, with the reason, until it lets go."""
    image = put(eager, "/file/a")
    remove(eager, "/file/a")
    presence.beat(eager.catalog, ANOTHER_HOST, [image.number])
    (spared,) = scrub(eager.catalog)
    assert "another-host" in str(spared.problem)
    assert keys_in(eager) == {image.id}
    with pytest.raises(Conflict):
        remove(eager, "/file/.trash/a")
    presence.beat(eager.catalog, ANOTHER_HOST, [])
    (done,) = scrub(eager.catalog)
    assert done.problem is None
    assert keys_in(eager) == set()


def test_a_lease_without_a_heartbeat_ends(eager: Vfs) -> None:
    """A host that died keeps no image for ever."""
    image = put(eager, "/file/a")
    remove(eager, "/file/a")
    with eager.catalog.write() as repository:
        repository.set_leases(ANOTHER_HOST, [image.number], now() - timedelta(minutes=11))
    (done,) = scrub(eager.catalog)
    assert done.problem is None


def test_a_lease_of_a_process_that_is_gone_ends_at_once(eager: Vfs) -> None:
    """This host knows which of its processes live."""
    image = put(eager, "/file/a")
    remove(eager, "/file/a")
    here = this_process()
    presence.beat(
        eager.catalog, Process(here.host, here.boot, here.pid, here.started + 1), [image.number]
    )
    (done,) = scrub(eager.catalog)
    assert done.problem is None


def test_one_problem_does_not_stop_the_others(eager: Vfs, tmp_path: Path) -> None:
    """An image whose store is away is told; the rest is scrubbed."""
    put(eager, "/other/a")
    remove(eager, "/other/a")
    put(eager, "/file/b")
    remove(eager, "/file/b")
    (tmp_path / "other").rename(tmp_path / "unmounted")
    done = {each.image.name: each.problem for each in scrub(eager.catalog)}
    assert isinstance(done["a"], StoreUnavailable)
    assert done["b"] is None


@pytest.mark.parametrize("store_is_there", [True, False])
def test_an_abandoned_upload_is_given_up(vfs: Vfs, tmp_path: Path, store_is_there: bool) -> None:
    """After a day without a heartbeat, even of another host; a store that is away waits."""
    upload = begin(vfs, "/file/a", b"half")
    number = upload.image.number
    with vfs.catalog.write() as repository:
        repository.connection.execute(
            text("UPDATE uploads SET host = 'another-host', heartbeat_at = '2020-01-01 00:00:00'")
        )
    if not store_is_there:
        (tmp_path / "file").rename(tmp_path / "unmounted")
    assert list(scrub(vfs.catalog)) == []
    if not store_is_there:
        (tmp_path / "unmounted").rename(tmp_path / "file")
        assert vfs.catalog.image(number).status == "saving"
        assert list(scrub(vfs.catalog)) == []
    assert vfs.catalog.image(number).status == "killed"
    assert "abandoned" in vfs.catalog.image(number).message


def test_rows_of_deleted_images_go_a_day_later(eager: Vfs) -> None:
    """With all that hangs on them; and their number is never used again."""
    image = put(eager, "/file/a")
    fields.set_attributes(
        eager.catalog, image.number, {"property.p": "v", "image.tags": "t"}, ALICE
    )
    remove(eager, "/file/a")
    list(scrub(eager.catalog))
    assert eager.catalog.image(image.number).status == "deleted"
    with eager.catalog.write() as repository:
        repository.set_image(image.number, updated_at=now() - timedelta(days=2))
    list(scrub(eager.catalog))
    with pytest.raises(NotFound):
        eager.catalog.image(image.number)
    with eager.catalog.read() as repository:
        for table in ("properties", "tags", "chunk_digests", "locations"):
            count = text(f"SELECT count(*) FROM {table}")
            assert repository.connection.execute(count).scalar_one() == 0
    assert put(eager, "/file/b").number > image.number


def test_old_changes_are_trimmed(eager: Vfs) -> None:
    """The change feed does not grow for ever; the newest stays, which tells the version."""
    put(eager, "/file/a")
    with eager.catalog.write() as repository:
        last = repository.last_change()
        repository.connection.execute(text("UPDATE changes SET at = '2020-01-01 00:00:00'"))
    list(scrub(eager.catalog))
    with eager.catalog.read() as repository:
        assert [change.number for change in repository.changes(0, 10)] == [last]
    put(eager, "/file/b")
    with eager.catalog.read() as repository:
        assert repository.changes(0, 100)[1].number == last + 1
