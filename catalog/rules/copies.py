"""Records the copies of images: begun, complete, dropped."""

from __future__ import annotations

import dataclasses

from catalog.catalog import Catalog
from catalog.errors import Conflict
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.activity import EventKind, UploadRecord
from catalog.model.clock import now
from catalog.model.status import HAS_DATA
from catalog.model.tree import Entry, Location, LocationState, Place
from catalog.process import Process, this_process
from catalog.repository.reserve import on_a_full_disk
from catalog.rules import placement
from catalog.rules.trash import GaveWay


def start_copy(catalog: Catalog, number: int, store: str, process: Process) -> Location:
    """Record a copy that is about to be made in a store; it is no entry yet.

    Raises NotFound, ReadOnlyStore, and Conflict if the image has no data, has a copy there
    already, or is being copied now.
    """
    at = now()
    with catalog.write() as repository:
        image = repository.image(number)
        if image.status not in HAS_DATA:
            raise Conflict(image.name, f"is {image.status}: only an active image is copied")
        placement.check_takes_data(catalog, store)
        if repository.upload(number) is not None:
            raise Conflict(image.name, "is being copied already")
        repository.add_upload(UploadRecord(number, process, "", at, at))
        return repository.add_location(number, store, None, None)


def finish_copy(
    catalog: Catalog,
    location: Location,
    url: str,
    place: Place | None,
    principal: Principal,
    *,
    replace: bool = False,
    instead_of: Place | None = None,
) -> GaveWay:
    """Record that a copy is complete; unless `place` is None, it becomes that entry.

    A copy that was complete before gets the name.  `instead_of` is the entry of another copy,
    which is removed in the same step and returned.  Raises as `rename`.
    """
    with catalog.write() as repository:
        image = repository.image(location.image)
        access.check_change(principal, image)
        if image.status not in HAS_DATA:
            raise Conflict(image.name, f"is {image.status} since")
        if location.state is LocationState.PENDING:
            record = repository.upload(location.image)
            if record is None or record.process != this_process():
                raise Conflict(image.name, "the copy was aborted")
            repository.drop_upload(location.image)
        repository.set_location(location.number, LocationState.ACTIVE, url)
        if location.state is LocationState.PENDING:
            repository.record(EventKind.COPIED, location.image, store=location.store)
        if place is None:
            repository.set_image(location.image)  # its `stores` have changed
            return GaveWay()
        entry = Entry(location, image)
        gave_way = placement.move(repository, entry, place, principal, replace=replace)
        if instead_of is not None:
            old = placement.entry_at(repository, instead_of).location
            if old.image != location.image:
                raise Conflict(instead_of.name, "is another image since")
            repository.detach_location(old)
            gave_way = dataclasses.replace(gave_way, dropped=(*gave_way.dropped, old))
        return gave_way


@on_a_full_disk
def drop_copy(catalog: Catalog, location: Location) -> None:
    """Drop the row of a copy that was not completed, or whose data is gone."""
    with catalog.write() as repository:
        repository.drop_location(location)
        if location.state is LocationState.PENDING:
            repository.drop_upload(location.image)
