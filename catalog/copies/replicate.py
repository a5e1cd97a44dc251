"""Copying an image's data to another store, verified on the way (`ln`, `mv`, `replicate`).

Until the copy is complete its row is pending: nobody reads the copy, and no entry shows it.  An
unfinished copy is cleaned up by `recovery.recover`, at the latest before the image is copied
again.
"""

from __future__ import annotations

import logging
from contextlib import closing, suppress

from catalog.cache.chunks import Chunks
from catalog.catalog import Catalog
from catalog.copies.locations import complete_locations
from catalog.copies.progress import Notice, Progress, no_progress
from catalog.copies.removal import delete_data, let_go
from catalog.copies.stream import compare, read_intact
from catalog.copies.unfinished import recover_if_dead
from catalog.errors import CatalogError, Conflict, DataDamaged, NotFound, StoreUnavailable
from catalog.model.access import Principal
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.image import ChunkDigests, Image
from catalog.model.status import HAS_DATA
from catalog.model.tree import Location, LocationState, Place
from catalog.process import this_process
from catalog.rules import copies, presence
from catalog.stores.base import Capability, DataWriter, Reaching, Resuming, Store

_log = logging.getLogger(__name__)


def replicate(
    catalog: Catalog,
    image: Image,
    store: str,
    place: Place | None,
    principal: Principal,
    *,
    progress: Progress = no_progress,
    replace: bool = False,
    instead_of: Place | None = None,
) -> None:
    """Copy an image to `store`; unless `place` is None, the copy becomes that entry.

    If the store has a copy without a name already, that copy gets the name.  `instead_of`
    is the entry of the copy to drop in the same transaction (a move).  The image's message
    shows the progress, or why the copy failed.  Raises DataDamaged, AlreadyExists,
    Conflict, Forbidden, StoreFull, StoreUnavailable.
    """
    target = catalog.store(store)
    unnamed = None if place is None else _unnamed(catalog, image, target)
    if unnamed is not None:
        url = str(unnamed.url)
        gave_way = copies.finish_copy(
            catalog, unnamed, url, place, principal, replace=replace, instead_of=instead_of
        )
        let_go(catalog, gave_way)
        return
    location = _begin(catalog, image, target)
    notice = Notice(catalog, image, store)

    def copied(size: int) -> None:
        notice.advance(size)
        progress(size)

    try:
        url = transfer(catalog, image, target, image.id, copied)
        gave_way = copies.finish_copy(
            catalog, location, url, place, principal, replace=replace, instead_of=instead_of
        )
    except BaseException as error:
        _take_back(catalog, location)
        if isinstance(error, CatalogError):
            notice.fail(error)
        else:
            notice.end()
        raise
    notice.end()
    let_go(catalog, gave_way)


def transfer(
    catalog: Catalog, image: Image, target: Store, key: str, progress: Progress = no_progress
) -> str:
    """Put an image's data into a store under a key; return its url there.

    If the target's server can reach another copy, the server copies it itself, and the new
    copy is read back and compared.  Otherwise the data passes through this process, which
    verifies each chunk before it writes it.  Raises as `replicate`.
    """
    source = _on_server(catalog, image, target)
    if source is not None:
        try:
            url = target.copy(source, key)
            compare(catalog, image, target, url, lambda: progress(0))
        except (NotFound, StoreUnavailable, DataDamaged) as error:
            _log.info("%s: %s does not copy it by itself: %s", image.id, target.name, error)
        else:
            progress(image.size)
            return url
    writer, have = _writer(catalog, image, target, key)
    try:
        if have:
            progress(have)
        with closing(read_intact(catalog, image, have)) as blocks:
            for data in blocks:
                writer.write(data)
                progress(len(data))
        return writer.commit()
    finally:
        writer.cancel()


def _writer(catalog: Catalog, image: Image, target: Store, key: str) -> tuple[DataWriter, int]:
    """A writer, and how many bytes the store has already, of an unfinished copy."""
    digests = _digests_to_go_on(catalog, image, target)
    if digests is None or not isinstance(target, Resuming):
        return target.writer(key, image.size), 0
    chunks = Chunks(image.id, image.size, digests)
    return target.resume(key, image.size, digests.chunk_size, chunks.is_good)


def _digests_to_go_on(catalog: Catalog, image: Image, target: Store) -> ChunkDigests | None:
    """The digests that show how much of an unfinished copy is right; None: begin anew."""
    if Capability.RESUME not in target.capabilities:
        return None
    with catalog.read() as repository:
        return repository.chunk_digests(image.number)


def _unnamed(catalog: Catalog, image: Image, target: Store) -> Location | None:
    """The store's complete copy without a name, or None.  Raises Conflict if it is damaged."""
    with catalog.read() as repository:
        damaged = repository.damaged(image.number)
        locations = complete_locations(catalog, repository, image.number)
    for location in locations:
        if location.store == target.name and location.folder is None:
            if location.number in damaged or not _is_whole(target, location, image):
                told = f"its copy in store {target.name} is damaged: 'imagefs verify --repair'"
                raise Conflict(image.name, told)
            return location
    return None


def _is_whole(target: Store, location: Location, image: Image) -> bool:
    try:
        return target.stat(str(location.url)).size == image.size
    except NotFound:
        return False


def _begin(catalog: Catalog, image: Image, target: Store) -> Location:
    """Record a copy that is about to be made; an unfinished copy's row is used again."""
    left = _take_over(catalog, image, target.name)
    if left is None:
        recover_if_dead(catalog, image)
        return copies.start_copy(catalog, image.number, target.name, this_process())
    try:
        is_by_server = _on_server(catalog, image, target) is not None
        if is_by_server or _digests_to_go_on(catalog, image, target) is None:
            # The copy begins anew, so remove what the store has: parts that a writer left, or
            # whole data of a copy whose row was never completed.
            target.delete(target.url_of(image.id))
    except BaseException:
        _forget_work(catalog, image.number)
        raise
    return left


def _take_over(catalog: Catalog, image: Image, store: str) -> Location | None:
    """Take over the row of an unfinished copy to that store, whose process ended or gave up."""
    at = now()
    with catalog.write() as repository:
        is_worked_on = presence.has_worker(repository, image.number)
        if is_worked_on or repository.image(image.number).status not in HAS_DATA:
            return None
        for location in repository.locations_of(image.number):
            if location.store == store and location.state is LocationState.PENDING:
                repository.add_upload(UploadRecord(image.number, this_process(), "", at, at))
                return location
    return None


def _take_back(catalog: Catalog, location: Location) -> None:
    """Remove a copy that was not completed.

    A completed copy stays: a signal can raise between the catalog's commit and our return,
    and after a move the new copy is the only one.
    """
    with catalog.read() as repository:
        fresh = [x for x in repository.locations_of(location.image) if x.number == location.number]
        record = repository.upload(location.image)
    if record is not None and record.process != this_process():
        return  # this copy was aborted, and another process goes on with it
    if not fresh or fresh[0].state is not LocationState.PENDING:
        return
    try:
        delete_data(catalog, location)
    except CatalogError:
        # The store does not answer: the row stays, for the next copy or for fsck.
        _forget_work(catalog, location.image)


def _forget_work(catalog: Catalog, number: int) -> None:
    with suppress(CatalogError), catalog.write() as repository:
        repository.drop_upload(number)


def _on_server(catalog: Catalog, image: Image, target: Store) -> str | None:
    """The url of an undamaged copy that the target's server can copy by itself, or None."""
    if Capability.COPY not in target.capabilities or not isinstance(target, Reaching):
        return None
    with catalog.read() as repository:
        damaged = repository.damaged(image.number)
        locations = complete_locations(catalog, repository, image.number)
    for location in locations:
        url = str(location.url)
        is_other = location.store != target.name and location.number not in damaged
        if is_other and target.reaches(url):
            return url
    return None
