"""Who may do what: the matrix of principals, operations and images."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from catalog.errors import Deactivated, Forbidden
from catalog.model.access import ADMIN, Principal, Role
from catalog.rules import entries, fields
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    ALICE,
    BOB,
    READER,
    begin,
    image_at,
    link,
    make_folder,
    put,
    read,
    remove,
    rename,
    set_fields,
)

Operation = Callable[[Vfs, Principal], object]

# Each on the image /file/a of alice.
CHANGES: dict[str, Operation] = {
    "set": lambda vfs, who: set_fields(vfs, "/file/a", who, min_disk="1"),
    "rename": lambda vfs, who: rename(vfs, "/file/a", "/file/b", who),
    "move": lambda vfs, who: rename(vfs, "/file/a", "/other/a", who),
    "replace": lambda vfs, who: rename(vfs, "/file/everyone", "/file/a", who),
    "remove": lambda vfs, who: remove(vfs, "/file/a", who),
    "link": lambda vfs, who: link(vfs, "/file/a", "/other/a", who),
    "mtime": lambda vfs, who: fields.set_mtime(
        vfs.catalog, image_at(vfs, "/file/a").number, 1, who
    ),
}
CREATIONS: dict[str, Operation] = {
    "create": lambda vfs, who: vfs.create(vfs.place("/file/new"), who),
    "mkdir": lambda vfs, who: make_folder(vfs, "/file/new", who),
}


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize(
    ("who", "allowed"), [(ADMIN, True), (ALICE, True), (BOB, False), (READER, False)]
)
def test_changing_an_image(vfs: Vfs, operation: str, who: Principal, allowed: bool) -> None:
    """Its owner and an administrator may; another member and a reader may not."""
    before = put(vfs, "/file/a")
    put(vfs, "/file/everyone", who=who if who is BOB else ALICE)
    if allowed:
        CHANGES[operation](vfs, who)
        return
    with pytest.raises(Forbidden):
        CHANGES[operation](vfs, who)
    assert image_at(vfs, "/file/a") == before


@pytest.mark.parametrize("operation", CREATIONS)
@pytest.mark.parametrize(("who", "allowed"), [(ADMIN, True), (BOB, True), (READER, False)])
def test_creating(vfs: Vfs, operation: str, who: Principal, allowed: bool) -> None:
    """Every member may add images and folders; a reader may not."""
    if allowed:
        CREATIONS[operation](vfs, who)
        return
    with pytest.raises(Forbidden):
        CREATIONS[operation](vfs, who)


@pytest.mark.parametrize("visibility", ["public", "community", "shared", "private"])
@pytest.mark.parametrize("who", [ADMIN, ALICE, BOB, READER, Principal("bob", Role.READER)])
def test_reading(vfs: Vfs, visibility: str, who: Principal) -> None:
    """Everybody reads what is public; the rest is its owner's and an administrator's."""
    put(vfs, "/file/a", b"data")
    set_fields(vfs, "/file/a", visibility=visibility)
    if visibility in ("public", "community") or who in (ADMIN, ALICE, READER):
        assert read(vfs, "/file/a", who) == b"data"
    else:
        with pytest.raises(Forbidden):
            read(vfs, "/file/a", who)


def test_a_deactivated_image_is_read_by_an_administrator_only(vfs: Vfs) -> None:
    """Not even its owner opens it."""
    put(vfs, "/file/a", b"data")
    set_fields(vfs, "/file/a", status="deactivated")
    assert read(vfs, "/file/a", ADMIN) == b"data"
    with pytest.raises(Deactivated):
        read(vfs, "/file/a", ALICE)


def test_a_deleted_image_is_read_by_who_could_read_it_before(vfs: Vfs) -> None:
    """Public: everybody.  Private: its owner.  Deactivated: an administrator."""
    for visibility, status, error in (
        ("public", "active", None),
        ("private", "active", Forbidden),
        ("public", "deactivated", Deactivated),
    ):
        put(vfs, "/file/a", b"data", ALICE)
        set_fields(vfs, "/file/a", visibility=visibility, status=status)
        remove(vfs, "/file/a")
        assert read(vfs, "/file/.trash/a", ADMIN) == b"data"
        if error is None:
            assert read(vfs, "/file/.trash/a", BOB) == b"data"
        else:
            with pytest.raises(error):
                read(vfs, "/file/.trash/a", BOB)
        if status == "active":
            assert read(vfs, "/file/.trash/a", ALICE) == b"data"
        remove(vfs, "/file/.trash/a")


def test_only_the_owner_purges(vfs: Vfs) -> None:
    """`rm` in the trash obeys the same rule as everywhere."""
    put(vfs, "/file/a")
    remove(vfs, "/file/a")
    with pytest.raises(Forbidden):
        remove(vfs, "/file/.trash/a", BOB)
    remove(vfs, "/file/.trash/a", ALICE)


def test_only_the_owner_takes_the_name_of_a_killed_image(vfs: Vfs) -> None:
    """O_TRUNC on somebody else's killed image is Forbidden."""
    begin(vfs, "/file/a").cancel("failed")
    with pytest.raises(Forbidden):
        entries.renew(vfs.catalog, vfs.place("/file/a"), BOB)
    assert entries.renew(vfs.catalog, vfs.place("/file/a"), ALICE).image.status == "queued"


@pytest.mark.parametrize("refused", [read, remove])
def test_whose_a_hidden_image_is_is_not_told(
    vfs: Vfs, refused: Callable[[Vfs, str, Principal], object]
) -> None:
    """A refusal names the owner only to those who may see the image."""
    who = Principal("berta")
    put(vfs, "/file/a")
    with pytest.raises(Forbidden, match="belongs to alice"):
        remove(vfs, "/file/a", who)
    for visibility in ("shared", "private"):
        set_fields(vfs, "/file/a", visibility=visibility)
        with pytest.raises(Forbidden) as caught:
            refused(vfs, "/file/a", who)
        assert "alice" not in str(caught.value)


def test_folders_belong_to_who_made_them(vfs: Vfs) -> None:
    """Another member neither removes nor renames a folder."""
    make_folder(vfs, "/file/d")
    with pytest.raises(Forbidden):
        vfs.remove_folder(vfs.place("/file/d"), BOB)
    with pytest.raises(Forbidden):
        rename(vfs, "/file/d", "/file/e", BOB)
    vfs.remove_folder(vfs.place("/file/d"), ADMIN)
