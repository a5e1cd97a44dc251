"""The status machine: the whole matrix, through the repository's compare-and-set."""

from __future__ import annotations

from itertools import product

import pytest

from catalog.catalog import Catalog
from catalog.errors import InvalidTransition
from catalog.model.access import ADMIN
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status, may_become, sources_of
from catalog.tree.vfs import Vfs
from tests.kit.catalog import image_at

# docs/semantics.md#statuses, written out a second time: the table under test must not test itself.
ALLOWED = {
    "queued": "saving uploading active pending_delete",
    "saving": "active killed queued",
    "uploading": "importing killed queued",
    "importing": "active killed queued",
    "active": "deactivated pending_delete saving",
    "deactivated": "active pending_delete",
    "killed": "pending_delete",
    "pending_delete": "active deactivated killed queued deleted",
    "deleted": "",
}
PAIRS = [(current, wanted) for current, wanted in product(Status, Status)]


def force(catalog: Catalog, number: int, status: Status) -> None:
    """Give an image a status without asking the table."""
    with catalog.write() as repository:
        repository.set_image(number, status=status)


@pytest.mark.parametrize(("current", "wanted"), PAIRS)
def test_each_pair_is_allowed_or_refused(vfs: Vfs, current: Status, wanted: Status) -> None:
    """Every pair of statuses changes, or raises InvalidTransition and changes nothing."""
    vfs.create(vfs.place("/file/a"), ADMIN)
    number = image_at(vfs, "/file/a").number
    force(vfs.catalog, number, current)
    if wanted in ALLOWED[current].split():
        with vfs.catalog.write() as repository:
            repository.change_status(number, wanted)
        assert vfs.catalog.image(number).status is wanted
        return
    with pytest.raises(InvalidTransition) as caught, vfs.catalog.write() as repository:
        repository.change_status(number, wanted)
    assert (caught.value.current, caught.value.wanted) == (current, wanted)
    assert vfs.catalog.image(number).status is current


def test_only_from_narrows_the_table(vfs: Vfs) -> None:
    """`only_from` refuses a source that the table itself allows."""
    vfs.create(vfs.place("/file/a"), ADMIN)
    number = image_at(vfs, "/file/a").number
    with pytest.raises(InvalidTransition), vfs.catalog.write() as repository:
        repository.change_status(number, Status.ACTIVE, only_from=(Status.SAVING,))
    assert vfs.catalog.image(number).status is Status.QUEUED


def test_sources_and_targets_are_the_same_table() -> None:
    """`sources_of` is the inverse of `may_become`."""
    for current, wanted in PAIRS:
        assert (current in sources_of(wanted)) == may_become(current, wanted)


def test_an_image_with_data_is_never_in_progress() -> None:
    """The two groups of statuses exclude each other."""
    assert HAS_DATA.isdisjoint(IN_PROGRESS)
