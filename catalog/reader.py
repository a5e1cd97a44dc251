"""Reading an image's data from whichever of its copies answers.

Users: `vfs`, `verify`, `replicate`.  Threading: a reader may be used by several threads.
"""

from __future__ import annotations

from catalog import access
from catalog.access import Principal
from catalog.catalog import Catalog
from catalog.errors import Conflict, ImageKilled, NotFound, StoreUnavailable
from catalog.image import Image, LocationState
from catalog.status import IN_PROGRESS, Status
from catalog.stores.base import DataReader


def open_image(catalog: Catalog, number: int, principal: Principal) -> DataReader:
    """Open an image's data to read.

    Raises NotFound, Forbidden, Deactivated, ImageKilled, Conflict (not saved yet),
    StoreUnavailable when no copy can be opened.
    """
    with catalog.read() as repository:
        image = repository.image(number)
        locations = repository.locations_of(number)
        members = repository.members_of(image)
    access.check_read_data(principal, image, members)
    _check_has_data(image)
    failure: Exception | None = None
    for location in locations:
        if location.state is LocationState.ACTIVE and location.url is not None:
            try:
                return catalog.store(location.store).open(location.url)
            except (NotFound, StoreUnavailable) as error:
                failure = error
    raise StoreUnavailable(image.name, f"no copy can be read: {failure}") from failure


def _check_has_data(image: Image) -> None:
    status = image.status
    if status is Status.PENDING_DELETE and image.status_before_delete is not None:
        status = image.status_before_delete
    if status is Status.KILLED:
        raise ImageKilled(image.name, image.message)
    if status in IN_PROGRESS:
        raise Conflict(image.name, "is still being uploaded")
    if status is Status.QUEUED:
        raise Conflict(image.name, "has no data yet")
