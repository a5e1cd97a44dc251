"""Brings an image back when its replacement fails.

An image that was good before a replacement is good after it, even if the replacement fails or its
process crashes: the failed image gives the name back to the image that was deleted for it.  The
catalog records which image replaces which, so that any process can do this.  Threading: runs inside
its caller's transaction; only `note_failure` begins its own.
"""

from __future__ import annotations

from datetime import timedelta

from catalog.catalog import Catalog
from catalog.errors import Forbidden
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.clock import now
from catalog.model.status import Status
from catalog.model.tree import Entry, LocationState, Place
from catalog.repository.database import Repository
from catalog.rules import sparing, trash

_DELETED_FOR_IT = timedelta(minutes=1)
"""A new image replaces the image that was deleted under the same name less than this ago."""


def begin(
    repository: Repository, number: int, place: Place, target: Place | None, principal: Principal
) -> None:
    """Note which image a new one will replace: the one at its target, or one deleted for it.

    `cp -f`, `install` and some WebDAV clients delete a name, and then write it again.
    """
    if target is not None:
        present = repository.entry_at(target.folder, target.name)
        found = [] if present is None else [present]
    else:
        since = now() - _DELETED_FOR_IT
        deleted = repository.lately_deleted(place.folder, place.name, since)
        found = [old for old in deleted if old.image.has_data and _may_change(principal, old)]
    if found:
        repository.set_replaced(number, found[0].image.number)


def _may_change(principal: Principal, entry: Entry) -> bool:
    try:
        access.check_change(principal, entry.image)
    except Forbidden:
        return False
    return True


def give_back_unwritten(repository: Repository, entry: Entry) -> bool:
    """As `give_back`, for the deletion of an image that was not written to yet.

    The deletion may mean only this image.
    """
    return entry.image.status is Status.QUEUED and give_back(
        repository, entry.image.number, "it was deleted before it was written"
    )


def give_back(repository: Repository, number: int, reason: str) -> bool:
    """Restore the image that a failed one would have replaced, under its name.

    Returns whether it was restored.  Nothing is done if it is not known, was deleted for good
    or restored elsewhere, or if the failed image is elsewhere by now.
    """
    replaced = repository.replaced(number)
    if replaced is None or not repository.has_image(replaced):
        return False
    sparing.note_failure(repository, replaced, reason)
    failed, old = repository.entries_of(number), repository.entries_of(replaced)
    if len(failed) != 1 or len(old) != 1 or old[0].image.status is not Status.PENDING_DELETE:
        return False
    home = Place(failed[0].folder, failed[0].name)
    if Place(old[0].location.trashed_from or 0, old[0].image.name) != home:
        return False
    states = {each.state for each in repository.locations_of(replaced)}
    if LocationState.DELETING in states:
        return False  # it is being deleted for good
    trash.into_trash(repository, failed[0], failed[0].image.owner)
    # Read again: the failed image may have taken over its name in the trash.
    trash.restore(repository, repository.entries_of(replaced)[0], home)
    repository.tell_everybody(home.folder, home.name)
    return True


def note_failure(catalog: Catalog, place: Place, principal: Principal, reason: str) -> None:
    """Spare the image at `place`, if any, after a request of the principal failed to replace it.

    Raises Forbidden if the principal may not change it.
    """
    with catalog.read() as repository:
        present = repository.entry_at(place.folder, place.name)
    if present is not None and present.image.status is not Status.KILLED:
        access.check_change(principal, present.image)
        with catalog.write() as repository:
            sparing.note_failure(repository, present.image.number, reason)
