"""The rules of the tree: where entries may be, and which entry replaces which.

Scope: rules on the rows of folders, locations and images, in the caller's transaction; only
`same_place` begins one.  Threading: any thread.
"""

from __future__ import annotations

from catalog.catalog import Catalog
from catalog.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    ImageKilled,
    InvalidName,
    IsAFolder,
    NotAFolder,
    NotFound,
    Protected,
    ReadOnlyStore,
)
from catalog.model import access, names
from catalog.model.access import Principal
from catalog.model.status import HAS_DATA, Status
from catalog.model.tree import Entry, Folder, FolderKind, Place
from catalog.repository.database import Repository
from catalog.rules import sparing
from catalog.rules.trash import GaveWay, check_removable, give_way, restore
from catalog.stores.base import Capability


def writable_folder(repository: Repository, place: Place) -> Folder:
    """The folder of `place`, if an entry may be put there.  Raises Forbidden, InvalidName."""
    folder = repository.folder(place.folder)
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
    folder = repository.node_at(place.folder, place.name)
    if folder is None:
        raise NotFound(place.name)
    if not isinstance(folder, Folder):
        raise NotAFolder(place.name)
    check_own(folder, principal)
    return folder


def check_own(folder: Folder, principal: Principal) -> None:
    """Raise Forbidden unless the principal may move or remove the folder."""
    if folder.kind is not FolderKind.PLAIN:
        raise Forbidden(folder.name, "is a fixed part of the tree")
    if not access.owns(principal, folder.owner):
        raise Forbidden(folder.name, f"belongs to {folder.owner}")


def entry_at(repository: Repository, place: Place) -> Entry:
    """The entry called `place`.  Raises NotFound, IsAFolder."""
    node = repository.node_at(place.folder, place.name)
    if node is None:
        raise NotFound(place.name)
    if isinstance(node, Folder):
        raise IsAFolder(place.name)
    return node


def check_free(repository: Repository, place: Place) -> None:
    """Raise AlreadyExists unless nothing is called `place`."""
    if repository.node_at(place.folder, place.name) is not None:
        raise AlreadyExists(place.name)


def check_rename(
    repository: Repository, entry: Entry, target: Place, principal: Principal, *, replace: bool
) -> None:
    """Raise the error that a rename of the entry by the principal would raise."""
    access.check_change(principal, entry.image)
    check_move(repository, entry, target, principal, replace=replace)


def check_move(
    repository: Repository, entry: Entry, target: Place, principal: Principal, *, replace: bool
) -> Entry | None:
    """Return the entry at `target` that the move would replace, if any.

    Raises AlreadyExists (unless `replace`), IsAFolder, Protected, Conflict, Forbidden,
    InvalidName.
    """
    # Only a new name is checked: an image of an earlier version may keep a name that is refused
    # today.
    if target.name != entry.image.name:
        names.check_new(target.name)
    folder = writable_folder(repository, target)
    status = entry.image.status_before_delete or entry.image.status
    if status in HAS_DATA and (folder.temporary or names.is_temporary(target.name)):
        raise InvalidName(target.name, "a temporary name cannot hold an image")
    present = repository.node_at(target.folder, target.name)
    if isinstance(present, Folder):
        raise IsAFolder(target.name)
    if present is None or present.location.number == entry.location.number:
        return None
    if not replace:
        raise AlreadyExists(target.name)
    access.check_change(principal, present.image)
    if status is Status.KILLED and present.image.has_data:
        # A failed image must not replace a good one.
        raise ImageKilled(entry.name, entry.image.message)
    if present.image.protected:
        raise Protected(present.name)
    check_removable(repository, present)
    return present


def move(
    repository: Repository, entry: Entry, target: Place, principal: Principal, *, replace: bool
) -> GaveWay:
    """Rename an entry within its store; from the trash, restore it in its earlier status."""
    present = check_move(repository, entry, target, principal, replace=replace)
    if repository.folder(target.folder).store != entry.store:
        raise Conflict(entry.name, "moving to another store takes a copy of the data")
    gave_way = GaveWay()
    if present is not None:
        gave_way = give_way(repository, present, principal)
        # Note what was replaced: if the new image is still being uploaded and fails, the old one
        # comes back.
        sparing.take_place(repository, entry.image.number, present.image.number)
    if entry.image.status is Status.PENDING_DELETE:
        restore(repository, entry, target)
    else:
        repository.move_entry(entry.location, target.folder, target.name)
        repository.set_image(entry.image.number, name=target.name)
    return gave_way


def same_place(catalog: Catalog, entry: Entry, store: str) -> Place:
    """The place with the same path in another store; missing folders are made.

    Raises AlreadyExists when the name is taken there, NotAFolder when an image has the name
    of one of the folders, Conflict for an entry in the trash.
    """
    with catalog.write() as repository:
        above: list[Folder] = []
        folder = repository.folder(entry.folder)
        while folder.kind is FolderKind.PLAIN:
            above.append(folder)
            folder = repository.folder(folder.parent)
        if folder.kind is not FolderKind.STORE:
            raise Conflict(entry.name, "is in the trash")
        parent = top_folder(repository, store)
        for model in reversed(above):
            parent = _folder_like(repository, model, parent)
        place = Place(parent.number, entry.name)
        check_free(repository, place)
        return place


def top_folder(repository: Repository, store: str) -> Folder:
    """A store's own folder.  Raises NotFound."""
    root = repository.root()
    top = repository.folder_at(root.number, store) if root is not None else None
    if top is None:
        raise NotFound(store, "no such store is configured")
    return top


def _folder_like(repository: Repository, model: Folder, parent: Folder) -> Folder:
    if repository.entry_at(parent.number, model.name) is not None:
        raise NotAFolder(model.name, f"is an image in store {parent.store}")
    present = repository.folder_at(parent.number, model.name)
    return present or repository.add_folder(
        parent.number, parent.store, model.name, FolderKind.PLAIN, model.owner, model.temporary
    )


def check_takes_data(catalog: Catalog, store: str) -> None:
    """Raise ReadOnlyStore unless the store takes data."""
    if Capability.WRITE not in catalog.store(store).capabilities:
        raise ReadOnlyStore(store)
