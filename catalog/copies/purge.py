"""Deleting what is in the trash, and going on with deletions that were begun.

Data is removed before its row: a crash in between leaves a row that says what is still to be
done, never data that nothing refers to.
"""

from __future__ import annotations

from contextlib import suppress

from catalog.catalog import Catalog
from catalog.copies.removal import (
    LeftBehind,
    delete_data,
    delete_detached,
    remove_image,
    remove_marked,
    settle,
    whole_copy_elsewhere,
)
from catalog.copies.unfinished import recover_if_dead
from catalog.copies.uses import check_unused
from catalog.errors import CatalogError
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.model.tree import Location, LocationState


def purge(catalog: Catalog, image: Image, *, force: bool = False) -> list[LeftBehind]:
    """Delete an image in the trash now, with its data.

    With `force` also if a store does not remove its copy: that is returned.  Raises
    Conflict when it is in use or being copied, InvalidTransition unless it is in the trash,
    and what a store says: the image then is in the trash as before.
    """
    check_unused(catalog, image)
    recover_if_dead(catalog, image)
    left = remove_image(catalog, image, force=force)
    catalog.cache.forget(image.id)
    catalog.reserve.keep()  # what was deleted may have made room again
    return left


def restore(catalog: Catalog, image: Image) -> None:
    """Make sure that an image in the trash still has its data, before it is restored.

    Raises NotFound if that was deleted, Conflict while it is, StoreUnavailable if its
    deletion began and nobody can tell.
    """
    recover_if_dead(catalog, image)
    settle(catalog, image)


def finish_deletions(catalog: Catalog) -> None:
    """Go on with what an earlier process had begun to delete, as far as the stores let."""
    with catalog.read() as repository:
        locations = repository.locations_in_state(LocationState.DELETING)
    delete_detached(catalog, [each for each in locations if each.folder is None])
    for location in locations:
        if location.folder is not None:
            # What cannot be removed now keeps its mark, or is as it was before.
            with suppress(CatalogError):
                finish_deletion(catalog, location)


def finish_deletion(catalog: Catalog, location: Location) -> None:
    """Go on with one removal.  Raises Conflict, and what the store says."""
    image = catalog.image(location.image)
    if image.status is Status.PENDING_DELETE:
        purge(catalog, image)
    elif location.folder is None:
        delete_data(catalog, location)
    else:
        whole_copy_elsewhere(catalog, image, location)
        remove_marked(catalog, location)
