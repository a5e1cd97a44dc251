"""The complete copies of an image, and which of them are known to be damaged.

Scope: rows; whoever reads a copy finds out whether it is damaged.  Threading: any thread.
"""

from __future__ import annotations

from catalog.cache.sources import Copy
from catalog.catalog import Catalog
from catalog.model.image import Image
from catalog.model.tree import Location, LocationState
from catalog.repository.database import Repository


def complete_locations(catalog: Catalog, repository: Repository, number: int) -> list[Location]:
    """The complete copies of an image, in stores that are configured."""
    return [
        location
        for location in repository.locations_of(number)
        if location.state is LocationState.ACTIVE
        and location.url is not None
        and location.store in catalog.stores
    ]


def copies_to_read(catalog: Catalog, repository: Repository, number: int) -> list[Copy]:
    """The complete copies of an image, as readers need them."""
    damaged = repository.damaged(number)
    return [
        Copy(catalog.stores[location.store], str(location.url), location.number in damaged)
        for location in complete_locations(catalog, repository, number)
    ]


def report_damage(catalog: Catalog, image: Image, bad: Copy) -> None:
    """Note that a copy has bytes that do not match their digests, if it is still there."""
    if catalog.reads_only:
        return
    with catalog.write() as repository:
        for location in repository.locations_of(image.number):
            if (location.store, location.url) == (bad.store.name, bad.url):
                repository.mark_damaged(location.number)


def set_damaged(catalog: Catalog, location: Location, is_damaged: bool) -> None:
    """Note whether a copy is damaged, if that is new and the copy is still the same."""
    with catalog.read() as repository:
        if (location.number in repository.damaged(location.image)) is is_damaged:
            return
    with catalog.write() as repository:
        if location not in repository.locations_of(location.image):
            return
        if is_damaged:
            repository.mark_damaged(location.number)
        else:
            repository.clear_damaged(location.number, location.image)
