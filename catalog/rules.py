"""What the tree allows: where entries may be, and what gives way to what.

Scope: rules over the rows of folders, locations and images; nothing here begins or ends a
transaction.
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from time import time_ns

from catalog import sparing
from catalog.errors import (
    AlreadyExists,
    Conflict,
    FolderNotEmpty,
    Forbidden,
    ImageKilled,
    InvalidName,
    IsAFolder,
    NotAFolder,
    NotFound,
    NotSupported,
    Protected,
)
from catalog.model import access, names
from catalog.model.access import Principal
from catalog.model.activity import UploadRecord, Use
from catalog.model.image import GATE, External, Image, Visibility, now
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import Entry, Folder, FolderKind, Location, LocationState, Place
from catalog.repository import copies
from catalog.repository.database import Repository

DELETION_FAILED = "deleting it for good failed"
"""How the message begins of an image whose store has refused that, until it is restored."""


@dataclass(frozen=True, slots=True)
class GaveWay:
    """What has gone from a name, as something else took it."""

    dropped: tuple[Location, ...] = ()
    """Copies that are no entries any more: their data goes next."""
    trashed: Image | None = None
    uses: tuple[Use, ...] = ()
    """Who had told that they have what is in the trash now open."""


# -- folders ---------------------------------------------------------------------------


def writable_folder(repository: Repository, place: Place) -> Folder:
    """The folder of `place`, if an entry may be put there.  Raises Forbidden, InvalidName."""
    folder = repository.lock_folder(place.folder)
    match folder.kind:
        case FolderKind.ROOT:
            raise Forbidden(place.name, "only the configured stores are here")
        case FolderKind.TRASH:
            raise Forbidden(place.name, "only deleted images are in the trash")
        case FolderKind.STORE if place.name == names.TRASH:
            raise InvalidName(place.name, "is the trash's own")
    return folder


def own_folder(repository: Repository, place: Place, principal: Principal) -> Folder:
    """The folder called `place`, if the principal may move or remove it."""
    folder = repository.folder_at(place.folder, place.name)
    if folder is None:
        if repository.entry_at(place.folder, place.name) is not None:
            raise NotAFolder(place.name)
        raise NotFound(place.name)
    check_own(folder, principal)
    return folder


def check_own(folder: Folder, principal: Principal) -> None:
    """Raise Forbidden unless the principal may move or remove the folder."""
    if folder.kind is not FolderKind.PLAIN:
        raise Forbidden(folder.name, "is a fixed part of the tree")
    if not access.owns(principal, folder.owner):
        raise Forbidden(folder.name, f"belongs to {folder.owner}")


def remove_folder(repository: Repository, place: Place, principal: Principal) -> None:
    """Remove a folder that is empty.  Raises FolderNotEmpty and as `own_folder`."""
    folder = own_folder(repository, place, principal)
    if not repository.is_empty(folder.number):
        raise FolderNotEmpty(place.name)
    repository.drop_folder(folder)


def move_folder(repository: Repository, source: Place, target: Place, principal: Principal) -> None:
    """Rename a folder within its store; an empty folder at `target` gives way."""
    folder = own_folder(repository, source, principal)
    parent = writable_folder(repository, target)
    if parent.store != folder.store:
        raise NotSupported(source.name, "a folder cannot move to another store")
    _check_not_inside(repository, folder, parent)
    present = repository.folder_at(target.folder, target.name)
    if present is not None and present.number == folder.number:
        # Its own name, perhaps in another form.
        if present.name == target.name:
            return
    elif present is not None:
        remove_folder(repository, target, principal)
    elif repository.entry_at(target.folder, target.name) is not None:
        raise NotAFolder(target.name)
    temporary = parent.temporary or names.is_temporary(target.name)
    if temporary != folder.temporary and not repository.is_empty(folder.number):
        # What is inside would become, or stop being, what is never published.
        raise InvalidName(target.name, "only an empty folder changes to or from a temporary name")
    repository.move_folder(folder, parent.number, target.name, temporary)


def exchange(repository: Repository, one: Place, other: Place, principal: Principal) -> None:
    """Let two nodes of one folder, both as temporary as the other, change their names."""
    writable_folder(repository, one)
    # No two have one name, not even in between.
    parked = Place(one.folder, names.beside(one.name))
    for source, target in ((one, parked), (other, one), (parked, other)):
        entry = repository.entry_at(source.folder, source.name)
        if entry is not None:
            access.check_change(principal, entry.image)
            repository.move_entry(entry.location, target.folder, target.name)
            repository.set_image(entry.image.number, name=target.name)
        else:
            folder = own_folder(repository, source, principal)
            repository.move_folder(folder, target.folder, target.name, folder.temporary)


def _check_not_inside(repository: Repository, folder: Folder, parent: Folder) -> None:
    if folder.number in (above.number for above in repository.folders_above(parent)):
        raise InvalidName(folder.name, "a folder cannot move into itself")


# -- entries ---------------------------------------------------------------------------


def entry_at(repository: Repository, place: Place) -> Entry:
    """The entry called `place`.  Raises NotFound, IsAFolder."""
    entry = repository.entry_at(place.folder, place.name)
    if entry is not None:
        return entry
    if repository.folder_at(place.folder, place.name) is not None:
        raise IsAFolder(place.name)
    raise NotFound(place.name)


def check_free(repository: Repository, place: Place) -> None:
    """Raise AlreadyExists unless nothing is called `place`."""
    if repository.entry_at(place.folder, place.name) or repository.folder_at(
        place.folder, place.name
    ):
        raise AlreadyExists(place.name)


def add_image(
    repository: Repository,
    name: str,
    principal: Principal,
    image_id: str | None = None,
    *,
    expected_hash: str | None = None,
) -> int:
    """Make a queued image with Glance's defaults and return its number."""
    at = now()
    return repository.add_image(
        id=image_id or str(uuid.uuid4()),
        name=name,
        status=Status.QUEUED,
        owner=principal.owner,
        # A hypervisor's own images are for all its guests: private is a choice.
        visibility=Visibility.PUBLIC,
        container_format="bare",
        size=0,
        min_disk=0,
        min_ram=0,
        protected=False,
        os_hidden=False,
        expected_hash=expected_hash and expected_hash.lower(),
        message="",
        mtime=time_ns(),
        created_at=at,
        updated_at=at,
    )


def add_external(
    repository: Repository,
    folder: Folder,
    name: str,
    external: External,
    principal: Principal,
    image_id: str | None = None,
) -> int:
    """Add an active image of data that is there already, as an entry of `folder`; its number."""
    number = add_image(repository, name, principal, image_id)
    repository.change_status(
        number,
        Status.ACTIVE,
        only_from=(Status.QUEUED,),
        size=external.size,
        disk_format=external.disk_format,
        virtual_size=external.virtual_size,
        expected_hash=external.expected_hash,
        gate=GATE,
    )
    repository.add_location(number, folder.store, folder.number, name, url=external.url)
    return number


def check_rename(
    repository: Repository, entry: Entry, target: Place, principal: Principal, *, replace: bool
) -> None:
    """Raise what would refuse the principal to rename the entry."""
    access.check_change(principal, entry.image)
    check_move(repository, entry, target, principal, replace=replace)


def check_move(
    repository: Repository, entry: Entry, target: Place, principal: Principal, *, replace: bool
) -> Entry | None:
    """Return what has the name `target` now and would have to give way, if anything.

    Raises AlreadyExists (unless `replace`), IsAFolder, Protected, Conflict, Forbidden,
    InvalidName.
    """
    # An image that keeps its name may move, whatever an earlier version let it be called.
    if target.name != entry.image.name:
        names.check_new(target.name)
    folder = writable_folder(repository, target)
    status = entry.image.status_before_delete or entry.image.status
    if status in HAS_DATA and (folder.temporary or names.is_temporary(target.name)):
        raise InvalidName(target.name, "a temporary name cannot hold an image")
    if repository.folder_at(target.folder, target.name) is not None:
        raise IsAFolder(target.name)
    present = repository.entry_at(target.folder, target.name)
    if present is None or present.location.number == entry.location.number:
        return None
    if not replace:
        raise AlreadyExists(target.name)
    access.check_change(principal, present.image)
    if status is Status.KILLED and present.image.has_data:
        # What is good does not give way to what failed.
        raise ImageKilled(entry.name, entry.image.message)
    if present.image.protected:
        raise Protected(present.name)
    check_removable(repository, present)
    return present


def move(
    repository: Repository, entry: Entry, target: Place, principal: Principal, *, replace: bool
) -> GaveWay:
    """Rename an entry within its store; from the trash it is restored to what it was."""
    present = check_move(repository, entry, target, principal, replace=replace)
    if repository.folder(target.folder).store != entry.store:
        raise Conflict(entry.name, "moving to another store takes a copy of the data")
    gave_way = GaveWay()
    if present is not None:
        gave_way = _give_way(repository, present, principal)
        # Should it not be whole yet, and fail, that one comes back.
        sparing.take_place(repository, entry.image.number, present.image.number)
    if entry.image.status is Status.PENDING_DELETE:
        restore(repository, entry, target)
    else:
        repository.move_entry(entry.location, target.folder, target.name)
        repository.set_image(entry.image.number, name=target.name)
    return gave_way


def restore(repository: Repository, entry: Entry, target: Place) -> None:
    """Take an image out of the trash, to what it was.  Raises Conflict while it is deleted."""
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
    for location in repository.lock_locations(image.number):
        if location.state is LocationState.DELETING:
            raise Conflict(image.name, "is being deleted for good")
    if image.message.startswith(DELETION_FAILED):
        repository.set_image(image.number, message="")


def begin_upload(repository: Repository, record: UploadRecord, only_from: Status) -> list[Location]:
    """Take an image to saving.  Returns copies of what is now to change: their data goes next.

    Raises InvalidTransition, NotFound, and Conflict while a copy is being made.
    """
    repository.change_status(record.image, Status.SAVING, only_from=(only_from,), message="")
    if repository.upload(record.image) is not None:
        raise Conflict(repository.image(record.image).name, "is being copied")
    repository.add_upload(record)
    locations = repository.locations_of(record.image)
    for location in locations:
        if location.folder is not None:
            repository.set_location(location.number, LocationState.PENDING, None)
        else:
            repository.detach_location(location)
    return [location for location in locations if location.folder is None]


# -- deletion --------------------------------------------------------------------------


def remove(repository: Repository, entry: Entry, principal: Principal) -> list[Location]:
    """Remove an entry: with an image's last name the image, else the copy that has this one.

    Returns the copy whose data goes next; it keeps its name until its store has removed it.
    Raises Protected, Conflict.
    """
    check_removable(repository, entry)
    if not _has_other_names(repository, entry):
        to_trash(repository, entry, principal)
        return []
    location = entry.location
    repository.set_location(location.number, LocationState.DELETING, location.url)
    return [dataclasses.replace(location, state=LocationState.DELETING)]


def _give_way(repository: Repository, entry: Entry, principal: Principal) -> GaveWay:
    """As `remove`, for an entry whose name is taken by another in the same step."""
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
    """Whether somebody has linked the image elsewhere; copies without a name go with it."""
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
        for each in repository.lock_locations(number)
        if each.state is LocationState.ACTIVE
    }
    others = complete - {here}
    if not others:
        raise Conflict(entry.name, "is the only complete copy")
    damaged = copies.damaged(repository, number)
    if others <= damaged and here not in damaged:
        raise Conflict(entry.name, "is the only copy that is not damaged")


def to_trash(repository: Repository, entry: Entry, principal: Principal) -> None:
    """Delete an image: its only entry goes to the trash of its store.

    There it has its own name, so that who wants back what is just gone finds that; what had
    that name gets its id appended.
    """
    _check_deletable(entry)
    into_trash(repository, entry, principal.name)


def take_back(repository: Repository, entry: Entry) -> None:
    """Undo the making of an image: it is gone, unless somebody has begun to use it.

    Raises InvalidTransition.
    """
    number = entry.image.number
    if [each.location.number for each in repository.entries_of(number)] != [entry.location.number]:
        return
    repository.change_status(number, Status.PENDING_DELETE, only_from=(Status.QUEUED,))
    repository.change_status(number, Status.DELETED)
    repository.drop_location(entry.location)


def into_trash(repository: Repository, entry: Entry, by: str) -> None:
    """As `to_trash`, also for what is protected: an upload that failed has no data to lose."""
    image = entry.image
    repository.change_status(
        image.number,
        Status.PENDING_DELETE,
        deleted_at=now(),
        deleted_by=by,
        status_before_delete=image.status,
    )
    if names.is_temporary(entry.name) and image.status not in HAS_DATA:
        # It never was an image and has no data: nothing anybody would restore.
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
            # Its store is not configured: should it come back, the copy is no active image's.
            repository.hide_location(other)


def _trash(repository: Repository, store: str) -> Folder:
    root = repository.root()
    assert root is not None
    top = repository.folder_at(root.number, store)
    assert top is not None
    trash = repository.folder_at(top.number, names.TRASH)
    assert trash is not None
    return trash
