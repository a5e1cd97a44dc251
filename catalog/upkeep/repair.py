"""Writes a damaged copy again, from chunks that are right in any copy.

It never writes in place: the whole object is written again and replaces the old one in one step.
Until then the copy is marked as damaged, and its right chunks are used like those of any other
copy.  Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from catalog.catalog import Catalog
from catalog.copies.progress import Progress, no_progress
from catalog.copies.replicate import transfer
from catalog.copies.unfinished import recover_if_dead
from catalog.errors import CatalogError, Conflict, NotFound, NotSupported
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import HAS_DATA
from catalog.model.tree import Location, LocationState
from catalog.process import this_process
from catalog.stores.base import Capability
from catalog.upkeep.verify import Verdict, Verified, verify, verify_copy


def verify_and_repair(
    catalog: Catalog, image: Image, principal: Principal, *, progress: Progress = no_progress
) -> Iterator[Verified]:
    """As `verify`; damaged or missing copies are written again from good ones.

    If that is not possible the result has the reason.  Raises Forbidden, Deactivated.
    """
    access.check_change(principal, image)
    for verified in verify(catalog, image, principal, progress=progress):
        if verified.is_bad and verified.verdict is not Verdict.REFUSED:
            yield _repaired(catalog, image, verified, progress)
        else:
            yield verified


def _repaired(catalog: Catalog, image: Image, verified: Verified, progress: Progress) -> Verified:
    try:
        location = _location(catalog, image, verified.store)
        if verified.verdict is Verdict.UNREADABLE and not _is_missing(catalog, location):
            return verified
        repair(catalog, image, location, progress)
        with catalog.read() as repository:
            chunks = repository.chunk_digests(image.number)
        again = verify_copy(catalog, image, _location(catalog, image, verified.store), chunks)
    except CatalogError as error:
        return replace(verified, detail=_joined(verified.detail, f"not repaired: {error}"))
    if again.is_bad:
        return replace(again, detail=_joined(again.detail, "it was written anew, to no avail"))
    return replace(verified, verdict=Verdict.REPAIRED)


def repair(
    catalog: Catalog, image: Image, location: Location, progress: Progress = no_progress
) -> None:
    """Write one copy of an image again.  It stays marked as damaged until it was read back.

    Raises DataDamaged if no copy has a chunk right, NotSupported if we may not write to the
    store or the image has no digests, Conflict if the image is being worked on, StoreFull,
    StoreUnavailable.
    """
    store = catalog.store(location.store)
    if Capability.WRITE not in store.capabilities or Capability.EXTERNAL in store.capabilities:
        raise NotSupported(location.store, "is not ours to write to")
    _begin(catalog, image, location)
    try:
        url = transfer(catalog, image, store, image.id, progress)
    except BaseException:
        with suppress(CatalogError), catalog.write() as repository:
            repository.drop_upload(image.number)
        raise
    with catalog.write() as repository:
        # An adopted copy may have had another url.  The data there is not removed: both urls may
        # name the same object.  If they do not, fsck finds it.
        repository.set_location(location.number, LocationState.ACTIVE, url)
        repository.drop_upload(image.number)


def _begin(catalog: Catalog, image: Image, location: Location) -> None:
    """Add a row of `uploads` for this work.

    Because of it only one process works on the image, and recovery finds what it leaves.
    """
    recover_if_dead(catalog, image)
    at = now()
    with catalog.write() as repository:
        if repository.chunk_digests(image.number) is None:
            raise NotSupported(image.name, "has no digests: nothing tells what is right")
        if repository.image(image.number).status not in HAS_DATA:
            raise Conflict(image.name, "is no longer active")
        if location not in repository.locations_of(image.number):
            raise Conflict(image.name, f"its copy in store {location.store} has just changed")
        if repository.upload(image.number) is not None:
            raise Conflict(image.name, "is being copied or repaired already")
        repository.add_upload(UploadRecord(image.number, this_process(), "", at, at))
        repository.mark_damaged(location.number)


def _location(catalog: Catalog, image: Image, store: str) -> Location:
    with catalog.read() as repository:
        for location in repository.locations_of(image.number):
            if location.store == store and location.state is LocationState.ACTIVE:
                return location
    raise Conflict(image.name, f"its copy in store {store} has just gone")


def _is_missing(catalog: Catalog, location: Location) -> bool:
    assert location.url is not None
    try:
        catalog.store(location.store).stat(location.url)
    except NotFound:
        return True
    except CatalogError:
        return False
    return False


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
