"""Deleting images in the trash, and continuing unfinished deletions.

Data is removed before its row.  A crash in between leaves a row that says what is still to be
done, and never data that no row refers to.
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

    With `force`, delete it even if a store does not remove its copy; such copies are
    returned.  Raises Conflict when it is in use or being copied, InvalidTransition unless
    it is in the trash, and the store's error.  After an error the image is in the trash as
    before.
    """
    check_unused(catalog, image)
    recover_if_dead(catalog, image)
    left = remove_image(catalog, image, force=force)
    catalog.cache.forget(image.id)
    catalog.reserve.keep()  # what was deleted may have made room again
    return left


def restore(catalog: Catalog, image: Image) -> None:
    """Make sure that an image in the trash still has its data, before it is restored.

    Raises NotFound if its data was deleted, Conflict while another process deletes it, and
    StoreUnavailable if its deletion began and the store does not answer.
    """
    recover_if_dead(catalog, image)
    settle(catalog, image)


def finish_deletions(catalog: Catalog) -> None:
    """Continue the deletions that earlier processes have begun, as far as the stores allow."""
    with catalog.read() as repository:
        locations = repository.locations_in_state(LocationState.DELETING)
    delete_detached(catalog, [each for each in locations if each.folder is None])
    for location in locations:
        if location.folder is not None:
            # A copy that cannot be removed now keeps its mark for the next time, or is
            # active again as before.
            with suppress(CatalogError):
                finish_deletion(catalog, location)


def finish_deletion(catalog: Catalog, location: Location) -> None:
    """Continue one removal.  Raises Conflict, and the store's error."""
    image = catalog.image(location.image)
    if image.status is Status.PENDING_DELETE:
        purge(catalog, image)
    elif location.folder is None:
        delete_data(catalog, location)
    else:
        whole_copy_elsewhere(catalog, image, location)
        remove_marked(catalog, location)
