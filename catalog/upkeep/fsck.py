"""Finding, and repairing, differences between the catalog and its stores.

This is safe while mounts work on the same catalog.  A row is written before its data and removed
after it.  So each finding looks at the store first and reads the rows *later*: if they disagree
then, no other process is just in between.  Each repair checks once more in its own transaction.
A repair never deletes data that could be the only copy: it adopts the data or moves it to the
store's quarantine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

from catalog.catalog import Catalog
from catalog.copies.purge import finish_deletions
from catalog.copies.recovery import give_up_dead
from catalog.errors import (
    CatalogError,
    CatalogUnavailable,
    NotFound,
    NotSupported,
    StoreUnavailable,
)
from catalog.model.clock import now
from catalog.model.listings import ImageFilter
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import LocationState
from catalog.rules import presence, uploads
from catalog.rules.uploads import ABANDONED_AFTER
from catalog.stores.base import Store
from catalog.upkeep.findings import Finding, FindingKind, mend
from catalog.upkeep.scrub import give_up_abandoned
from catalog.upkeep.store_check import StoreCheck, batches, note

__all__ = ["Finding", "FindingKind", "fsck"]

STRAY_AFTER = timedelta(days=1)
"""How long a staging file that no upload names is left alone: an upload that has just begun may
name it soon."""


def fsck(catalog: Catalog, *, repair: bool) -> Iterator[Finding]:
    """Compare the catalog with its stores; with `repair`, also repair what is safe to repair.

    A store that does not answer is a finding.  A damaged database is a finding as well, and
    then the only kind: its rows are not compared with the stores.  Raises CatalogUnavailable.
    """
    damages = catalog.damages()
    if damages:
        advice = "stop all that uses it and restore a backup (README, Backup and restore)"
        for damage in damages:
            yield Finding(FindingKind.DATABASE_DAMAGED, "catalog", f"{damage}; {advice}")
        return
    yield from _dead_uploads(catalog, repair)
    yield from _unconfigured(catalog)
    for store in catalog.stores.values():
        yield from _store(catalog, store, repair)
    yield from _staging(catalog, catalog.settings.staging, "staging", repair)
    yield from _images(catalog, repair)
    yield from _deleting(catalog, repair)
    yield from _totals(catalog, repair)


def _store(catalog: Catalog, store: Store, repair: bool) -> Iterator[Finding]:
    """Examine a store in four parts; a part that fails does not stop the others."""
    check = StoreCheck(catalog, store, repair)
    try:
        store.check()
    except CatalogUnavailable:
        raise
    except CatalogError as error:
        yield Finding(FindingKind.STORE_UNAVAILABLE, store.name, error.beside(store.name))
        return
    for examine in (
        check.locations,
        check.data,
        partial(_unfinished, catalog, store, repair),
        partial(_own_staging, catalog, store, repair),
    ):
        try:
            yield from examine()
        except CatalogUnavailable:
            raise
        except NotSupported as error:
            yield Finding(FindingKind.NOT_EXAMINED, store.name, error.beside(store.name))
        except CatalogError as error:
            yield Finding(FindingKind.STORE_UNAVAILABLE, store.name, error.beside(store.name))


def _own_staging(catalog: Catalog, store: Store, repair: bool) -> Iterator[Finding]:
    folder = store.staging_folder()
    if folder is not None:
        yield from _staging(catalog, folder, store.name, repair)


def _dead_uploads(catalog: Catalog, repair: bool) -> Iterator[Finding]:
    with catalog.read() as repository:
        has_ended = presence.ended(repository)
        dead = [
            record
            for record in repository.uploads()
            if has_ended(record.process) or now() - record.heartbeat_at > ABANDONED_AFTER
        ]
        images = [repository.image(record.image) for record in dead]
    if dead and repair:
        give_up_dead(catalog)
        give_up_abandoned(catalog)
    with catalog.read() as repository:
        remaining = {record.image for record in repository.uploads()}
    for record, image in zip(dead, images, strict=True):
        detail = f"pid {record.process.pid} on {record.process.host} no longer uploads {image.name}"
        repaired = "given up" if repair and image.number not in remaining else ""
        yield Finding(FindingKind.DEAD_UPLOAD, image.id, detail, repaired)


def _unconfigured(catalog: Catalog) -> Iterator[Finding]:
    with catalog.read() as repository:
        root = repository.root()
        folders = repository.folders_in(root.number) if root is not None else []
        for folder in folders:
            if not folder.store or folder.store in catalog.stores:
                continue
            if count := repository.count_locations(folder.store):
                detail = f"is not configured, and {count} images have a location in it"
                yield Finding(FindingKind.STORE_UNAVAILABLE, folder.store, detail)


def _unfinished(catalog: Catalog, store: Store, repair: bool) -> Iterator[Finding]:
    """Parts of uploads in a store that no process will finish."""
    for name in store.leftovers(STRAY_AFTER.total_seconds()):
        with catalog.read() as repository:
            images = [repository.image(record.image) for record in repository.uploads()]
        if not any(image.id in name for image in images):
            detail = "nobody goes on with this upload"
            found = Finding(FindingKind.UNFINISHED, f"{store.name}/{name}", detail)
            yield mend(found, repair, partial(_drop_leftover, store, name))


def _drop_leftover(store: Store, name: str) -> str:
    store.drop_leftover(name)
    return "removed"


def _staging(catalog: Catalog, folder: Path, owner: str, repair: bool) -> Iterator[Finding]:
    """Old files in a staging folder that belong to no upload, of any process."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            age = time.time() - file.stat().st_mtime
        except FileNotFoundError:
            continue
        if age < STRAY_AFTER.total_seconds() or _is_staged(catalog, file):
            continue
        detail = f"no upload uses {file}"
        stray = Finding(FindingKind.STRAY_STAGING, f"{owner}/{file.name}", detail)
        yield mend(stray, repair, partial(_unlink, file))


def _is_staged(catalog: Catalog, file: Path) -> bool:
    """Whether the file belongs to an upload: named by its row, or by its image's id (a store's)."""
    with catalog.read() as repository:
        if any(record.staged == str(file) for record in repository.uploads()):
            return True
        try:
            image = repository.image_by_id(file.name.partition(".")[0])
        except NotFound:
            return False
        return repository.upload(image.number) is not None


def _unlink(file: Path) -> str:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailable(str(file), error.strerror or "") from error
    return "removed"


def _images(catalog: Catalog, repair: bool) -> Iterator[Finding]:
    """Images whose own rows contradict each other."""
    wanted = ImageFilter(statuses=HAS_DATA | IN_PROGRESS | {Status.PENDING_DELETE})
    for page in batches(image.number for image in catalog.all_images(wanted)):
        with catalog.read() as repository:
            placed = repository.active_of(page)
        for number in page:
            if number not in placed:
                yield from _image(catalog, number, repair)


def _image(catalog: Catalog, number: int, repair: bool) -> Iterator[Finding]:
    with catalog.read() as repository:
        image = repository.image(number)
        states = {location.state for location in repository.locations_of(number)}
        upload = repository.upload(number)
    if image.status in IN_PROGRESS and upload is None:
        reason = "nobody was uploading it any more"
        found = Finding(FindingKind.NO_UPLOADER, image.id, f"{image.name} is {image.status}")
        yield mend(found, repair, lambda: _kill(catalog, number, reason))
    elif (
        image.status is not Status.DELETED
        and image.has_data
        # `_deleting` reports the locations that are being deleted.
        and states <= {LocationState.PENDING}
    ):
        found = Finding(FindingKind.NO_LOCATION, image.id, f"{image.name} is in no store")
        yield mend(found, repair, lambda: note(catalog, number, "its data is in no store"))


def _kill(catalog: Catalog, number: int, reason: str) -> str:
    uploads.fail_upload(catalog, number, reason)
    return "killed"


def _totals(catalog: Catalog, repair: bool) -> Iterator[Finding]:
    with catalog.read() as repository:
        is_wrong = repository.miscounted()
    if is_wrong:
        detail = "the totals of images and stores are other than the images"
        found = Finding(FindingKind.MISCOUNTED, "catalog", detail)
        yield mend(found, repair, partial(_recount, catalog))


def _recount(catalog: Catalog) -> str:
    with catalog.write() as repository:
        repository.recount()
    return "counted anew"


def _deleting(catalog: Catalog, repair: bool) -> Iterator[Finding]:
    with catalog.read() as repository:
        left = repository.locations_in_state(LocationState.DELETING)
        ids = [repository.image(location.image).id for location in left]
    if left and repair:
        finish_deletions(catalog)
    for location, image_id in zip(left, ids, strict=True):
        with catalog.read() as repository:
            found = repository.locations_of(location.image)
        state = next((each.state for each in found if each.number == location.number), None)
        if state is None and not repair:
            continue  # another process has finished this removal meanwhile
        subject, detail = f"{location.store}/{image_id}", "its removal was begun and not finished"
        if state is LocationState.ACTIVE:
            detail = "its store refuses to remove it"
        repaired = "removed" if state is None else ""
        yield Finding(FindingKind.LEFTOVER, subject, detail, repaired)
