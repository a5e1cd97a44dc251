"""Names of images: making, renaming and removing them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from time import time_ns

from catalog.catalog import Catalog
from catalog.errors import AlreadyExists, Conflict, InvalidName, NotFound
from catalog.model import access, digests, names
from catalog.model.access import Principal
from catalog.model.clock import now
from catalog.model.image import GATE, External, Visibility
from catalog.model.status import Status
from catalog.model.tree import Entry, Folder, Location, Place
from catalog.repository.database import Repository
from catalog.repository.reserve import on_a_full_disk
from catalog.rules import placement, replacing, sparing, trash
from catalog.rules.sparing import Meant
from catalog.rules.trash import GaveWay


@dataclass(frozen=True, slots=True)
class Rename:
    """A rename that is done together with another change, in the same transaction."""

    source: Place
    target: Place
    principal: Principal
    replace: bool


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
        # Not Glance's default: a hypervisor's images are for all of its users, unless somebody
        # chooses another visibility.
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
    """Add an active image for existing data as an entry of `folder`; return its number."""
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


def create(
    catalog: Catalog,
    place: Place,
    principal: Principal,
    image_id: str | None = None,
    *,
    target: Place | None = None,
    replace: bool = True,
    expected_hash: str | None = None,
) -> Entry:
    """Make a queued image with an entry.

    `target` is its place after it is complete, if not `place`.  `expected_hash` is the announced
    digest.  Raises AlreadyExists, InvalidName, NotFound, Forbidden, ReadOnlyStore, and the errors
    of a `rename` to `target`.
    """
    access.check_create(principal)
    for each in (place, target or place):
        names.check_new(each.name)
    if expected_hash is not None:
        digests.hash_algorithm(expected_hash)
    with catalog.write() as repository:
        folder = placement.writable_folder(repository, place)
        placement.check_takes_data(catalog, folder.store)
        placement.check_free(repository, place)
        name = (target or place).name
        number = add_image(repository, name, principal, image_id, expected_hash=expected_hash)
        repository.add_location(number, folder.store, folder.number, place.name)
        replacing.begin(repository, number, place, target, principal)
        entry = placement.entry_at(repository, place)
        if target is not None:
            placement.check_move(repository, entry, target, principal, replace=replace)
        return entry


def register(catalog: Catalog, place: Place, external: External, principal: Principal) -> Entry:
    """Make an active image of the data at a URL (`ln -s URL`)."""
    access.check_create(principal)
    names.check_new(place.name)
    with catalog.write() as repository:
        folder = placement.writable_folder(repository, place)
        placement.check_free(repository, place)
        add_external(repository, folder, place.name, external, principal)
        return placement.entry_at(repository, place)


@on_a_full_disk
def rename(
    catalog: Catalog, source: Place, target: Place, principal: Principal, *, replace: bool = True
) -> GaveWay:
    """Rename an entry within its store; an entry in the trash is restored.

    An entry that has the name `target` is removed in the same step.  Raises NotFound,
    AlreadyExists (unless `replace`), IsAFolder, Protected, Conflict, Forbidden, InvalidName.
    """
    with catalog.write() as repository:
        entry = placement.entry_at(repository, source)
        access.check_change(principal, entry.image)
        return placement.move(repository, entry, target, principal, replace=replace)


def take_back(catalog: Catalog, entry: Entry) -> None:
    """Undo `create` after a failed request; the image leaves no trace.

    Nothing is done if it has other entries by now.  Raises InvalidTransition if somebody writes to
    it already.
    """
    with catalog.write() as repository:
        number = entry.image.number
        present = [each.location.number for each in repository.entries_of(number)]
        if present != [entry.location.number]:
            return
        repository.change_status(number, Status.PENDING_DELETE, only_from=(Status.QUEUED,))
        repository.change_status(number, Status.DELETED)
        repository.drop_location(entry.location)


@on_a_full_disk
def remove(
    catalog: Catalog, place: Place, principal: Principal, meant: Meant = Meant.SURELY
) -> list[Location]:
    """Remove an entry: the whole image if it is its last name, otherwise only this copy.

    The image goes to its store's trash; with a temporary name and no data it is deleted at once.
    Returns the copy whose data has to be removed next: it is an entry until its store has removed
    it (`removal.remove_marked`).  Raises NotFound, Forbidden, Protected, Conflict (an upload goes
    on, or this is the only complete copy, or the only undamaged one), Spared as `meant` says.
    """
    with catalog.write() as repository:
        entry = placement.entry_at(repository, place)
        access.check_change(principal, entry.image)
        # This check first: waiting would not help against its errors.
        trash.check_removable(repository, entry)
        sparing.check_meant(repository, entry, meant)
        if meant is Meant.PERHAPS and replacing.give_back_unwritten(repository, entry):
            return []
        return trash.remove(repository, entry, principal)


def renew(catalog: Catalog, place: Place, principal: Principal) -> Entry:
    """Let a new queued image take the name of a killed one (O_TRUNC on it)."""
    access.check_create(principal)
    with catalog.write() as repository:
        entry = placement.entry_at(repository, place)
        access.check_change(principal, entry.image)
        if entry.image.status is not Status.KILLED:
            raise Conflict(entry.name, f"is {entry.image.status} by now")
        trash.to_trash(repository, entry, principal)
        number = add_image(repository, place.name, principal, None)
        repository.add_location(number, entry.store, place.folder, place.name)
        return placement.entry_at(repository, place)


def adopt(
    catalog: Catalog,
    image_id: str,
    place: Place,
    found: External,
    principal: Principal,
    *,
    visibility: Visibility,
    protected: bool,
) -> None:
    """Make an active image with that id of data that its store has already.

    Raises as `folder_to_adopt`.
    """
    with catalog.write() as repository:
        folder = folder_to_adopt(repository, image_id, place)
        number = add_external(repository, folder, place.name, found, principal, image_id)
        repository.set_image(number, visibility=visibility, protected=protected)


def folder_to_adopt(repository: Repository, image_id: str, place: Place) -> Folder:
    """The folder of `place`, if an image with that id may be put there.

    Raises InvalidName, Forbidden, AlreadyExists for the name or the id.
    """
    names.check_new(place.name)
    folder = placement.writable_folder(repository, place)
    if folder.temporary or names.is_temporary(place.name):
        raise InvalidName(place.name, "a temporary name cannot hold an image")
    placement.check_free(repository, place)
    try:
        repository.image_by_id(image_id)
    except NotFound:
        return folder
    raise AlreadyExists(image_id, "has just been made an image")
