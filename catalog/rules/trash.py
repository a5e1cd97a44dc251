"""Removes entries; an image's last one goes to its store's trash, and can be restored from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from catalog.errors import Conflict, Protected
from catalog.model import names
from catalog.model.access import Principal
from catalog.model.activity import Use
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import Entry, Folder, Location, LocationState, Place
from catalog.repository.database import Repository

DELETION_FAILED = "deleting it for good failed"
"""The beginning of an image's message after its store has refused to delete it; a restore clears
it."""


@dataclass(frozen=True, slots=True)
class GaveWay:
    """What lost a name because another image took it."""

    dropped: tuple[Location, ...] = ()
    """Copies that are no longer entries; their data has to be removed next."""
    trashed: Image | None = None
    uses: tuple[Use, ...] = ()
    """The published uses of the image that is in the trash now."""


def restore(repository: Repository, entry: Entry, target: Place) -> None:
    """Take an image out of the trash, with its earlier status.

    Raises Conflict while it is being deleted for good.
    """
    image = entry.image
    assert image.status_before_delete is not None
    repository.move_entry(entry.location, target.folder, target.name)
    repository.change_status(
        image.number,
        image.status_before_delete,
        only_from=(Status.PENDING_DELETE,),
        deleted_at=None,
        deleted_by=None,
        status_before_delete=None,
        name=target.name,
    )
    for location in repository.locations_of(image.number):
        if location.state is LocationState.DELETING:
            raise Conflict(image.name, "is being deleted for good")
    if image.message.startswith(DELETION_FAILED):
        repository.set_image(image.number, message="")


def remove(repository: Repository, entry: Entry, principal: Principal) -> list[Location]:
    """Remove an entry: the whole image if it is its last name, otherwise only this copy.

    Returns the copy whose data has to be removed next; it keeps its name until its store has
    removed it.  Raises Protected, Conflict.
    """
    check_removable(repository, entry)
    if not _has_other_names(repository, entry):
        to_trash(repository, entry, principal)
        return []
    location = entry.location
    repository.set_location(location.number, LocationState.DELETING, location.url)
    return [dataclasses.replace(location, state=LocationState.DELETING)]


def give_way(repository: Repository, entry: Entry, principal: Principal) -> GaveWay:
    """As `remove`, for an entry whose name another one takes in the same step."""
    if not _has_other_names(repository, entry):
        to_trash(repository, entry, principal)
        return GaveWay(trashed=entry.image, uses=tuple(repository.uses(entry.image.number)))
    repository.detach_location(entry.location)
    return GaveWay(dropped=(entry.location,))


def check_removable(repository: Repository, entry: Entry) -> None:
    """Raise Protected or Conflict unless the entry could be removed now."""
    if _has_other_names(repository, entry):
        _check_droppable(repository, entry)
    else:
        _check_deletable(entry)


def _has_other_names(repository: Repository, entry: Entry) -> bool:
    """Whether the image has other entries; copies without a name do not count."""
    return len(repository.entries_of(entry.image.number)) > 1


def _check_deletable(entry: Entry) -> None:
    if entry.image.protected:
        raise Protected(entry.name)
    if entry.image.status in IN_PROGRESS:
        raise Conflict(entry.name, "is being uploaded")


def _check_droppable(repository: Repository, entry: Entry) -> None:
    """Raise Conflict unless another complete copy is as good as this one."""
    here, number = entry.location.number, entry.image.number
    complete = {
        each.number
        for each in repository.locations_of(number)
        if each.state is LocationState.ACTIVE
    }
    others = complete - {here}
    if not others:
        raise Conflict(entry.name, "is the only complete copy")
    damaged = repository.damaged(number)
    if others <= damaged and here not in damaged:
        raise Conflict(entry.name, "is the only copy that is not damaged")


def to_trash(repository: Repository, entry: Entry, principal: Principal) -> None:
    """Delete an image: its only entry goes to the trash of its store.

    It keeps its name there, so that a user who wants it back finds it.  An older image with that
    name gets its id appended.
    """
    _check_deletable(entry)
    into_trash(repository, entry, principal.name)


def into_trash(repository: Repository, entry: Entry, by: str) -> None:
    """As `to_trash`, without the check for protection: a failed upload has no data to lose."""
    image = entry.image
    repository.change_status(
        image.number,
        Status.PENDING_DELETE,
        deleted_at=now(),
        deleted_by=by,
        status_before_delete=image.status,
    )
    if names.is_temporary(entry.name) and image.status not in HAS_DATA:
        # It never was complete, so nobody would restore it.
        repository.change_status(image.number, Status.DELETED)
        repository.drop_location(entry.location)
        return
    trash = _trash(repository, entry.store)
    older = repository.entry_at(trash.number, entry.name)
    if older is not None:
        repository.move_entry(
            older.location,
            trash.number,
            names.in_trash(older.name, older.image.id),
            trashed_from=older.location.trashed_from,
        )
    repository.move_entry(entry.location, trash.number, entry.name, trashed_from=entry.folder)
    for other in repository.locations_of(image.number):
        if other.folder is not None and other.number != entry.location.number:
            # A copy in a store that is not configured now.  If the store is configured again, its
            # copy must not show as an entry of an active image.
            repository.hide_location(other)


def _trash(repository: Repository, store: str) -> Folder:
    root = repository.root()
    assert root is not None
    top = repository.folder_at(root.number, store)
    assert top is not None
    trash = repository.folder_at(top.number, names.TRASH)
    assert trash is not None
    return trash
