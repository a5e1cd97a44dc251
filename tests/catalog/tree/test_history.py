"""What was done with an image, in the transaction of each change."""

from __future__ import annotations

from datetime import timedelta

import pytest

from catalog import cause
from catalog.errors import Forbidden, NotFound, QuotaExceeded
from catalog.model.access import ADMIN, Principal
from catalog.model.activity import EventKind
from catalog.model.clock import now
from catalog.model.fields import MAX_PROPERTIES
from catalog.rules import fields, presence
from catalog.tree.history import Happened, history_of, number_of_gone
from catalog.tree.vfs import Vfs
from tests.kit.catalog import put

ALICE = Principal("alice")


def _history(vfs: Vfs, number: int, principal: Principal = ADMIN) -> list[Happened]:
    return list(history_of(vfs.catalog, number, principal))


def test_a_life(vfs: Vfs) -> None:
    """From its creation to its deletion for good, with who did it by what."""
    cause.begin("dav", "r1", "alice")
    image = put(vfs, "file/a", b"data", ALICE)
    cause.begin("mount", 7, "bob")
    fields.set_attributes(vfs.catalog, image.number, {"property.os": "debian"}, ADMIN)
    vfs.rename(vfs.place("/file/a"), vfs.place("/file/b"), ADMIN)
    vfs.remove(vfs.place("/file/b"), ADMIN)
    vfs.rename(vfs.place("/file/.trash/b"), vfs.place("/file/c"), ADMIN)
    vfs.remove(vfs.place("/file/c"), ADMIN)
    cause.begin("")
    vfs.remove(vfs.place("/file/.trash/c"), ADMIN)
    found = [
        (it.event.frontend, it.event.principal, it.event.kind, it.event.detail.get("status"))
        for it in _history(vfs, image.number)
    ]
    assert found == [
        ("dav", "alice", EventKind.CREATED, None),
        ("dav", "alice", EventKind.STATUS, "saving"),
        ("dav", "alice", EventKind.STATUS, "active"),
        ("mount", "bob", EventKind.CHANGED, None),
        ("mount", "bob", EventKind.RENAMED, None),
        ("mount", "bob", EventKind.STATUS, "pending_delete"),
        ("mount", "bob", EventKind.RENAMED, None),
        ("mount", "bob", EventKind.STATUS, "active"),
        ("mount", "bob", EventKind.STATUS, "pending_delete"),
        ("", "", EventKind.STATUS, "deleted"),
        ("", "", EventKind.DROPPED, None),
    ]


def test_a_change_that_fails_leaves_nothing(vfs: Vfs) -> None:
    """The history is of what was done, not of what was tried."""
    image = put(vfs, "file/a", b"data")
    before = _history(vfs, image.number)
    fields.check_attributes(vfs.catalog, image.number, {"property.os": "debian"}, ADMIN)
    many = {f"property.p{number}": "x" for number in range(MAX_PROPERTIES + 1)}
    values = {"image.visibility": "private", **many}
    with pytest.raises(QuotaExceeded):
        fields.set_attributes(vfs.catalog, image.number, values, ADMIN)
    assert _history(vfs, image.number) == before


def test_what_changed(vfs: Vfs) -> None:
    """The fields with their new values; a rename has the paths."""
    image = put(vfs, "file/a", b"data")
    values = {"image.visibility": "private", "property.os": "debian", "image.tags": "x,y"}
    fields.set_attributes(vfs.catalog, image.number, values, ADMIN)
    fields.set_attributes(vfs.catalog, image.number, {"property.os": None}, ADMIN)
    vfs.rename(vfs.place("/file/a"), vfs.place("/file/b"), ADMIN)
    details = [dict(it.event.detail) for it in _history(vfs, image.number)]
    for expected in (
        {"visibility": "private"},
        {"property.os": "debian"},
        {"tags": ["x", "y"]},
        {"property.os": None},
        {"old": "/file/a", "new": "/file/b"},
    ):
        assert expected in details


def test_who_may_read_it(vfs: Vfs) -> None:
    """The owner and administrators: it names other people."""
    image = put(vfs, "file/a", b"data", ALICE)
    assert _history(vfs, image.number, ALICE) == _history(vfs, image.number)
    with pytest.raises(Forbidden):
        _history(vfs, image.number, Principal("bob"))


def test_after_the_image_is_gone(vfs: Vfs) -> None:
    """Its id finds it, for administrators, until it is too old as well."""
    image = put(vfs, "file/a", b"data", ALICE)
    vfs.remove(vfs.place("/file/a"), ADMIN)
    vfs.remove(vfs.place("/file/.trash/a"), ADMIN)
    presence.trim(vfs.catalog, now() + timedelta(days=1))
    with pytest.raises(NotFound):
        vfs.catalog.image(image.number)
    assert number_of_gone(vfs.catalog, image.id, ADMIN) == image.number
    assert _history(vfs, image.number)[-1].event.kind is EventKind.DROPPED
    for principal, number in ((ALICE, image.number), (ALICE, 4711)):
        with pytest.raises(NotFound):
            number_of_gone(vfs.catalog, image.id, principal)
        with pytest.raises(NotFound):
            _history(vfs, number, principal)


def test_it_is_kept_as_long_as_is_configured(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is older goes, page by page; what is newer stays."""
    monkeypatch.setattr("catalog.repository.journal._PAGE", 2)
    image = put(vfs, "file/a", b"data")
    presence.trim(vfs.catalog, now())
    assert len(_history(vfs, image.number)) == 3
    middle = _history(vfs, image.number)[-1].event.at
    with vfs.catalog.write() as repository:
        assert repository.trim_history(middle) == 2
    assert [it.event.at for it in _history(vfs, image.number)] == [middle]
