"""Folders: making, renaming and removing them."""

from __future__ import annotations

from catalog.catalog import Catalog
from catalog.errors import FolderNotEmpty, InvalidName, NotAFolder, NotSupported
from catalog.model import access, names
from catalog.model.access import Principal
from catalog.model.tree import Folder, FolderKind, Place
from catalog.repository.database import Repository
from catalog.rules.placement import check_free, own_folder, writable_folder


def _remove(repository: Repository, place: Place, principal: Principal) -> None:
    """Remove a folder that is empty.  Raises FolderNotEmpty and as `own_folder`."""
    folder = own_folder(repository, place, principal)
    if not repository.is_empty(folder.number):
        raise FolderNotEmpty(place.name)
    repository.drop_folder(folder)


def _check_not_inside(repository: Repository, folder: Folder, parent: Folder) -> None:
    if folder.number in (above.number for above in repository.folders_above(parent)):
        raise InvalidName(folder.name, "a folder cannot move into itself")


def make_folder(catalog: Catalog, place: Place, principal: Principal) -> Folder:
    """Make an empty folder.  Raises AlreadyExists, InvalidName, NotFound, Forbidden."""
    access.check_create(principal)
    names.check_new(place.name)
    with catalog.write() as repository:
        parent = writable_folder(repository, place)
        check_free(repository, place)
        temporary = parent.temporary or names.is_temporary(place.name)
        return repository.add_folder(
            parent.number,
            parent.store,
            place.name,
            FolderKind.PLAIN,
            principal.owner,
            temporary,
        )


def remove_folder(catalog: Catalog, place: Place, principal: Principal) -> None:
    """Remove an empty folder.  Raises NotFound, NotAFolder, FolderNotEmpty, Forbidden."""
    with catalog.write() as repository:
        _remove(repository, place, principal)


def move_folder(catalog: Catalog, source: Place, target: Place, principal: Principal) -> None:
    """Rename a folder within its store; an empty folder at `target` is replaced.

    Raises NotFound, Forbidden, FolderNotEmpty, NotAFolder, InvalidName, and
    NotSupported for another store.
    """
    if target.name != source.name:
        names.check_new(target.name)
    with catalog.write() as repository:
        folder = own_folder(repository, source, principal)
        parent = writable_folder(repository, target)
        if parent.store != folder.store:
            raise NotSupported(source.name, "a folder cannot move to another store")
        _check_not_inside(repository, folder, parent)
        present = repository.folder_at(target.folder, target.name)
        if present is not None and present.number == folder.number:
            # The folder itself: its own name, perhaps in another Unicode form.
            if present.name == target.name:
                return
        elif present is not None:
            _remove(repository, target, principal)
        elif repository.entry_at(target.folder, target.name) is not None:
            raise NotAFolder(target.name)
        temporary = parent.temporary or names.is_temporary(target.name)
        if temporary != folder.temporary and not repository.is_empty(folder.number):
            # Images in a temporary folder are never published: a rename must not change that for
            # images that are there already.
            raise InvalidName(
                target.name, "only an empty folder changes to or from a temporary name"
            )
        repository.move_folder(folder, parent.number, target.name, temporary)


def make_stores(catalog: Catalog) -> None:
    """Give every configured store its folder and its trash.  Idempotent."""
    with catalog.read() as repository:
        root = repository.root()
        present = set() if root is None else {f.name for f in repository.folders_in(root.number)}
    missing = catalog.stores.keys() - present
    if root is not None and not missing:
        return
    with catalog.write() as repository:
        root = repository.root() or repository.add_root()
        for name in sorted(missing):
            top = repository.folder_at(root.number, name) or repository.add_folder(
                root.number, name, name, FolderKind.STORE, "root", False
            )
            if repository.folder_at(top.number, names.TRASH) is None:
                repository.add_folder(
                    top.number, name, names.TRASH, FolderKind.TRASH, "root", False
                )


def claim_store(catalog: Catalog, store: str, mark: str, *, anew: bool = False) -> str:
    """Record where a store's data is, unless that is known; return what is recorded.

    The first host that has the store decides.  `anew` replaces what is recorded.
    """
    with catalog.write() as repository:
        known = repository.store_marks().get(store)
        if known is not None and not anew:
            return known
        repository.set_store_mark(store, mark)
        return mark


def exchange(catalog: Catalog, one: Place, other: Place, principal: Principal) -> None:
    """Exchange the names of two nodes in one folder, in one step.

    Both are as temporary as the other.  Raises NotFound, Forbidden, InvalidName.
    """
    for place in (one, other):
        names.check_new(place.name)
    with catalog.write() as repository:
        writable_folder(repository, one)
        # By way of a third name, as a name is unique in its folder at any time.
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
