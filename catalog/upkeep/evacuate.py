"""Takes every image out of a store, before it is switched off or because it is full.

An image whose only copy is there is first copied to another store and verified.  An image with
another copy only loses this one; if this copy has the image's only name, another copy gets it.  At
every moment there is a complete copy, so that this may be interrupted at any point; when it is
started again it goes on.  Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum

from catalog.catalog import Catalog
from catalog.copies.locations import complete_locations
from catalog.copies.progress import Progress, no_progress
from catalog.copies.purge import finish_deletion
from catalog.copies.removal import check_answers, remove_marked
from catalog.copies.replicate import replicate
from catalog.copies.uses import check_unused
from catalog.errors import CatalogError, Conflict
from catalog.model.access import ADMIN
from catalog.model.image import Image
from catalog.model.status import HAS_DATA, Status
from catalog.model.tree import Entry, Location, LocationState
from catalog.repository.database import Repository
from catalog.rules.placement import same_place
from catalog.stores.base import Capability


class EvacuationResult(StrEnum):
    """The result for one image's copy."""

    MOVED = "moved"
    """It was the only copy, and is in the other store now."""
    DROPPED = "dropped"
    """It was removed, as the image has another copy."""
    SPARED = "spared"
    """It stays, as the image is in use or has no data that could be copied: see the reason."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Evacuated:
    """One image that had a copy in the store."""

    image: Image
    outcome: EvacuationResult
    problem: CatalogError | None = None
    """Why it is still there."""


Shown = Callable[[Image], AbstractContextManager[Progress]]
"""Shows the progress of one image's copy."""


def no_show(_image: Image) -> AbstractContextManager[Progress]:
    """Show no progress."""
    return nullcontext(no_progress)


def evacuate(
    catalog: Catalog, store: str, to: str, *, show: Shown = no_show
) -> Iterator[Evacuated]:
    """Take each image out of `store`; images without another copy are copied to `to`.

    A failure on one does not stop the others.  Raises NotFound for a store that is not
    configured.
    """
    catalog.store(store)
    catalog.store(to)
    for location in catalog.all_locations(store):
        image = catalog.image(location.image)
        if location.state is LocationState.DELETING:
            yield _finish(catalog, image, location)
        else:
            yield _evacuate(catalog, image, location, to, show)


def _evacuate(
    catalog: Catalog, image: Image, location: Location, to: str, show: Shown
) -> Evacuated:
    if reason := _unmovable(catalog, image, location):
        return Evacuated(image, EvacuationResult.SPARED, Conflict(image.name, reason))
    outcome = EvacuationResult.DROPPED
    try:
        check_unused(catalog, image)
        other = _other_copy(catalog, image, location)
        if other is None:
            outcome = EvacuationResult.MOVED
        if other is None or _is_last_name(catalog, location):
            into = to if other is None else other.store
            place = None
            if location.folder is not None:
                place = same_place(catalog, Entry(location, image), into)
            with show(image) as progress:
                replicate(catalog, image, into, place, ADMIN, progress=progress)
        _drop(catalog, image, location)
    except Conflict as error:
        return Evacuated(image, EvacuationResult.SPARED, error)
    except CatalogError as error:
        return Evacuated(image, EvacuationResult.FAILED, error)
    return Evacuated(image, outcome)


def _finish(catalog: Catalog, image: Image, location: Location) -> Evacuated:
    """Continue a removal that any process has begun."""
    try:
        finish_deletion(catalog, location)
    except CatalogError as error:
        return Evacuated(image, EvacuationResult.FAILED, error)
    return Evacuated(image, EvacuationResult.DROPPED)


def _unmovable(catalog: Catalog, image: Image, location: Location) -> str:
    """Why a copy has to stay for now; empty if it may go."""
    if image.status is Status.PENDING_DELETE:
        return "is in the trash: restore it or delete it for good"
    if image.status not in HAS_DATA:
        return f"is {image.status}: only an active image is copied"
    if location.state is not LocationState.ACTIVE:
        return "is being copied to this store"
    with catalog.read() as repository:
        if repository.chunk_digests(image.number) is None:
            return "has no digests yet: 'imagefs verify' records them"
    return ""


def _is_last_name(catalog: Catalog, location: Location) -> bool:
    """Whether this copy has the image's only name."""
    with catalog.read() as repository:
        entries = repository.entries_of(location.image)
    return [entry.location.number for entry in entries] == [location.number]


def _other_copy(catalog: Catalog, image: Image, location: Location) -> Location | None:
    """A complete copy elsewhere that its store has now, in full size; None if there is none."""
    with catalog.read() as repository:
        others = _undamaged(repository, catalog, location)
    for other in others:
        try:
            if catalog.store(other.store).stat(str(other.url)).size == image.size:
                return other
        except CatalogError:
            continue
    return None


def _undamaged(repository: Repository, catalog: Catalog, location: Location) -> list[Location]:
    """The other complete copies that are not known to be damaged, and whose data is ours."""
    damaged = repository.damaged(location.image)
    return [
        other
        for other in complete_locations(catalog, repository, location.image)
        if other.number != location.number
        and other.number not in damaged
        and Capability.EXTERNAL not in catalog.stores[other.store].capabilities
    ]


def _drop(catalog: Catalog, image: Image, location: Location) -> None:
    """Take a copy out of the tree, and remove its data.

    Raises Conflict if it is in use or is the only one after all, and the error of a store that
    does not remove it; then everything is as before.
    """
    check_unused(catalog, image)
    check_answers(catalog, location)
    kept = _other_copy(catalog, image, location)
    with catalog.write() as repository:
        there = repository.locations_of(image.number)
        if kept is None or kept not in there or location not in there:
            raise Conflict(image.name, "its copies have just changed")
        repository.set_location(location.number, LocationState.DELETING, location.url)
    remove_marked(catalog, replace(location, state=LocationState.DELETING))
