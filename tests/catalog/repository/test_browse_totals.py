"""Totals are counted in the transaction of each change, and are those of the rows."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from catalog.catalog import Catalog
from catalog.errors import Conflict
from catalog.model.access import ADMIN, Principal, Role
from catalog.model.listings import StoreTotals
from catalog.model.status import Status
from catalog.rules import members
from catalog.tree.vfs import Vfs
from catalog.upkeep.findings import FindingKind
from catalog.upkeep.fsck import fsck
from tests.kit.catalog import ALICE, BOB, begin, image_at, link, put, remove, rename, set_fields


def _totals(catalog: Catalog, who: Principal = ADMIN, store: str = "file") -> StoreTotals | None:
    with catalog.read() as repository:
        return repository.store_totals(who).get(store)


def test_each_change_is_counted(vfs: Vfs) -> None:
    """Entries, bytes, uploads in progress and the trash, one step after the other."""
    catalog = vfs.catalog
    upload = begin(vfs, "/file/a", b"1234")
    assert _totals(catalog) == StoreTotals(1, 0, 1, 0)
    upload.commit()
    assert _totals(catalog) == StoreTotals(1, 4, 0, 0)
    link(vfs, "/file/a", "/other/a")
    assert _totals(catalog, store="other") == StoreTotals(1, 4, 0, 0)
    remove(vfs, "/other/a")
    assert _totals(catalog, store="other") is None
    remove(vfs, "/file/a")
    assert _totals(catalog) == StoreTotals(0, 0, 0, 1)
    rename(vfs, "/file/.trash/a", "/file/back")
    assert _totals(catalog) == StoreTotals(1, 4, 0, 0)
    assert catalog.images_by_status() == {"active": 1}


def test_a_transaction_that_fails_counts_nothing(vfs: Vfs) -> None:
    """The totals are rolled back with the change."""
    put(vfs, "/file/a", b"1234")
    number = image_at(vfs, "/file/a").number

    def fail() -> None:
        with vfs.catalog.write() as repository:
            repository.change_status(number, Status.DEACTIVATED)
            repository.settle()
            raise Conflict("a")

    with pytest.raises(Conflict):
        fail()
    assert vfs.catalog.images_by_status() == {"active": 1}


def test_everybody_has_totals_of_what_is_listed(vfs: Vfs) -> None:
    """Own images with the trash, public ones, and those that are shared with somebody."""
    catalog = vfs.catalog
    for name, visibility in (("public", "public"), ("private", "private"), ("shared", "shared")):
        put(vfs, f"/file/{name}", b"1234")
        set_fields(vfs, f"/file/{name}", visibility=visibility)
    put(vfs, "/file/old", b"1")
    remove(vfs, "/file/old")
    assert _totals(catalog, ALICE) == StoreTotals(3, 12, 0, 1)
    assert _totals(catalog, Principal("alice", Role.READER)) == StoreTotals(3, 12, 0, 0)
    assert _totals(catalog, BOB) == StoreTotals(1, 4, 0, 0)
    members.add_member(catalog, image_at(vfs, "/file/shared").number, "bob", ALICE)
    assert _totals(catalog, BOB) == StoreTotals(2, 8, 0, 0)


def test_fsck_counts_anew(vfs: Vfs) -> None:
    """Totals that an older program has not kept are found, and put right."""
    put(vfs, "/file/a", b"1234")
    with vfs.catalog.write() as repository:
        repository.connection.execute(text("UPDATE totals SET images = 7"))
        repository.connection.execute(text("DELETE FROM image_counts"))
    (found,) = fsck(vfs.catalog, repair=True)
    assert (found.kind, found.repaired) == (FindingKind.MISCOUNTED, "counted anew")
    assert _totals(vfs.catalog) == StoreTotals(1, 4, 0, 0)
    assert list(fsck(vfs.catalog, repair=False)) == []
