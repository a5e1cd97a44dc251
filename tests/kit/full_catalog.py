"""A catalog with something in every table, for what has to keep all of it."""

from __future__ import annotations

from datetime import timedelta

from catalog.copies.purge import purge
from catalog.model.clock import now
from catalog.rules import fields, locks, users
from catalog.rules.locks import LockRequest
from catalog.rules.members import add_member
from catalog.stores.base import Marked
from catalog.tree.vfs import Vfs
from tests.kit.catalog import ALICE, make_folder, put, remove, rename

LAST = "/file/last"
"""The image with the greatest number, which is gone for good."""


def fill(vfs: Vfs) -> None:
    """Make images in all states, odd names, and a folder inside a younger one."""
    catalog = vfs.catalog
    for name in ("old", "young"):
        make_folder(vfs, f"/file/{name}")
    make_folder(vfs, "/file/old/old")
    rename(vfs, "/file/old", "/file/young/old")
    full = put(vfs, "/file/young/old/Ångström 😀", b"data")
    values = {
        "property.os": "Debian\n\t\"12\" \\ 'x'",
        "property.number": "9" * 40,
        "property.empty": "",
    }
    fields.set_attributes(catalog, full.number, {**values, "image.visibility": "shared"}, ALICE)
    fields.change_tags(catalog, full.number, ALICE, add=("a", "A", "ä"), remove=())
    add_member(catalog, full.number, "project", ALICE)
    put(vfs, "/other/Cafe\u0301")
    put(vfs, "/file/trashed")
    remove(vfs, "/file/trashed")
    users.add_user(catalog, "alice", "password")
    locks.create(catalog, LockRequest("/file/young", "alice", deep=True, owner_xml="<x/>"))
    store = catalog.store("file")
    assert isinstance(store, Marked)
    mark = store.mark()
    with catalog.write() as repository:
        repository.set_image(full.number, expected_size=2**53 + 1, mtime=2**63 - 1)
        repository.want_copies(full.number, ["other"], now())
        repository.set_used([full.number], now())
        repository.set_replaced(full.number, 1)
        (location,) = repository.locations_of(full.number)
        repository.mark_damaged(location.number)
        repository.spare(full.number, now(), "x")
        repository.set_store_mark("file", mark)
    last = put(vfs, LAST)
    remove(vfs, LAST)
    purge(catalog, catalog.image(last.number))
    with catalog.write() as repository:
        repository.forget_deleted(now() + timedelta(days=1))
