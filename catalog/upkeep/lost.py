"""Deletes images although their stores do not remove the data, and forgets stores that are gone.

A store that is not configured any more keeps its rows, so that nothing is lost if it comes back; it
is not in the tree.  Threading: any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalog.catalog import Catalog
from catalog.copies.purge import purge
from catalog.copies.removal import LeftBehind, force_out
from catalog.errors import Conflict, NotFound, Protected
from catalog.model.access import Principal
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import IN_PROGRESS, Status
from catalog.model.tree import Entry, FolderKind, Location, LocationState
from catalog.rules import copies, uploads


@dataclass(frozen=True, slots=True)
class GoneStore:
    """A store that is in the catalog and not in the configuration."""

    name: str
    images: int
    """The number of images with a location there."""
    only_there: int
    """The number of images with no location anywhere else."""


def gone_stores(catalog: Catalog) -> list[GoneStore]:
    """The stores that are no longer configured and still have images."""
    with catalog.read() as repository:
        root = repository.root()
        folders = repository.folders_in(root.number) if root is not None else []
    found = []
    for folder in folders:
        if folder.kind is FolderKind.STORE and folder.store not in catalog.stores:
            there = list(catalog.all_locations(folder.store))
            if there:
                only = sum(not _elsewhere(catalog, location) for location in there)
                found.append(GoneStore(folder.store, len(there), only))
    return found


def delete_copy(catalog: Catalog, entry: Entry, principal: Principal) -> list[LeftBehind]:
    """Delete an entry for good, even if its store refuses: its copy, or at the last one the image.

    Returns the data that stays in stores.  Raises Protected, Conflict.
    """
    if not _elsewhere(catalog, entry.location):
        return delete_image(catalog, entry.image, principal)
    return force_out(catalog, entry.location)


def delete_image(catalog: Catalog, image: Image, principal: Principal) -> list[LeftBehind]:
    """Delete an image with all its copies for good, even if their stores refuse.

    Returns the data that stays in stores.  Raises Protected, Conflict.
    """
    if image.protected:
        raise Protected(image.name)
    if image.status in IN_PROGRESS:
        raise Conflict(image.name, "is being uploaded")
    if image.status is not Status.PENDING_DELETE:
        with catalog.write() as repository:
            repository.change_status(
                image.number,
                Status.PENDING_DELETE,
                deleted_at=now(),
                deleted_by=principal.name,
                status_before_delete=image.status,
            )
    return purge(catalog, catalog.image(image.number), force=True)


def forget_store(catalog: Catalog, name: str, principal: Principal, *, force: bool) -> GoneStore:
    """Forget a store that is not configured any more, with all its rows.

    With `force` images without another copy are forgotten, too.  The store's data is not touched.
    Raises Conflict if it is configured or has the only copy of an image, NotFound if it is
    unknown.
    """
    if name in catalog.stores:
        raise Conflict(name, "is configured: take its section out of the configuration first")
    store = next((each for each in gone_stores(catalog) if each.name == name), None)
    if store is None:
        raise NotFound(name, "the catalog knows of no images in such a store")
    if store.only_there and not force:
        told = f"has {store.only_there} images that are nowhere else: --force forgets them too"
        raise Conflict(name, f"{told} ('imagefs list /{name}' names them)")
    for location in catalog.all_locations(name):
        if _elsewhere(catalog, location):
            copies.drop_copy(catalog, location)
        else:
            _forget_image(catalog, location, principal)
    return store


def _forget_image(catalog: Catalog, location: Location, principal: Principal) -> None:
    image = catalog.image(location.image)
    if image.status is Status.DELETED:
        copies.drop_copy(catalog, location)
    elif image.status in IN_PROGRESS:
        uploads.fail_upload(catalog, image.number, f"store {location.store} was forgotten")
        delete_image(catalog, catalog.image(image.number), principal)
    else:
        if image.protected:
            with catalog.write() as repository:
                repository.set_image(image.number, protected=False)
        delete_image(catalog, catalog.image(image.number), principal)
    with catalog.write() as repository:
        repository.drop_wanted(image.number, location.store)


def _elsewhere(catalog: Catalog, location: Location) -> bool:
    """Whether the image has a complete copy in another store that is configured."""
    with catalog.read() as repository:
        return any(
            other.store in catalog.stores and other.state is LocationState.ACTIVE
            for other in repository.locations_of(location.image)
            if other.number != location.number
        )
