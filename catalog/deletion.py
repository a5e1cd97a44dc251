"""Removing data for good: purge, scrub, recovery.

Data is removed before its row: a crash in between leaves a row that says what is still to be
done, never data that nothing refers to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from catalog import presence, replacing
from catalog.catalog import Catalog
from catalog.errors import CatalogError, Conflict
from catalog.model import names
from catalog.model.access import ADMIN
from catalog.model.activity import UploadRecord
from catalog.model.image import Image, now
from catalog.model.listings import ImageFilter
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import Location, LocationState, Place
from catalog.notice import Notice
from catalog.paging import all_images
from catalog.process import is_gone
from catalog.removal import (
    LeftBehind,
    delete_data,
    delete_detached,
    remove_image,
    remove_marked,
    settle,
    whole_copy_elsewhere,
)
from catalog.stores.base import Capability, Store
from catalog.uses import check_unneeded, check_unused

ABANDONED_AFTER = timedelta(days=1)
"""When an unfinished upload with a temporary name is given up
(docs/semantics.md#temporary-names)."""
KEEP_ROWS = timedelta(days=1)
"""How long the rows of deleted images, and old changes, stay."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """One image the scrubber has dealt with, or would."""

    image: Image
    problem: CatalogError | None = None
    """Why it stays for now."""
    left: tuple[LeftBehind, ...] = ()
    """What stores have not removed, of an image that is deleted all the same."""


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


def scrub(catalog: Catalog, *, dry_run: bool = False, force: bool = False) -> Iterator[Scrubbed]:
    """Purge what has been in the trash for `scrub_time`, and forget old rows.

    What is in use, or was lately, stays, each with its reason; a failure on one does not
    stop the others.  With `force` the catalog forgets what a store does not remove.
    """
    before = now() - timedelta(seconds=catalog.settings.scrub_time)
    wanted = ImageFilter(statuses=frozenset({Status.PENDING_DELETE}), before=before)
    for image in all_images(catalog, wanted):
        left: list[LeftBehind] = []
        try:
            check_unused(catalog, image)
            check_unneeded(catalog, image)
            _check_not_needed(catalog, image)
            if not dry_run:
                left = purge(catalog, image, force=force)
        except CatalogError as error:
            yield Scrubbed(image, error)
        else:
            yield Scrubbed(image, left=tuple(left))
    if not dry_run:
        give_up_abandoned(catalog)
        finish_deletions(catalog)
        presence.trim(catalog, now() - KEEP_ROWS)


def _check_not_needed(catalog: Catalog, image: Image) -> None:
    """Raise Conflict for what comes back if the image in its place is not completed."""
    with catalog.read() as repository:
        if repository.is_needed(image.number):
            raise Conflict(image.name, "is kept until the image in its place is complete")


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


def give_up_abandoned(catalog: Catalog) -> None:
    """Kill uploads nobody has worked on for a day, and drop what they leave behind.

    That is what has a temporary name: an image's own name keeps its killed image, which
    tells why.  One that was given the name of a deleted image and never written makes way
    for that.
    """
    with catalog.read() as repository:
        records = repository.uploads()
    for record in records:
        if now() - record.heartbeat_at > ABANDONED_AFTER:
            _give_up(catalog, record, "the upload was abandoned")
    with catalog.write() as repository:
        for number in repository.never_written(now() - ABANDONED_AFTER):
            replacing.give_back(repository, number, "it was never written")
    left = ImageFilter(statuses=frozenset({Status.KILLED, Status.QUEUED}))
    for image in all_images(catalog, left):
        if now() - image.updated_at <= ABANDONED_AFTER:
            continue
        with catalog.read() as repository:
            entries = repository.entries_of(image.number)
        for entry in entries:  # none, if its store is no longer configured
            if names.is_temporary(entry.name):
                catalog.remove(Place(entry.folder, entry.name), ADMIN)


def recover_if_dead(catalog: Catalog, image: Image) -> None:
    """Clean up first if what works on an image according to its record is gone."""
    with catalog.read() as repository:
        record = repository.upload(image.number)
    if record is not None and is_gone(record.process):
        _give_up(catalog, record, _is_gone(record))


def recover(catalog: Catalog) -> list[Image]:
    """Clean up after processes of this host that died; return the images it killed.

    What they were uploading becomes `killed` with the reason, what they had staged is
    removed, copies they were making are dropped, unless whoever copies again can go on
    with them; those stay for a day.  Committed data is never touched.
    """
    return _recover(catalog, lambda record: not _can_go_on(catalog, record))


def give_up_dead(catalog: Catalog) -> list[Image]:
    """As `recover`; nothing is left to go on with."""
    return _recover(catalog, lambda _record: True)


def _recover(catalog: Catalog, is_lost: Callable[[UploadRecord], bool]) -> list[Image]:
    with catalog.read() as repository:
        records = repository.uploads()
        holders = repository.lease_holders()
    killed = []
    for record in records:
        if is_gone(record.process) and is_lost(record):
            killed += _give_up(catalog, record, _is_gone(record))
    for process, _heartbeat_at in holders:
        if is_gone(process):
            presence.drop_leases(catalog, process)
    finish_deletions(catalog)
    return killed


def _is_gone(record: UploadRecord) -> str:
    who = f"pid {record.process.pid} on {record.process.host}"
    return f"the process that uploaded it ({who}) is gone"


def _can_go_on(catalog: Catalog, record: UploadRecord) -> bool:
    """Whether it is a copy that another process can go on with; that is told."""
    with catalog.read() as repository:
        image = repository.image(record.image)
        locations = repository.locations_of(record.image)
    if image.status not in HAS_DATA or now() - record.heartbeat_at > ABANDONED_AFTER:
        return False
    for location in locations:
        store = catalog.stores.get(location.store)
        is_pending = location.state is LocationState.PENDING and store is not None
        if is_pending and Capability.RESUME in catalog.store(location.store).capabilities:
            Notice(catalog, image, location.store).fail("it was cut off, and goes on if repeated")
            return True
    return False


def _give_up(catalog: Catalog, record: UploadRecord, reason: str) -> list[Image]:
    """Clean up after one upload or copy; return the image if that killed it."""
    with catalog.read() as repository:
        image = repository.image(record.image)
        locations = repository.locations_of(record.image)
    pending = [place for place in locations if place.state is LocationState.PENDING]
    killed = image.status in IN_PROGRESS
    try:
        if record.staged:
            Path(record.staged).unlink(missing_ok=True)
        for location in locations:
            # Of a pending one, and of one that was being repaired.
            if location.store in catalog.stores:
                _clear_staging(catalog.stores[location.store], image.id)
        for location in pending:
            store = catalog.store(location.store)
            if killed:
                store.delete(store.url_of(image.id))
            else:
                delete_data(catalog, location)
    except (CatalogError, OSError):
        return []  # its record stays, for the next time
    for location in [] if killed else pending:
        Notice(catalog, image, location.store).fail("it was cut off")
    # The record goes last: a crash in between leaves it to be found again.
    catalog.fail_upload(image.number, reason)
    return [image] if killed else []


def _clear_staging(store: Store, image_id: str) -> None:
    """Remove what a store's writer had staged: an image has one upload at a time."""
    folder = store.staging_folder()
    for file in folder.glob(f"{image_id}.*") if folder is not None else ():
        file.unlink(missing_ok=True)
