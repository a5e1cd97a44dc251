"""Removes data for good: the store is asked before the catalog forgets anything.

While a store is asked, the copy's row has the state `deleting`, and the entry keeps its name.  If
the store refuses, the row gets its old state back.  If no answer comes, nobody knows whether the
data is still there, and the row stays marked.  A later removal asks again, and a restore finds out
by `settle`.  Threading: any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from catalog.catalog import Catalog
from catalog.copies import uses
from catalog.errors import (
    CatalogError,
    CatalogUnavailable,
    Conflict,
    Forbidden,
    InvalidTransition,
    NotFound,
    NotSupported,
    ReadOnlyStore,
    StoreRefused,
)
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import HAS_DATA, Status
from catalog.model.tree import Entry, Location, LocationState
from catalog.process import this_process
from catalog.repository.database import Repository
from catalog.repository.reserve import on_a_full_disk
from catalog.rules import copies
from catalog.rules.trash import DELETION_FAILED, GaveWay
from catalog.stores.base import Capability, Store

_log = logging.getLogger(__name__)

_ANSWERS = (StoreRefused, Conflict, Forbidden, NotSupported, ReadOnlyStore)
"""Errors of a store that has not removed anything.  After any other failure it may still do so."""
_LEFT = "data of it is still to be removed"


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Data that the catalog has forgotten, although its store has not removed it."""

    store: str
    url: str
    reason: CatalogError

    def __str__(self) -> str:
        return f"{self.url or 'its data'} is left in store {self.store}: {self.reason}"


# -- one copy --------------------------------------------------------------------------


def delete_data(catalog: Catalog, location: Location) -> None:
    """Let a copy's store remove its data, then forget the copy.

    For copies that nobody relies on any more.  Raises StoreUnavailable, Conflict.
    """
    _ask(catalog, location)
    copies.drop_copy(catalog, location)


def delete_detached(catalog: Catalog, locations: Iterable[Location]) -> None:
    """Remove the data of copies that were taken out of the tree, as far as their stores allow it.

    If a store does not, the row stays for the next attempt, and the image's message says so.
    """
    for location in locations:
        try:
            delete_data(catalog, location)
        except CatalogError as error:
            _log.info("store %s has not removed data yet: %s", location.store, error)
            _tell(catalog, location.image, f"{_LEFT} in store {location.store}: {error}")
        else:
            _tell(catalog, location.image, "", instead_of=f"{_LEFT} in store {location.store}")


def let_go(catalog: Catalog, gave_way: GaveWay) -> None:
    """Remove the copies of a replaced image, and warn in the log if the image is in use."""
    if gave_way.trashed is not None:
        uses.warn(catalog, gave_way.trashed, gave_way.uses, uses.REPLACED)
    delete_detached(catalog, gave_way.dropped)


def clear_failed(store: Store, key: str) -> None:
    """Remove the data of a failed upload, if the store allows it.

    A failure here is only logged, as the upload has an error of its own.  The removal of the
    image from the trash, and fsck, will ask again.
    """
    try:
        store.delete(store.url_of(key))
    except CatalogError as error:
        _log.info("%s: store %s keeps what an upload left: %s", key, store.name, error)


def remove_marked(catalog: Catalog, location: Location) -> None:
    """Remove a copy that is marked `deleting`; take the mark back if its store refuses.

    Raises the store's error.
    """
    try:
        _ask(catalog, location)
    except CatalogError as error:
        if _is_kept(catalog, location, error):
            _put_back(catalog, [location])
        raise
    copies.drop_copy(catalog, location)


def force_out(catalog: Catalog, location: Location) -> list[LeftBehind]:
    """Let a copy's store remove it, and forget the copy even if the store does not.

    Returns the data that is left.  Only for an image with other copies.  Raises
    CatalogUnavailable.
    """
    try:
        delete_data(catalog, location)
    except CatalogUnavailable:
        raise
    except CatalogError as error:
        copies.drop_copy(catalog, location)
        return [LeftBehind(location.store, location.url or "", error)]
    return []


def check_droppable(catalog: Catalog, entry: Entry) -> None:
    """Check that one of several copies may be removed, before anything is changed.

    Raises StoreUnavailable if its store does not answer, Conflict if no other store has a
    complete copy now: the only copy that can be reached must not be removed.
    """
    with catalog.read() as repository:
        entries = repository.entries_of(entry.image.number)
    if len(entries) < 2:
        return
    check_answers(catalog, entry.location)
    whole_copy_elsewhere(catalog, entry.image, entry.location)


def whole_copy_elsewhere(catalog: Catalog, image: Image, location: Location) -> Location:
    """Another copy that its store has now, in full size.

    A copy that is known to be damaged is returned only if there is no other.  Raises Conflict,
    which names the stores that were asked.
    """
    with catalog.read() as repository:
        damaged = repository.damaged(image.number)
        others = [
            other
            for other in repository.locations_of(image.number)
            if other.number != location.number and other.state is LocationState.ACTIVE
        ]
    reasons = []
    for other in sorted(others, key=lambda other: other.number in damaged):
        try:
            found = catalog.store(other.store).stat(str(other.url)).size
        except NotFound as error:
            reasons.append(f"store {other.store}: {error.reason or 'its data is missing'}")
        except CatalogError as error:
            reasons.append(f"store {other.store}: {error}")
        else:
            if found == image.size:
                return other
            reasons.append(f"store {other.store}: it has {found} bytes instead of {image.size}")
    told = "; ".join(reasons) or "there is no other"
    raise Conflict(image.name, f"is the only complete copy that can be reached ({told})")


def _ask(catalog: Catalog, location: Location) -> None:
    """Let the store remove the data; the rows stay as they are."""
    store = catalog.store(location.store)
    if Capability.EXTERNAL in store.capabilities:
        return
    url = location.url
    store.delete(url if url is not None else store.url_of(catalog.image(location.image).id))


def check_answers(catalog: Catalog, location: Location) -> None:
    """Raise StoreUnavailable if a copy's store does not answer.  Called before any change."""
    store = catalog.store(location.store)
    if Capability.EXTERNAL not in store.capabilities:
        store.check()


def _is_kept(catalog: Catalog, location: Location, error: CatalogError) -> bool:
    """Whether it is certain that the store still has the data."""
    if location.store not in catalog.stores:
        return True
    is_answer = isinstance(error, _ANSWERS)
    return is_answer and (location.url is None or _is_there(catalog, location))


def _is_there(catalog: Catalog, location: Location) -> bool:
    """Whether the store has the data in full size.  False also if it does not answer."""
    try:
        found = catalog.store(location.store).stat(str(location.url))
        return found.size == catalog.image(location.image).size
    except CatalogUnavailable:
        raise
    except CatalogError:
        return False


@on_a_full_disk
def _put_back(catalog: Catalog, locations: Iterable[Location]) -> None:
    """Remove the mark `deleting` from copies that still have it."""
    with catalog.write() as repository:
        for location in locations:
            for fresh in repository.locations_of(location.image):
                if fresh.number == location.number and fresh.state is LocationState.DELETING:
                    _unmark(repository, fresh)


def _unmark(repository: Repository, location: Location) -> None:
    state = LocationState.PENDING if location.url is None else LocationState.ACTIVE
    repository.set_location(location.number, state, location.url)


def _tell(catalog: Catalog, number: int, message: str, *, instead_of: str = _LEFT) -> None:
    """Set or clear the message about data that is still to be removed, if the image has data.

    Other messages are not overwritten.
    """
    with suppress(CatalogError):
        image = catalog.image(number)
        if image.status not in HAS_DATA or (image.message and _LEFT not in image.message):
            return
        if message or image.message.startswith(instead_of):
            with catalog.write() as repository:
                repository.set_message(number, message)


# -- an image in the trash -------------------------------------------------------------


def remove_image(catalog: Catalog, image: Image, *, force: bool = False) -> list[LeftBehind]:
    """Remove every copy of an image in the trash, then the image itself.

    Its stores are asked first.  If one refuses, the image stays in the trash with the copies
    that it still has, and its message has the reason.  With `force` the catalog forgets data that
    a store does not remove; it is returned.  Raises InvalidTransition unless the image is in the
    trash, Conflict while it is being copied or deleted by another process, and a store's error.
    """
    if not force:
        _check_stores(catalog, image)
    marked = _mark(catalog, image)
    left: list[LeftBehind] = []
    try:
        # The copy with the name comes last: while any other copy is there, the image has its name.
        for index, location in enumerate(marked):
            try:
                _ask(catalog, location)
            except CatalogError as error:
                if not force or isinstance(error, CatalogUnavailable):
                    raise
                left.append(LeftBehind(location.store, location.url or "", error))
            if index < len(marked) - 1:
                copies.drop_copy(catalog, location)
    except CatalogError as error:
        _give_back(catalog, image, marked[index:], error)
        raise
    except BaseException:
        _forget_work(catalog, image.number)
        raise
    _finish(catalog, image, marked[-1:])
    return left


def settle(catalog: Catalog, image: Image) -> None:
    """Find out, for a restore, whether an image still has its data after an unfinished deletion.

    Raises NotFound if the data is gone, StoreUnavailable if its store does not answer, Conflict
    while another process deletes it.
    """
    with catalog.read() as repository:
        locations = repository.locations_of(image.number)
    if all(location.state is not LocationState.DELETING for location in locations):
        return
    marked = _mark(catalog, image)
    try:
        kept = [location for location in marked if _may_be_restored(catalog, location)]
        if not marked or marked[-1] not in kept:
            raise NotFound(image.name, "its data was deleted for good")
        _put_back(catalog, kept)
        for location in marked:
            if location not in kept:
                copies.drop_copy(catalog, location)
    finally:
        _forget_work(catalog, image.number)


def _may_be_restored(catalog: Catalog, location: Location) -> bool:
    """Whether a copy's data is still there, if it ever was.

    Raises StoreUnavailable, and NotFound if its store is not configured.
    """
    store = catalog.store(location.store)
    if location.url is None or Capability.EXTERNAL in store.capabilities:
        return True
    try:
        store.stat(location.url)
    except NotFound:
        return False
    return True


def _check_stores(catalog: Catalog, image: Image) -> None:
    with catalog.read() as repository:
        locations = repository.locations_of(image.number)
    try:
        for location in locations:
            check_answers(catalog, location)
    except CatalogUnavailable:
        raise
    except CatalogError as error:
        with catalog.write() as repository:
            _note_failure(repository, image.number, error)
        raise


@on_a_full_disk
def _mark(catalog: Catalog, image: Image) -> Sequence[Location]:
    """Mark all copies, and add a row of `uploads` for this work.

    Because of the row only one process works on the image, and recovery finds what it leaves.
    Returns the copies in the order of removal: those without a name first.
    """
    at = now()
    with catalog.write() as repository:
        locations = repository.locations_of(image.number)
        fresh = repository.image(image.number)
        if fresh.status is not Status.PENDING_DELETE:
            raise InvalidTransition(fresh.name, fresh.status, Status.DELETED)
        if repository.upload(image.number) is not None:
            raise Conflict(fresh.name, "is being copied or deleted")
        repository.add_upload(UploadRecord(image.number, this_process(), "", at, at))
        for location in locations:
            repository.set_location(location.number, LocationState.DELETING, location.url)
    marked = [replace(location, state=LocationState.DELETING) for location in locations]
    return sorted(marked, key=lambda location: location.folder is not None)


def _give_back(
    catalog: Catalog, image: Image, locations: Sequence[Location], error: CatalogError
) -> None:
    """End a removal that failed at the first of `locations`; the others were not touched."""
    failed, *others = locations
    kept = [failed, *others] if _is_kept(catalog, failed, error) else others
    with suppress(CatalogError):
        _put_back(catalog, kept)
        _end_work(catalog, image, error)


@on_a_full_disk
def _end_work(catalog: Catalog, image: Image, error: CatalogError) -> None:
    with catalog.write() as repository:
        repository.drop_upload(image.number)
        _note_failure(repository, image.number, error)


def _note_failure(repository: Repository, number: int, error: CatalogError) -> None:
    message = repository.image(number).message
    if not message or message.startswith(DELETION_FAILED):
        told = f"{DELETION_FAILED} on {now():%Y-%m-%d %H:%M} UTC: {error}"
        repository.set_image(number, message=told)


@on_a_full_disk
def _finish(catalog: Catalog, image: Image, last: Sequence[Location]) -> None:
    """pending_delete -> deleted, with the last copy's row, in one step."""
    with catalog.write() as repository:
        repository.change_status(image.number, Status.DELETED)
        for location in last:
            repository.drop_location(location)
        repository.drop_upload(image.number)


def _forget_work(catalog: Catalog, number: int) -> None:
    with suppress(CatalogError):
        _drop_work(catalog, number)


@on_a_full_disk
def _drop_work(catalog: Catalog, number: int) -> None:
    with catalog.write() as repository:
        repository.drop_upload(number)
